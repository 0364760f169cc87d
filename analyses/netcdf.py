"""Small labelled results on disk: netCDF-4 files that are whole or absent, and whose damage is seen."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any, Final

import xarray as xr

ENGINE: Final = "h5netcdf"

MOST_PACKED, MOST_UNWRITTEN = 2000, 2**24
"""How many times its size a file may hold, as compression allows about 1000, and bytes that may be unwritten."""


def write_netcdf(data: xr.Dataset, path: Path) -> None:
    """Write a loaded data set beside its place and move it there, so that a reader never meets half a file.

    Numbers are compressed and carry checksums, so that changed bytes are an error when they are read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    checked: dict[str, Any] = {"zlib": True, "complevel": 1, "fletcher32": True}
    encoding = {
        name: checked for name, variable in data.variables.items() if variable.dtype.kind in "biuf" and variable.size
    }
    try:
        # Encodings that came with a file it was read from would contradict these.
        data.drop_encoding().to_netcdf(temporary, engine=ENGINE, encoding=encoding)
        os.replace(temporary, path)  # noqa: PTH105 - Path.replace does the same, but faults are injected into `os`
    finally:
        temporary.unlink(missing_ok=True)


def read_netcdf(path: Path) -> xr.Dataset:
    """Read a whole file into memory and close it.

    Raises `OSError` or `ValueError` for a file that is damaged, whose values lie in other files, or which claims more
    than it can hold: it may have come with a cache from somebody else.
    """
    if not path.is_file():
        raise OSError(f"{path} is no file")
    try:
        _check(path)
        with xr.open_dataset(path, engine=ENGINE) as opened:
            return opened.load()
    except OSError:
        raise
    except Exception as error:  # HDF5 and xarray raise whatever a damaged file makes them stumble over
        raise ValueError(f"{path} cannot be read as netCDF: {error}") from error


def _check(path: Path) -> None:
    """Raise `ValueError` before anything is read that lies elsewhere, or for which memory would be taken in vain."""
    import h5py

    claimed = 0
    with h5py.File(path, "r") as file:
        for name in file:
            linked = not isinstance(file.get(name, getlink=True), h5py.HardLink)
            array = None if linked else file[name]
            dataset = isinstance(array, h5py.Dataset)
            if linked or (dataset and (array.is_virtual or array.external)):
                raise ValueError(f"{name} {'is a link' if linked else 'lies in other files'}")
            claimed += array.nbytes if dataset else 0
    if claimed > MOST_PACKED * path.stat().st_size + MOST_UNWRITTEN:
        raise ValueError(f"it claims {claimed:,} bytes, more than it can hold")
