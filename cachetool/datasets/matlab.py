"""Reading the .mat files in which some published annotations come."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from cachetool.errors import DatasetError
from cachetool.files import read_regular

if TYPE_CHECKING:
    from pathlib import Path


def read_variable(file: Path, name: str) -> Any:
    """Return one variable of a MATLAB file up to version 7, without its dimensions of length 1.

    Raises `DatasetError` where the file cannot be read or lacks the variable.
    """
    from scipy.io import loadmat

    try:
        contents = loadmat(io.BytesIO(read_regular(file)), squeeze_me=True)  # type: ignore[arg-type]
    except Exception as error:  # scipy raises whatever a damaged file makes it stumble over
        raise DatasetError(f"{file} cannot be read as a MATLAB file: {error}") from error
    if name not in contents:
        found = ", ".join(key for key in contents if not key.startswith("__")) or "nothing"
        raise DatasetError(f"{file} lacks the variable {name}; it holds {found}")
    return contents[name]
