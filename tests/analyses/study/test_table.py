from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analyses.evaluation.rows import Row
from analyses.netcdf import read_netcdf
from analyses.study.definition import CalibrationData, EditGroup, Study, StudyData, StudyModel
from analyses.study.edits import PlannedEdit
from analyses.study.loading import load_study
from analyses.study.parts import CacheUse, Part
from analyses.study.run import MeasuredPart, StudyResult, run_study
from analyses.study.table import OWN_COLUMNS, study_rows, study_table, summary, write_study
from cachetool import Edit
from cachetool.tokens import TokenLayout
from tests.analyses.study.conftest import Finished

MODEL = StudyModel("dinov2-reg-s", cache="mine")
DATA = StudyData("imagenet-val", ("classification", "retrieval"), "imagenet-train")
STUDY = Study("s", CalibrationData("imagenet-train"), (MODEL,), (DATA,), (EditGroup("a", ("registers",), ("zero",)),))

INTACT = Row(
    model="mine", dataset="imagenet-val", train="imagenet-train", task="classification", metric="top1", unit="image",
    edit="intact", target="", replacement="none", from_layer=1, until_layer=1, sustained=True, seeds=1, head="intact",
    value=0.7, value_low=0.6, value_high=0.8, intact=0.7, difference_pp=0.0, low_pp=math.nan, high_pp=math.nan,
    p_value=math.nan, p_holm=math.nan, equivalent_1pp=False, p_equivalence=math.nan, mcnemar_p=math.nan, units=100,
    images=100, drawn=100, confidence=0.95, edited_tokens=math.nan, off_distribution=math.nan,
    off_distribution_mahalanobis=math.nan, off_distribution_neighbour_percentile=math.nan, certificate=0.0,
    calibration="", calibration_overlap=math.nan, training_overlap=0.0,
    oracle=False, by_construction=False, note="",
)  # fmt: skip
ZERO = replace(
    INTACT, edit="registers zero", target="registers", replacement="zero", until_layer=12, value=0.5,
    difference_pp=-20.0, low_pp=-22.0, high_pp=-18.0, off_distribution=99.0,
)  # fmt: skip


def part() -> Part:
    layout = TokenLayout(cls=1, registers=4, rows=2, columns=2)
    use = CacheUse(MODEL, "imagenet-val", 100, 100, Path("x.zarr"), {"cls": (1, 12)}, layout, 8)
    planned = (PlannedEdit(Edit("cls", "none", 1), ()), PlannedEdit(Edit("registers", "zero", 1), ("a", "b")))
    return Part(
        model=MODEL, data=DATA, tasks=DATA.tasks, depth=12, evaluated=use, train=None, calibration=use,
        tokens=("cls",), edits=planned, notes=(),
    )  # fmt: skip


def result_of(*rows: Row) -> StudyResult:
    return StudyResult(STUDY, (MeasuredPart(part(), rows, ("something was left out",)),))


def test_published_numbers_stand_beside_the_same_edit_of_the_same_model() -> None:
    table = study_table(result_of(INTACT, ZERO, replace(ZERO, task="retrieval", metric="recall@1")))
    assert table.published[:2].tolist() == pytest.approx([0.673, 0.484])
    # The paper loses 67.3 - 48.4 = 18.9; here it is 20, which is 1.1 more.
    assert table.published_drop_pp[1] == pytest.approx(18.9)
    assert table.delta_pp[1] == pytest.approx(-20 + 18.9)
    assert table.published_source.tolist() == ["arXiv 2604.14433", "arXiv 2604.14433", ""]
    assert np.isnan(table.published[2])
    assert np.isnan(table.delta_pp[[0, 2]]).all()
    assert table.groups.tolist() == ["", "a; b", "a; b"]
    assert set(table.study) == {"s"}
    assert set(table.model) == {"mine"}


def test_columns_are_those_of_rows_and_then_those_of_studies(finished: Finished) -> None:
    wanted = [*(field.name for field in fields(Row)), *OWN_COLUMNS]
    assert list(pd.read_csv(finished.directory / "table.csv").columns) == wanted
    assert [list(row) for row in finished.document["rows"]] == [wanted] * len(finished.document["rows"])


def test_csv_netcdf_and_json_hold_the_same(finished: Finished) -> None:
    written = pd.read_csv(finished.directory / "table.csv", keep_default_na=False, na_values={})
    labelled = read_netcdf(finished.directory / "table.nc")
    assert labelled.attrs["study"] == "small"
    assert len(written) == labelled.sizes["row"] == len(finished.document["rows"])
    for name in written.columns:
        stored = labelled[name].values.tolist()
        assert [_plain(value) for value in written[name]] == [_plain(value) for value in stored], name
        assert [_plain(row[name]) for row in finished.document["rows"]] == [_plain(value) for value in stored], name
    for name in ("difference_pp", "low_pp", "published_drop_pp", "delta_pp"):
        assert labelled[name].attrs["units"] == "percentage points"


def _plain(value: Any) -> float | str:
    """What a cell says, whatever the file that it was in: numbers as numbers, and none as an empty text."""
    if value is None or value == "":
        return ""
    try:
        number = float({"True": 1, "False": 0}.get(str(value), value))
    except ValueError:
        return str(value)
    return "" if math.isnan(number) else number


def test_a_table_without_published_numbers_keeps_its_columns(tmp_path: Path) -> None:
    result = result_of(replace(INTACT, from_layer=3, until_layer=3))
    paths = write_study(result, tmp_path / "new" / "folder")
    assert {ending: path.name for ending, path in paths.items()} == {"csv": "table.csv", "nc": "table.nc"}
    labelled = read_netcdf(paths["nc"])
    assert np.isnan(labelled.published.values).all()
    assert labelled.attrs["notes"] == "mine on imagenet-val: something was left out"
    (row,) = study_rows(result)
    assert (row["published"], row["low_pp"], row["published_source"]) == (None, None, "")


def test_a_summary_shows_changes_of_headline_metrics() -> None:
    rows = [
        INTACT,
        ZERO,
        replace(ZERO, metric="top5", difference_pp=-77.0),
        replace(ZERO, head="refit", value=0.1),
        replace(ZERO, edit="other", low_pp=math.nan, high_pp=math.nan, oracle=True, by_construction=True),
    ]
    (shown,) = summary(result_of(*rows))
    assert shown.title == "mine on imagenet-val"
    cells = [list(column.cells) for column in shown.columns]
    assert cells[0] == ["intact", "registers zero", "other o"]
    assert cells[2] == ["70.0 %", "-20.0 (-22.0 to -18.0)", "-20.0 (no interval) *"]
    assert cells[3] == ["", "", ""]
    assert cells[4] == ["", "99", "99"]


def test_groups_are_those_of_all_seeds(finished: Finished) -> None:
    """One group asks for shuffles under two seeds, another for the same under one: the row belongs to both."""
    study = load_study(str(finished.file))
    again = EditGroup("again", ("registers",), ("shuffle",), (1,))
    result = run_study(replace(study, edits=(*study.edits[:1], again)), root=finished.root)
    table = study_table(result)
    shuffles = table[(table["replacement"] == "shuffle")]
    assert set(shuffles["groups"]) == {"registers replaced; again"}
    assert set(shuffles["seeds"]) == {2}
