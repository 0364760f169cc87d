from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analyses.evaluation.rows import as_frame
from analyses.figures import write_figures
from analyses.figures.writing import file_names
from cachetool.errors import DatasetError

pytestmark = pytest.mark.slow


def test_every_part_gets_the_figures_that_its_rows_allow(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame = frame[frame["task"] == "classification"]
    registers = frame[frame["target"].isin(["", "registers:0", "registers:1", "registers"])]
    swept = frame[frame["edit"] == "registers shuffle"]
    both = pd.concat(
        [
            registers[registers["from_layer"] == 1].assign(off_distribution_mahalanobis=float("nan")),
            swept[swept["head"] == "intact"].assign(model="timm:vit/s", dataset="folder:a b/c#val"),
        ]
    )
    written = write_figures(both, tmp_path / "figures")
    assert [path.name for path in written] == [
        f"{name}{ending}"
        for name in (
            "lesions-tiny-reg-shapes-val",
            "heat-map-tiny-reg-shapes-val",
            "refit-tiny-reg-shapes-val",
            "dose-and-plausibility-timm-vit-s-folder-a-b-c-val",
            "layer-sweep-timm-vit-s-folder-a-b-c-val",
            "heat-map-timm-vit-s-folder-a-b-c-val",
        )
        for ending in (".svg", ".png")
    ]
    assert sorted(written) == sorted((tmp_path / "figures").iterdir())


def test_dependence_on_cls_is_one_figure_of_all_models(frame: pd.DataFrame, tmp_path: Path) -> None:
    few = frame[(frame["target"].isin(["", "cls"])) & (frame["task"] == "segmentation")]
    few = few[few["replacement"].isin(["none", "zero"]) & (few["until_layer"] == 12)]
    written = write_figures(pd.concat([few, few.assign(model="other")]), tmp_path)
    assert [path.name for path in written][-2:] == ["cls-dependence.svg", "cls-dependence.png"]


def test_a_table_without_rows_gives_no_files(tmp_path: Path) -> None:
    assert write_figures(as_frame([]), tmp_path / "figures") == []


def test_repeated_arms_are_not_skipped_silently(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="several rows for the same arm"):
        write_figures(pd.concat([frame, frame]), tmp_path)


def test_names_are_safe_and_never_shared() -> None:
    pairs = [("a/b", "x"), ("a:b", "x"), ("A-b", "x"), ("..", "#"), ("v1.5_s", "d")]
    names = file_names(pairs)
    assert list(names) == pairs
    assert len({name.casefold() for name in names.values()}) == len(pairs)
    assert names["..", "#"] == "unnamed-unnamed"
    assert names["v1.5_s", "d"] == "v1.5_s-d"
    assert not set("/:#\\ ") & set("".join(names.values()))
    assert file_names(pairs) == names
