"""Small labelled results on disk: netCDF-4 files that are whole or absent, and whose damage is seen."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any, Final

import xarray as xr

ENGINE: Final = "h5netcdf"


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
    """Read a whole file into memory and close it. Raises what the library raises for a file that is damaged."""
    with xr.open_dataset(path, engine=ENGINE) as opened:
        return opened.load()
