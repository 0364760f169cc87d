"""A file for the HDF5 library that never fails under its hands: the first error is kept for its owner to raise.

Where a write fails, on a full disk say, HDF5 1.14 cannot close its objects any more: it reports that once for each of
them and crashes the process at its end. So from the first error on, writes are taken and dropped.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any


class Sink(io.FileIO):
    """A new file, opened for writing and reading."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "x+b")
        self.error: OSError | None = None
        """Why nothing is written any more."""

    def write(self, data: Any, /) -> int:
        """Write all of the data, or keep the error."""
        rest = memoryview(data)
        try:
            while rest and self.error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return len(data)

    def truncate(self, size: int | None = None, /) -> int:
        """Change the length, or keep the error."""
        try:
            return super().truncate(size) if self.error is None else size or 0
        except OSError as error:
            self.error = error
            return size or 0

    def check(self) -> None:
        """Raise the error, if there was one."""
        if self.error is not None:
            raise self.error
