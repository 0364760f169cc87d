"""Which arms stand for dependence on [CLS], and that models are drawn side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from analyses.figures.cls_dependence import cls_dependence, dependence_on_cls, draw
from cachetool.errors import MissingDataError
from tests.analyses.figures.synthetic import study_frame


def similarity() -> xr.Dataset:
    """Cosines (run, image, layer): two edits of [CLS], one of registers, one dose."""
    values = np.stack([np.full((5, 2), cosine) for cosine in (0.9, 0.8, 0.5, 0.7)])
    values[:, :, 0] = 1.0
    edits = ["[CLS] zero, to 11", "[CLS] mean, to 11", "registers zero", "[CLS] interpolate:zero:0.5, to 11"]
    return xr.Dataset(
        {"cosine": (("run", "image", "layer"), values, {"units": "1"})},
        {
            "layer": [6, 12],
            "edit": ("run", edits),
            "target": ("run", ["cls", "cls", "registers", "cls"]),
            "replacement": ("run", ["zero", "mean", "zero", "interpolate:zero:0.5"]),
            "from_layer": ("run", [1, 1, 1, 1]),
        },
    )


def test_rows_are_the_earliest_edits_of_cls_on_dense_tasks(whole: pd.DataFrame) -> None:
    table = dependence_on_cls([whole], {"tiny-reg": [similarity()]})
    tasks = table[table["units"] == "percentage points"]
    assert set(tasks["measurement"]) == {"segmentation: mIoU", "correspondence: PCK@0.1"}
    assert set(tasks["from_layer"]) == {1}
    assert not tasks["replacement"].str.startswith("interpolate").any()
    assert not tasks.duplicated(["measurement", "replacement"]).any()
    # [CLS] zero begins at state 1 both sustained and to 11: the one that lasts longest counts.
    zero = tasks[(tasks["measurement"] == "segmentation: mIoU") & (tasks["replacement"] == "zero")].iloc[0]
    assert zero["edit"] == "[CLS] zero"
    wanted = whole[(whole["edit"] == "[CLS] zero") & (whole["metric"] == "miou") & (whole["head"] == "intact")]
    assert zero["value"] == wanted["difference_pp"].iloc[0]
    features = table[table["units"] == "1"].set_index("replacement")
    assert features["value"].to_dict() == pytest.approx({"zero": 0.1, "mean": 0.2})
    assert features.loc["zero", "n"] == 5


def test_models_stand_side_by_side_by_their_registers(whole: pd.DataFrame, tmp_path: Path) -> None:
    both = dependence_on_cls([whole, study_frame("plain", "photos")], {})
    figure = draw(both, {"tiny-reg": 4, "plain": 0})
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["segmentation", "correspondence"]
    labels = [label.get_text() for label in panels[0].get_xticklabels()]
    assert labels == ["plain\nno registers", "tiny-reg\n4 registers"]
    cls_dependence(both, tmp_path / "dependence.svg")
    assert (tmp_path / "dependence.svg").stat().st_size > 1000


def test_without_edits_of_cls_there_is_nothing_to_draw(whole: pd.DataFrame) -> None:
    bare = dependence_on_cls([whole[whole["target"] != "cls"]], {})
    assert bare.empty
    with pytest.raises(MissingDataError, match=r"edit of \[CLS\]; replay one"):
        draw(bare, {})
