"""Shard indices that lie, with checksums that agree: no byte outside the file is read, and none twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachetool.errors import DamagedError
from cachetool.store import StoreReader, check_block
from cachetool.store.shards import checksum
from tests.hostile.conftest import LONG, QUICK, harmed, read_everything

CHUNKS, LAYERS = 1, 4
INDEX = CHUNKS * LAYERS * 16
NUMBERS = st.one_of(
    st.sampled_from([0, 1, 2**63, 2**63 - 1, 2**64 - 1, 2**64 - 2, 2**64 - 40, 2**32, 44, 176]),
    st.integers(0, 2**64 - 1),
)


def with_index(shard: bytes, changes: dict[int, int]) -> bytes:
    """A shard of `cls` with other numbers in its index, whose checksum is made to agree."""
    body, index = shard[: -INDEX - 4], np.frombuffer(shard[-INDEX - 4 : -4], dtype="<u8").copy()
    for place, value in changes.items():
        index[place] = value
    encoded = index.tobytes()
    return body + encoded + checksum(encoded)


def check(sound: Path, changes: dict[int, int], verify: bool) -> None:
    file = sound / "cls" / "c.0.0.0"
    expected = [StoreReader(sound).read("cls", layer, 0, 4) for layer in range(LAYERS)]
    with harmed(file, with_index(file.read_bytes(), changes)):
        problems = check_block(sound, 0)
        reader = StoreReader(sound, verify=verify)
        try:
            found = [reader.read("cls", layer, 0, 4) for layer in range(LAYERS)]
            reader.read_layers("cls", range(LAYERS), 0, 4)
            reader.read_tokens("cls", 0, np.arange(4), np.zeros(4, dtype=np.int64))
        except DamagedError as error:
            assert "c.0.0.0" in str(error)
            assert problems
            return
    # Sound chunks in another order are read as they lie there: it is the check that compares them with the record.
    assert problems or all(here.tobytes() == there.tobytes() for here, there in zip(found, expected, strict=True))


CHANGES = st.dictionaries(st.integers(0, 2 * LAYERS - 1), NUMBERS, min_size=1, max_size=4)


@QUICK
@given(changes=CHANGES, verify=st.booleans())
def test_a_changed_index_is_refused(sound: Path, changes: dict[int, int], verify: bool) -> None:
    check(sound, changes, verify)


@pytest.mark.slow
@LONG
@given(changes=CHANGES, verify=st.booleans())
def test_hundreds_of_changed_indices_are_refused(sound: Path, changes: dict[int, int], verify: bool) -> None:
    check(sound, changes, verify)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: 2**64 - 10}, "beyond its end"),  # offset + size wraps around to a small number
        ({0: 2**63}, "beyond its end"),
        ({0: 177}, "beyond its end"),
        ({1: 1}, "another size"),
        ({1: 2**64 - 1}, "another size"),
        ({2: 0}, "overlap"),
        ({2: 4}, "overlap"),
    ],
)
def test_wrong_indices_are_named(sound: Path, changes: dict[int, int], message: str, verify: bool) -> None:
    file = sound / "cls" / "c.0.0.0"
    with (
        harmed(file, with_index(file.read_bytes(), changes)),
        pytest.raises(DamagedError, match=rf"c\.0\.0\.0 is damaged: .*{message}"),
    ):
        StoreReader(sound, verify=verify).read("cls", 0, 0, 4)


def test_a_chunk_that_is_said_to_be_absent_is_missed(sound: Path) -> None:
    file = sound / "cls" / "c.0.0.0"
    with harmed(file, with_index(file.read_bytes(), {0: 2**64 - 1, 1: 2**64 - 1})):
        with pytest.raises(DamagedError, match=r"c\.0\.0\.0 is damaged"):
            read_everything(sound)
        assert check_block(sound, 0)
