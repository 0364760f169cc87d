"""Tables on disk are whole or as they were."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

from analyses.table_files import check_directory, write_both
from cachetool.errors import StoreError

FRAME = pd.DataFrame({"value": [1.0, 2.0]})
DATASET = xr.Dataset({"value": ("row", [1.0, 2.0])})


def test_both_files_hold_the_table(tmp_path: Path) -> None:
    table, labelled = write_both(FRAME, DATASET, tmp_path / "new" / "table")
    pd.testing.assert_frame_equal(pd.read_csv(table), FRAME)
    with xr.open_dataset(labelled, engine="h5netcdf") as opened:
        assert opened.value.values.tolist() == [1.0, 2.0]
    assert sorted(path.name for path in table.parent.iterdir()) == ["table.csv", "table.nc"]


@pytest.mark.parametrize("failing", ["to_csv", "replace"])
def test_a_full_disk_leaves_the_old_table(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, _ = write_both(FRAME, DATASET, tmp_path / "table")
    before = table.read_bytes()

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame if failing == "to_csv" else os, failing, full)
    with pytest.raises(StoreError, match=r"table.csv could not be written .*(No space left|disk is full)"):
        write_both(FRAME * 2, DATASET, tmp_path / "table")
    assert table.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv", "table.nc"]


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="cannot be a directory for results"):
            check_directory(place)
