from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from analyses.netcdf import read_netcdf, write_netcdf


@pytest.fixture
def data() -> xr.Dataset:
    return xr.Dataset(
        {"hit": ("image", np.array([True, False, True])), "error": (("image", "point"), np.full((3, 2), np.nan))},
        {"image_id": ("image", np.array(["a", "ü", "c"], dtype=object))},
        {"note": "as measured"},
    )


def test_what_is_written_is_read(data: xr.Dataset, tmp_path: Path) -> None:
    write_netcdf(data, tmp_path / "new" / "outcomes.nc")
    found = read_netcdf(tmp_path / "new" / "outcomes.nc")
    xr.testing.assert_identical(found, data)
    assert found.hit.dtype == bool
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["outcomes.nc"]


def test_a_failed_write_leaves_what_was_there(
    data: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outcomes.nc"
    write_netcdf(data, path)
    before = path.read_bytes()

    def full_disk(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="disk is full"):
        write_netcdf(data.assign(hit=~data.hit), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["outcomes.nc"]


def test_changed_numbers_are_an_error(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2**60, size=4000)
    path = tmp_path / "outcomes.nc"
    write_netcdf(xr.Dataset({"nearest": ("image", values)}), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises((OSError, RuntimeError, ValueError)):
        read_netcdf(path)
