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


def read_block(store: Path, token_type: str, verify: bool) -> list[bytes]:
    """The states of the first block by all ways of reading it, as they are read layer by layer."""
    reader = StoreReader(store, verify=verify)
    layers, stop = reader.spec.layers, min(reader.spec.block, len(reader.images))
    found = [reader.read(token_type, layer, 0, stop).tobytes() for layer in layers]
    reader.read_layers(token_type, layers, 0, stop)
    reader.read_tokens(token_type, layers[0], np.arange(stop), np.zeros(stop, dtype=np.int64))
    return found


def refused_or_told(shard: Path, content: bytes, expected: list[bytes], verify: bool) -> bool:
    """Whether reading the first block is refused when its shard has other content; else the check must tell."""
    store, token_type = shard.parents[1], shard.parent.name
    with harmed(shard, content):
        problems = check_block(store, 0)
        try:
            found = read_block(store, token_type, verify)
        except DamagedError as error:
            assert f"{token_type}/{shard.name}" in str(error)
            assert problems
            return True
    # Sound chunks in another order are read as they lie there: it is the check that compares them with the record.
    assert problems or found == expected
    return False


def check(sound: Path, changes: dict[int, int], verify: bool) -> None:
    shard, expected = sound / "cls" / "c.0.0.0", read_block(sound, "cls", verify=True)
    refused_or_told(shard, with_index(shard.read_bytes(), changes), expected, verify)


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
