from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from analyses.evaluation.rows import Row, as_dataset, as_frame, write_table
from analyses.netcdf import read_netcdf

ROW = Row(
    model="tiny-reg",
    dataset="shapes#val",
    train="shapes#train",
    task="classification",
    metric="top1",
    unit="image",
    edit="registers zero",
    target="registers",
    replacement="zero",
    from_layer=1,
    until_layer=12,
    sustained=True,
    seeds=1,
    head="intact",
    value=0.9,
    value_low=0.8,
    value_high=0.95,
    intact=0.92,
    difference_pp=-2.0,
    low_pp=-3.5,
    high_pp=-0.5,
    p_value=0.01,
    p_holm=0.04,
    equivalent_1pp=False,
    p_equivalence=0.9,
    mcnemar_p=0.02,
    units=800,
    images=800,
    drawn=800,
    confidence=0.95,
    edited_tokens=4.0,
    off_distribution=99.0,
    off_distribution_mahalanobis=1e3,
    off_distribution_neighbour_percentile=98.5,
    certificate=2.5e-4,
    calibration="other.zarr",
    calibration_overlap=0.0,
    training_overlap=0.0,
    oracle=False,
    by_construction=False,
    note="",
)
INTACT = replace(ROW, edit="intact", target="", replacement="none", p_value=float("nan"), low_pp=float("nan"))


def test_json_has_no_nan() -> None:
    document = json.loads(json.dumps(INTACT.to_json(), allow_nan=False))
    assert document["p_value"] is None
    assert document["value"] == 0.9


def test_frame_has_one_column_per_field() -> None:
    names = [field.name for field in fields(Row)]
    assert as_frame([]).columns.tolist() == names
    frame = as_frame([INTACT, ROW])
    assert frame.columns.tolist() == names
    assert frame.edit.tolist() == ["intact", "registers zero"]
    assert frame.equivalent_1pp.dtype == bool


def test_tables_on_disk_agree(tmp_path: Path) -> None:
    paths = write_table([INTACT, ROW], tmp_path / "new" / "table")
    assert [path.name for path in paths] == ["table.csv", "table.nc"]
    text = pd.read_csv(paths[0], keep_default_na=False, na_values={"p_value": "", "low_pp": ""})
    labelled = read_netcdf(paths[1])
    for name, expected in as_frame([INTACT, ROW]).items():
        assert labelled[name].values.tolist() == expected.tolist() or np.isnan(expected[0])
        assert text[name].tolist() == expected.tolist() or np.isnan(expected[0])
    assert labelled.difference_pp.attrs["units"] == "percentage points"
    assert as_dataset([]).sizes["row"] == 0
