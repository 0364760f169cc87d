"""One table as CSV and as netCDF-4: both files are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import xarray as xr

from analyses.netcdf import write_netcdf
from cachetool.errors import StoreError
from cachetool.store.atomic import remove_leftovers, temporary_name


def check_directory(directory: Path) -> None:
    """Make a directory for results before any work is done. Raises `StoreError` where that is impossible."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{directory} cannot be a directory for results ({error.strerror}: {error.filename}); name another with "
            "--output"
        ) from error


def check_file(file: Path) -> None:
    """Make the directory of a result before any work is done. Raises `StoreError` where no such file can be."""
    check_directory(file.parent)
    if file.is_dir():
        raise StoreError(f"{file} is a directory: expected a file for the result, such as {file / 'result.nc'}")


def write_both(frame: pd.DataFrame, dataset: xr.Dataset, path: Path) -> tuple[Path, Path]:
    """Write `PATH.csv` and `PATH.nc`, each first beside its place; returns the two.

    Raises
    ------
    StoreError
        They cannot be written; files that were there are as they were.
    """
    table, labelled = path.with_name(f"{path.name}.csv"), path.with_name(f"{path.name}.nc")
    temporary = temporary_name(table)
    check_directory(path.parent)
    remove_leftovers(path.parent, table.name)
    try:
        frame.to_csv(temporary, index=False)
        write_netcdf(dataset, labelled)
        os.replace(temporary, table)  # noqa: PTH105 - Path.replace does the same, but faults are injected into `os`
    except OSError as error:
        raise StoreError(f"{table} could not be written ({error}); free some space or name another --output") from error
    finally:
        temporary.unlink(missing_ok=True)
    return table, labelled
