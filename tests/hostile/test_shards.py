"""Shard indices that lie, with checksums that agree: no byte outside the file is read, and none twice."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachetool.errors import DamagedError
from cachetool.store import StoreReader, check_block
from cachetool.store.shards import checksum
from tests.hostile.conftest import LONG, QUICK, harmed, read_everything, refused_or_same

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
    expected = StoreReader(sound)
    values = {f"cls{layer}": expected.read("cls", layer, 0, 4) for layer in range(4)}

    def read() -> dict[str, np.ndarray]:
        reader = StoreReader(sound, verify=verify)
        found = {f"cls{layer}": reader.read("cls", layer, 0, 4) for layer in range(4)}
        reader.read_layers("cls", [0, 1, 2, 3], 0, 4)
        reader.read_tokens("cls", 0, np.arange(4), np.zeros(4, dtype=np.int64))
        return found

    with harmed(file, with_index(file.read_bytes(), changes)):
        problems = check_block(sound, 0)
        refused = True
        if verify:
            refused = refused_or_same(read, values, "c.0.0.0")
        else:
            with suppress(DamagedError):
                read()
        # Where another order of the same chunks is read, it is not what the record vouches for.
        assert problems or not refused


CHANGES = st.dictionaries(st.integers(0, 2 * LAYERS - 1), NUMBERS, min_size=1, max_size=4)


@QUICK
@given(changes=CHANGES, verify=st.booleans())
def test_a_changed_index_is_refused(sound: Path, changes: dict[int, int], verify: bool) -> None:
    check(sound, changes, verify)


@pytest.mark.slow
@LONG
@given(changes=CHANGES, verify=st.booleans())
def test_thousands_of_changed_indices_are_refused(sound: Path, changes: dict[int, int], verify: bool) -> None:
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
