"""Files that users name and others made: regular ones alone, since a pipe or a device would have cachetool wait."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """A path as a user types it, with `~` and `~user` as folders; a user who does not exist is part of the name."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - the method of Path raises for one who does not exist


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
