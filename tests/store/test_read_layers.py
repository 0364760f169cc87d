"""Several states at once are what each state is alone, from any store, and damage is seen all the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachetool.errors import DamagedError, IncompleteError, StoreError
from cachetool.store import StoreReader, create


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_states_at_once_are_states_one_by_one(kit, tmp_path_factory, data) -> None:
    example = data.draw(kit.examples)
    spec = example.spec
    reader = StoreReader(example.make(tmp_path_factory.mktemp("layers") / "a.zarr"))
    token_type = data.draw(st.sampled_from(spec.token_types))
    layers = data.draw(st.lists(st.sampled_from(spec.layers), max_size=6))
    start = data.draw(st.integers(0, len(spec.images)))
    stop = data.draw(st.integers(start, len(spec.images)))
    for _ in range(2):  # the second time nothing is compared with checksums
        found = reader.read_layers(token_type, layers, start, stop)
        assert found.shape == (len(layers), stop - start, spec.layout.count(token_type), spec.channels)
        for index, layer in enumerate(layers):
            assert found[index].tobytes() == reader.read(token_type, layer, start, stop).tobytes()


def test_a_flipped_bit_is_found(tmp_path, example) -> None:
    path = example.make(tmp_path / "a.zarr")
    (shard, *_) = sorted((path / "registers").glob("c.1*"))
    harmed = bytearray(shard.read_bytes())
    harmed[len(harmed) // 3] ^= 1
    shard.write_bytes(harmed)
    images = len(example.spec.images)
    with pytest.raises(DamagedError):
        StoreReader(path).read_layers("registers", example.spec.layers, 0, images)
    assert StoreReader(path).read_layers("registers", example.spec.layers, 0, 4).size


def test_what_is_not_there_is_refused(tmp_path, example) -> None:
    path = tmp_path / "a.zarr"
    create(path, example.spec)
    example.fill(path, [0, 1])
    reader = StoreReader(path)
    with pytest.raises(IncompleteError, match=r"state 2 of cls in the blocks 0-2; state 3 of cls"):
        reader.read_layers("cls", [1, 2, 3], 0, 12 if len(example.spec.images) >= 12 else len(example.spec.images))
    with pytest.raises(StoreError, match="must be C-contiguous"):
        reader.read_layers("cls", [0], 0, 2, out=np.empty((1, 2, 1, 1)))
    with pytest.raises(StoreError, match="images"):
        reader.read_layers("cls", [0], 0, 10_000)
