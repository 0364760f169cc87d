from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray

from cachetool.errors import KeyMismatchError, StoreError
from cachetool.store import SmallArray, StoreReader, StoreWriter, create, extend


@pytest.fixture
def path(tmp_path, example):
    create(tmp_path / "a.zarr", example.spec)
    return tmp_path / "a.zarr"


def test_other_images_are_refused_with_what_differs(path, example, kit) -> None:
    images = kit.image_table(12)
    changed = replace(images, sha256=("f" * 64, *images.sha256[1:]), image_id=("other", *images.image_id[1:]))
    with pytest.raises(KeyMismatchError, match=r"image_id of 1 images.*content_sha256 of 1 images.*--name"):
        extend(path, images=changed)
    with pytest.raises(KeyMismatchError, match="images: 3 here, 10 there"):
        extend(path, images=kit.image_table(3))
    with pytest.raises(KeyMismatchError, match="columns:"):
        extend(path, images=replace(images, label=None))
    with pytest.raises(StoreError, match="not neck"):
        extend(path, token_types=["neck"])
    assert StoreReader(path).spec.images == example.spec.images


def test_nothing_to_extend_changes_nothing(path, example, kit) -> None:
    before = kit.tree(path)
    extend(path, images=example.spec.images, token_types=["cls"])
    assert kit.tree(path) == before


def test_tables_longer_than_a_chunk_grow(tmp_path, kit) -> None:
    example = kit.make_example(images=1, channels=1, layers=(0,), block=256)
    path = tmp_path / "long.zarr"
    create(path, replace(example.spec, images=kit.image_table(4000)))
    extend(path, images=kit.image_table(9000))
    assert StoreReader(path).spec.images == kit.image_table(9000)
    with xarray.open_zarr(path) as dataset:
        assert tuple(dataset.image_id.values) == kit.image_table(9000).image_id


def test_facts_and_extra_arrays(path, example, kit) -> None:
    writer = StoreWriter(path)
    writer.update_facts({"device": "cpu", "batch": 1})
    writer.update_facts({"batch": 2})
    donors = np.roll(np.arange(10, dtype=np.int32), 1)
    distance = np.linspace(0, 1, 40).reshape(10, 4)
    writer.write_image_array("donor", donors + 5, ("image",))
    writer.write_image_array("donor", donors, ("image",), {"rule": "next"})
    writer.write_image_array("distance", distance, ("image", "layer"))
    writer.write_image_array("names", np.array(["a", "ß"]), ("pair",))
    assert writer.spec.facts == StoreReader(path).spec.facts == {"device": "cpu", "batch": 2}
    np.testing.assert_array_equal(StoreReader(path).array("distance"), distance)
    extend(path, images=kit.image_table(12))
    with xarray.open_zarr(path) as dataset:
        assert dataset.donor.values.tolist() == [*donors.tolist(), -1, -1]
        assert dataset.donor.attrs == {"rule": "next"}
        assert np.isnan(dataset.distance.values[10:]).all()
        assert dataset.names.values.tolist() == ["a", "ß"]


def test_extra_arrays_that_do_not_fit_are_refused(path) -> None:
    writer = StoreWriter(path)
    with pytest.raises(StoreError, match="donor: dimension image is 10 elsewhere, and 9 here"):
        writer.write_image_array("donor", np.arange(9), ("image",))
    with pytest.raises(StoreError, match="b: dimension pair is 2 elsewhere, and 3 here"):
        writer.write_image_arrays({"a": SmallArray(np.arange(2), ("pair",)), "b": SmallArray(np.arange(3), ("pair",))})
    assert not (path / "a").exists()
    with pytest.raises(StoreError, match="'patches' is no free name"):
        writer.write_image_array("patches", np.arange(10), ("image",))
    with pytest.raises(StoreError, match="dtype complex128"):
        writer.write_image_array("wave", np.zeros(10, complex), ("image",))
    with pytest.raises(StoreError, match="must be JSON"):
        writer.update_facts({"x": float("nan")})


def test_blocks_that_do_not_fit_are_refused_by_name(path, example) -> None:
    writer = StoreWriter(path)
    arrays = example.arrays(2, [0], ["cls", "patches"], 10)
    with pytest.raises(StoreError, match=r"cls: expected float16 \(1, 4, 5\), found float16 \(1, 2, 5\); patches:"):
        writer.write_block(0, arrays, [0])
    with pytest.raises(StoreError, match=r"no place for \[7\]"):
        writer.write_block(2, arrays, [7])
    with pytest.raises(StoreError, match=r"not in block 8 to 9: x\.jpg"):
        writer.write_block(2, arrays, [0], failed={"x.jpg": "broken"})
    with pytest.raises(StoreError, match="none for neck"):
        writer.pending([0], ["neck"])
