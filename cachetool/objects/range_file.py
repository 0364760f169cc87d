"""What an archive is opened from: an object as a file that is read by ranges, or a regular file of a disk."""

from __future__ import annotations

import errno
import io
from typing import Any, BinaryIO

from cachetool.files import expanded
from cachetool.objects.source import Source

BUFFER_BYTES = 2**16
"""What is read at once where little is asked for, as for the directory of an archive."""


class RangeFile(io.RawIOBase):
    """One object, of the content that it had when it was opened."""

    def __init__(self, source: Source, key: str) -> None:
        """Ask for its size. Raises `FileNotFoundError`."""
        self._source, self._key = source, key
        self._found = source.head(key)
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte, counted from the beginning, from here, or from the end."""
        self._position = max(offset + (0, self._position, self._found.size)[whence], 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer by one request, as far as there are bytes. Raises `Replaced` for other content by now."""
        stop = min(self._position + len(buffer), self._found.size)
        if stop <= self._position:
            return 0
        content = self._source.get_range(self._key, self._position, stop, self._found.tag)[: stop - self._position]
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def opened(source: Source, key: str) -> io.BufferedReader:
    """An object as a buffered file. Raises `FileNotFoundError`."""
    return io.BufferedReader(RangeFile(source, key), BUFFER_BYTES)


def opened_local(path: str) -> BinaryIO:
    """A regular file of a disk. Raises `OSError`: to open a pipe would wait until somebody writes into it."""
    file = expanded(path)
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "expected a file", path)
    return file.open("rb")
