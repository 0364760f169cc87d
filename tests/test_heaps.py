from __future__ import annotations

import io

import h5py
import pytest

from cachetool.heaps import check_heaps


def with_text(version: str) -> bytes:
    """An HDF5 file of three texts, the free space of whose heap follows them."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=version) as file:
        file["text"] = ["a", "b" * 8, "c" * 9]
    return buffer.getvalue()


SOUND = with_text("earliest")
FIRST = SOUND.index(b"GCOL") + 16
FREE = FIRST + 24 + 24 + 32  # headers of 16 bytes, and texts padded to 8


def changed(place: int, value: bytes) -> bytes:
    return SOUND[:place] + value + SOUND[place + len(value) :]


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_sound_heaps_pass(version: str) -> None:
    check_heaps(with_text(version))


def test_files_without_heaps_pass() -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["numbers"] = [1, 2]
    check_heaps(buffer.getvalue())


@pytest.mark.parametrize(
    ("place", "size"),
    [
        (FREE, 0),
        (FREE, 4096),
        (FREE, 2**64 - 16),
        (FIRST, 4096),
        (FIRST, 2**63),
        (FIRST, 2**64 - 16),
        (FIRST, 2**64 - 1),
    ],
)
def test_sizes_that_lead_nowhere_are_refused(place: int, size: int) -> None:
    assert SOUND[FREE : FREE + 2] == b"\0\0"
    with pytest.raises(ValueError, match=f"an object of a heap claims {size} bytes"):
        check_heaps(changed(place + 8, size.to_bytes(8, "little")))


def test_a_heap_after_a_sound_one_is_looked_at() -> None:
    with pytest.raises(ValueError, match="an object of a heap claims 0 bytes"):
        check_heaps(SOUND + changed(FREE + 8, bytes(8))[FIRST - 16 :])


def test_heaps_that_are_cut_off_end_the_search() -> None:
    check_heaps(SOUND[: FREE + 15])


@pytest.mark.parametrize(
    ("place", "message"), [(0, "it does not begin as HDF5 files do"), (13, "not of 8 bytes"), (14, "not of 8 bytes")]
)
def test_other_beginnings_are_refused(place: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_heaps(changed(place, b"\4"))
    with pytest.raises(ValueError, match="it does not begin as HDF5 files do"):
        check_heaps(b"")
