"""The shuffled stream: every token once, the right values, the same batches whatever the workers and ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from cachetool import Activations
from cachetool.errors import IncompleteError, UnknownNameError
from cachetool.store import StoreReader, to_float32
from cachetool.tokens import TokenLayout
from tests.interchange.conftest import cache as cache
from tests.interchange.conftest import complete_key
from tests.store.conftest import make_example


def rows(found: Any) -> list[tuple[int, ...]]:
    return [tuple(row) for _values, indices in found for row in indices.tolist()]


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_every_token_once_with_its_own_values(tmp_path_factory, data) -> None:
    dtype = data.draw(st.sampled_from(["float32", "float16", "bfloat16"]))
    example = complete_key(make_example(dtype=dtype, images=data.draw(st.integers(1, 20)), block=4))
    path = example.make(tmp_path_factory.mktemp("stream") / "a.zarr")
    layers = data.draw(st.lists(st.sampled_from([0, 1, 2, 3]), min_size=1, unique=True))
    types = data.draw(st.lists(st.sampled_from(["cls", "registers", "patches"]), min_size=1, unique=True))
    world = data.draw(st.integers(1, 3))
    options: dict[str, Any] = {
        "layers": layers, "tokens": types, "seed": data.draw(st.integers(0, 5)), "indices": True, "world_size": world,
        "batch_size": data.draw(st.integers(1, 30)), "buffer_bytes": data.draw(st.sampled_from([1, 400, 10**6])),
    }  # fmt: skip
    ranks = [Activations(path, rank=rank, **options) for rank in range(world)]
    found = [list(one) for one in ranks]
    assert [len(one) for one in ranks] == [len(batches) for batches in found]
    seen = [row for batches in found for row in rows(batches)]
    positions = [token for name in types for token in range(9)[LAYOUT.slice(name)]]
    images = len(example.spec.images)
    assert sorted(seen) == sorted((i, k, t) for i in range(images) for k in layers for t in positions)
    reader = StoreReader(path)
    state = {layer: reader.read_state(layer, 0, images) for layer in layers} if len(types) == 3 else None
    for values, indices in (batch for batches in found for batch in batches):
        assert values.dtype == torch.float32
        assert 0 < len(values) <= options["batch_size"]
        if state is not None:
            expected = np.stack([state[k][i, t] for i, k, t in indices.tolist()])
            np.testing.assert_array_equal(values.numpy(), expected)


LAYOUT = TokenLayout(cls=1, registers=2, rows=2, columns=3)


def test_unreadable_images_are_left_out(cache: Path) -> None:
    found = rows(Activations(cache, layers=[1], indices=True))
    assert {image for image, _layer, _token in found} == set(range(10)) - {5}
    assert len(found) == 9 * 9
    values = torch.cat(list(Activations(cache, layers=[1], tokens=["cls"])))
    own = to_float32(StoreReader(cache).read("cls", 1, 0, 10)[:, 0], "float16")
    expected = {row.tobytes() for image, row in enumerate(own) if image != 5}
    assert {row.numpy().tobytes() for row in values} == expected


def test_seeds_and_epochs_change_the_order_and_nothing_else(cache: Path) -> None:
    stream = Activations(cache, seed=3, indices=True, batch_size=7, buffer_bytes=500)
    first, again = rows(stream), rows(Activations(cache, seed=3, indices=True, batch_size=7, buffer_bytes=500))
    assert first == again
    stream.set_epoch(1)
    second = rows(stream)
    other = rows(Activations(cache, seed=4, indices=True, batch_size=7, buffer_bytes=500))
    assert first != second
    assert first != other
    assert sorted(first) == sorted(second) == sorted(other)
    # Neighbours in the store are no neighbours in the stream.
    image = np.array([row[0] for row in first])
    assert (np.diff(image) == 0).mean() < 0.4


def test_batches_are_the_same_for_any_number_of_workers(cache: Path) -> None:
    stream = Activations(cache, indices=True, batch_size=5, buffer_bytes=300)
    alone = {tuple(map(tuple, indices.tolist())) for _values, indices in stream}
    loader: Any = DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="fork")
    found = [tuple(map(tuple, indices.tolist())) for _values, indices in loader]
    assert len(found) == len(stream)
    assert set(found) == alone
    stream.set_epoch(1)
    assert {tuple(map(tuple, indices.tolist())) for _values, indices in loader} != alone


def test_what_cannot_be_streamed(cache: Path) -> None:
    with pytest.raises(IncompleteError, match="state 3 of patches"):
        Activations(cache, layers=[1, 3])
    with pytest.raises(IncompleteError, match="state 1 of heads"):
        Activations(cache, layers=[1], tokens=["heads"])
    with pytest.raises(UnknownNameError, match="rank 2, world_size 2"):
        Activations(cache, rank=2, world_size=2)
