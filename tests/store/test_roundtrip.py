"""Whatever the geometry, dtype and order of writing: the same values, for this reader and for plain Zarr readers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cachetool.store import StoreReader, StoreWriter, check_block, check_tables, create, extend, to_float32

few = settings(deadline=None, max_examples=10)


@few
@given(data=st.data())
def test_plain_readers_and_ours_agree_for_any_geometry(kit, tmp_path_factory, data) -> None:
    example = data.draw(kit.examples)
    path = example.make(tmp_path_factory.mktemp("roundtrip") / "a.zarr")
    example.check(path)
    pipelines = ("zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs.ZarrsCodecPipeline")
    for pipeline in pipelines:
        with zarr.config.set({"codec_pipeline.path": pipeline}), xarray.open_zarr(path) as dataset:
            for name, values in example.values.items():
                found = dataset[name].values
                np.testing.assert_array_equal(found, values[:, :, 0] if name == "cls" else values)
            assert dataset.complete.all()
    assert check_tables(path) == {}
    assert [check_block(path, block) for block in range(example.spec.geometry.blocks)] == [
        [] for _ in range(example.spec.geometry.blocks)
    ]


@few
@given(data=st.data())
def test_extending_in_any_order_equals_writing_at_once(kit, tmp_path_factory, data) -> None:
    example = data.draw(kit.examples)
    spec, folder = example.spec, tmp_path_factory.mktemp("extend")
    at_once = example.make(folder / "at-once.zarr")
    first = data.draw(st.integers(1, len(spec.images)))
    types = spec.layout.types
    early = data.draw(st.sets(st.sampled_from(types), min_size=1))
    path = folder / "extended.zarr"
    create(path, replace(spec, images=kit.image_table(first), token_types=tuple(early)))
    steps = ["images", "types", "layers"]
    layers: set[int] = set(data.draw(st.sets(st.sampled_from(spec.layers), min_size=1)))
    for step in data.draw(st.permutations(steps)):
        held = StoreWriter(path).spec.token_types
        if step == "images":
            example.fill(path, sorted(layers), held)
            extend(path, images=spec.images)
        elif step == "types":
            extend(path, token_types=types)
        else:
            layers |= set(spec.layers)
        held = StoreWriter(path).spec.token_types
        example.fill(path, sorted(layers, reverse=True), held)
        reader = StoreReader(path)
        assert all(reader.coverage(name) == tuple(sorted(layers)) for name in held)
        flags = np.isin(spec.layers, sorted(layers)) & np.isin(types, held)[:, np.newaxis]
        np.testing.assert_array_equal(reader.complete, np.broadcast_to(flags, reader.complete.shape))
        with xarray.open_zarr(path) as dataset:
            np.testing.assert_array_equal(dataset.complete, reader.complete)
    example.check(path)
    assert kit.tree(path).keys() == kit.tree(at_once).keys()
    assert {name: data for name, data in kit.tree(path).items() if not name.endswith("json")} == {
        name: data for name, data in kit.tree(at_once).items() if not name.endswith("json")
    }


@few
@given(data=st.data())
def test_any_range_and_any_tokens(kit, tmp_path_factory, data) -> None:
    example = data.draw(kit.examples)
    path = example.make(tmp_path_factory.mktemp("ranges") / "a.zarr")
    reader = StoreReader(path)
    images = len(example.spec.images)
    start = data.draw(st.integers(0, images))
    stop = data.draw(st.integers(start, images))
    name = data.draw(st.sampled_from(example.spec.layout.types))
    index = data.draw(st.integers(0, len(example.spec.layers) - 1))
    layer, values = example.spec.layers[index], example.values[name]
    out = np.empty((stop - start, *values.shape[2:]), dtype=values.dtype)
    assert reader.read(name, layer, start, stop, out=out) is out
    np.testing.assert_array_equal(out, values[start:stop, index])
    pairs = data.draw(st.lists(st.tuples(st.integers(0, images - 1), st.integers(0, values.shape[2] - 1)), max_size=20))
    image, token = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    np.testing.assert_array_equal(reader.read_tokens(name, layer, image, token), values[image, index, token])
    whole = np.concatenate(
        [to_float32(example.values[kind][:, index], example.spec.dtype) for kind in example.values], 1
    )
    for dtype in (np.float32, np.float64):
        found = reader.read_state(layer, start, stop, dtype=dtype)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, whole[start:stop])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_unfinished_and_unreadable_data_is_nan_for_plain_readers(tmp_path, kit, dtype) -> None:
    example = kit.make_example(dtype=dtype)
    path = tmp_path / "a.zarr"
    create(path, example.spec)
    bad = example.spec.images.image_id[5]
    StoreWriter(path).write_block(1, example.arrays(1, [1, 2], ["patches"], 10), [1, 2], failed={bad: "not a JPEG"})
    with xarray.open_zarr(path) as dataset:
        stored = dataset.patches.values
        finite = ~np.isnan(to_float32(stored, dtype))
        assert dataset.readable.values.tolist() == [index != 5 for index in range(10)]
    expected = np.zeros(stored.shape, dtype=bool)
    written = [4, 6, 7]
    expected[np.ix_(written, [1, 2])] = ~np.isnan(to_float32(example.values["patches"][written, 1:3], dtype))
    np.testing.assert_array_equal(finite, expected)
    assert StoreReader(path).readable.tolist() == [index != 5 for index in range(10)]
