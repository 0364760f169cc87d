from __future__ import annotations

from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from analyses.evaluation.rows import as_frame
from analyses.figures import dose_and_plausibility, heat_map, layer_sweep, lesions, refit
from analyses.figures.selection import select_part
from cachetool.errors import DatasetError, MissingDataError, UnknownNameError

FIGURES = (dose_and_plausibility, heat_map, layer_sweep, lesions, refit)


def test_headline_metrics_and_intact_heads(whole: pd.DataFrame) -> None:
    # Backwards, other metrics come before those that stand for their tasks.
    assert whole["metric"].iloc[-1] != "pck@0.1"
    part = select_part(whole.iloc[::-1])
    assert part.metrics == {
        "classification": "top1",
        "retrieval": "recall@1",
        "segmentation": "miou",
        "correspondence": "pck@0.1",
    }
    headline = whole["metric"].isin(["top1", "recall@1", "miou", "pck@0.1"])
    edited = headline & (whole["replacement"] != "none")
    assert len(part.arms) == (edited & (whole["head"] == "intact")).sum()
    assert len(part.refit) == (edited & (whole["head"] == "refit")).sum() > 0


def test_a_task_without_known_metrics_is_shown_by_its_first(frame: pd.DataFrame) -> None:
    frame["metric"] = frame["metric"].map({"top1": "zeta", "top5": "alpha"}).fillna(frame["metric"])
    assert select_part(frame).metrics["classification"] == "zeta"


def test_subjects_and_oracles(frame: pd.DataFrame) -> None:
    arms = select_part(frame).arms.set_index("edit")
    assert set(arms.loc["registers shuffle", "subject"]) == {"registers"}
    assert set(arms.loc["[CLS] zero, to 11", "subject"]) == {"[CLS], to 11"}
    assert set(arms.loc["registers class-mean", "name"]) == {"registers class-mean (oracle)"}
    assert set(arms.loc["registers mean", "name"]) == {"registers mean"}


def test_a_table_read_back_from_csv_gives_the_same(frame: pd.DataFrame) -> None:
    read = pd.read_csv(StringIO(frame.to_csv(index=False)))
    ours, theirs = select_part(frame), select_part(read)
    shared = ["task", "edit", "target", "difference_pp", "by_construction", "subject"]
    pd.testing.assert_frame_equal(ours.arms[shared], theirs.arms[shared])
    assert ours.title == theirs.title == "tiny-reg on shapes#val"


def test_a_choice_is_asked_for_by_all_figures(frame: pd.DataFrame, tmp_path: Path) -> None:
    several = pd.concat([frame, frame.assign(model="dinov2-s"), frame.assign(dataset="other")])
    for figure in FIGURES:
        with pytest.raises(UnknownNameError, match=r"several parts fit.*'tiny-reg'.*'dinov2-s'.*'other'"):
            figure(several, tmp_path / "figure.svg")
    with pytest.raises(UnknownNameError, match=r"no part fits model 'no-model'.*dinov2-s"):
        select_part(several, "no-model")
    assert select_part(several, "dinov2-s").title == "dinov2-s on shapes#val"
    assert select_part(several, dataset="other").title == "tiny-reg on other"
    assert list(tmp_path.iterdir()) == []


def test_absent_rows_are_said_by_all_figures(frame: pd.DataFrame, tmp_path: Path) -> None:
    intact = frame[frame["replacement"] == "none"]
    for figure in FIGURES:
        with pytest.raises(MissingDataError, match=r"no rows of .* for tiny-reg on shapes#val"):
            figure(intact, tmp_path / "figure.svg")
        with pytest.raises(MissingDataError, match="the table has no rows; run"):
            figure(as_frame([]), tmp_path / "figure.svg")


def test_absent_columns_are_named(frame: pd.DataFrame) -> None:
    with pytest.raises(DatasetError, match="lacks the columns low_pp, oracle;"):
        select_part(frame.drop(columns=["oracle", "low_pp"]))


def test_repeated_arms_are_named(frame: pd.DataFrame) -> None:
    again = frame[(frame["edit"] == "registers mean") & (frame["from_layer"] == 3)].assign(calibration="other")
    with pytest.raises(DatasetError, match=r"classification: registers mean from 3, intact head; segmentation: "):
        select_part(pd.concat([frame, again]))
