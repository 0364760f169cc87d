"""Heaps of HDF5 files, in which values of variable length lie: a forged one would keep HDF5 busy for ever."""

from __future__ import annotations

from mmap import mmap
from typing import Final

_START: Final = b"\x89HDF\r\n\x1a\n"
_HEAP: Final = b"GCOL\1\0\0\0"
"""How a heap begins: signature, version and zeros."""


def check_heaps(content: bytes | mmap) -> None:
    """Raise `ValueError` for a file in whose heaps HDF5 2.0 would go round for ever, deaf to Ctrl-C.

    It goes from object to object by their sizes. That of object 0, which is free space, may be 0, and any may be so
    large that its sum with the header overflows. Files with sizes of other than 8 bytes are refused.
    """
    if content[: len(_START)] != _START:
        raise ValueError("it does not begin as HDF5 files do")
    first = 13 if content[8:9] < b"\2" else 9  # by the version of what the file begins with
    if content[first : first + 2] != b"\x08\x08":
        raise ValueError("its offsets or lengths are not of 8 bytes")
    heap = -1
    while (heap := content.find(_HEAP, heap + 1)) >= 0:
        end = heap + int.from_bytes(content[heap + 8 : heap + 16], "little")
        place = heap + 16
        while place + 16 <= min(end, len(content)):
            number, size = content[place : place + 2], int.from_bytes(content[place + 8 : place + 16], "little")
            taken = size if number == b"\0\0" else 16 + (size + 7) // 8 * 8
            if not 0 < taken <= end - place:
                raise ValueError(f"an object of a heap claims {size} bytes")
            place += taken
