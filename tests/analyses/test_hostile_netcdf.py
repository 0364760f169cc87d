"""netCDF files that came with a cache from somebody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import google_crc32c
import h5py
import numpy as np
import pytest
import xarray as xr

from analyses.netcdf import read_netcdf, write_netcdf


def sealed(path: Path) -> Path:
    """The file with a checksum that agrees: whoever forges a file makes it so."""
    content = path.read_bytes()
    path.write_bytes(content + google_crc32c.value(content).to_bytes(4, "little"))
    return path


def test_values_of_other_files_are_not_read(tmp_path: Path) -> None:
    write_netcdf(xr.Dataset({"secret": ("x", np.arange(4))}), tmp_path / "other.nc")
    for number, make in enumerate(
        (
            lambda file: file.__setitem__("y", h5py.ExternalLink(str(tmp_path / "other.nc"), "secret")),
            lambda file: file.create_dataset("y", (4,), np.uint8, external=[(str(tmp_path / "other.nc"), 0, 4)]),
        )
    ):
        path = tmp_path / f"{number}.nc"
        write_netcdf(xr.Dataset({"x": ("x", np.arange(4))}), path)
        with h5py.File(path, "a") as file:
            make(file)
        with pytest.raises(ValueError, match=rf"{number}\.nc .*y (is a link|lies in other files)"):
            read_netcdf(sealed(path))


def test_what_no_file_of_the_size_holds_is_refused(tmp_path: Path) -> None:
    write_netcdf(xr.Dataset({"x": ("x", np.arange(4))}), tmp_path / "a.nc")
    with h5py.File(tmp_path / "a.nc", "a") as file:
        file.create_dataset("y", (10**12,), np.float64, chunks=(10,))
    with pytest.raises(ValueError, match="more than it can hold"):
        read_netcdf(sealed(tmp_path / "a.nc"))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nc")
    with pytest.raises(OSError, match="is no file"):
        read_netcdf(tmp_path / "a.nc")


READ = "import sys, pathlib, analyses.netcdf; analyses.netcdf.read_netcdf(pathlib.Path(sys.argv[1]))"


def test_a_heap_without_an_end_is_refused(tmp_path: Path) -> None:
    """In a process of its own: HDF5 would go round in it for ever, and nothing but a kill would stop it."""
    file = tmp_path / "a.nc"
    write_netcdf(xr.Dataset({"x": ("x", ["a", "b"])}), file)
    content = file.read_bytes()[:-4]
    free = content.index(b"GCOL") + 16
    while content[free : free + 2] != b"\0\0":
        free += 24  # a header, and one character padded to eight bytes
    file.write_bytes(content[: free + 8] + bytes(8) + content[free + 16 :])
    done = subprocess.run([sys.executable, "-c", READ, str(sealed(file))], capture_output=True, text=True, timeout=60)
    assert f"ValueError: {file} cannot be read as netCDF: an object of a heap claims 0 bytes" in done.stderr
