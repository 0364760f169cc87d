"""Reading files that others made: regular ones alone, since a pipe or a device would have cachetool wait for ever."""

from __future__ import annotations

import errno
import stat
from pathlib import Path


def read_regular(path: Path, *, follow_links: bool = True) -> bytes:
    """The bytes of a regular file. Raises `OSError` as `open` does, and for a pipe, device, socket or folder.

    With `follow_links` False a symbolic link at the end of the path is refused likewise.
    """
    # Looked at first, since opening a pipe waits until somebody writes into it.
    mode = path.stat(follow_symlinks=follow_links).st_mode
    if not stat.S_ISREG(mode):
        found = "a symbolic link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
        raise OSError(errno.EINVAL, f"expected a file, found {found}", str(path))
    return path.read_bytes()
