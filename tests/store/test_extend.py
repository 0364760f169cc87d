from __future__ import annotations

import errno
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import xarray

from cachetool.errors import KeyMismatchError, StoreError
from cachetool.store import Root, SmallArray, StoreReader, StoreWriter, check_tables, create, extend
from cachetool.store.shards import checksum


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


def test_no_arrays_to_add_change_nothing(path, kit) -> None:
    before = kit.tree(path), (path / "zarr.json").stat().st_mtime_ns
    StoreWriter(path).write_image_arrays({})
    assert (kit.tree(path), (path / "zarr.json").stat().st_mtime_ns) == before


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


def test_facts_appear_in_one_step_with_the_arrays_they_come_with(path, monkeypatch) -> None:
    seen = []
    write = Root.write
    monkeypatch.setattr(Root, "write", lambda root: (write(root), seen.append(Root(path)))[0])
    writer = StoreWriter(path)
    writer.update_facts({"finished": False, "kept": 1})
    donor = {"donor": SmallArray(np.arange(10), ("image",))}
    writer.write_image_arrays(donor, lambda now: {"finished": True, "twice": 2 * now["kept"]})
    assert [("donor" in root.arrays, root.about["facts"].get("finished")) for root in seen] == [
        (False, False),
        (True, True),
    ]
    assert (writer.spec.facts["kept"], writer.spec.facts["twice"]) == (1, 2)
    with pytest.raises(StoreError, match="must be JSON"):
        writer.write_image_arrays({"other": donor["donor"]}, {"finished": float("nan")})
    assert "other" not in Root(path).arrays
    assert StoreReader(path).spec.facts["finished"] is True


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


def test_all_that_differs_is_named_with_the_first_image(path, kit) -> None:
    images = kit.image_table(10)
    swapped = replace(
        images, image_id=(images.image_id[0], images.image_id[2], images.image_id[1], *images.image_id[3:])
    )
    with pytest.raises(KeyMismatchError) as caught:
        extend(path, images=swapped)
    assert str(caught.value) == (
        f"The images of {path} must come first, in their order, for it to be extended: image_id of 2 images, first"
        " größe/0001.jpg: 'größe/0001.jpg' there. Choose another --name to keep both."
    )
    fewer = replace(kit.image_table(9), class_name=None)
    with pytest.raises(KeyMismatchError) as caught:
        extend(path, images=fewer)
    text = str(caught.value)
    assert "images: 9 here, 10 there; columns: image_id, content_sha256, label here, image_id, content_sha256," in text
    assert "; image_id of 1 images, first größe/0009.jpg: 'größe/0009.jpg' there; " in text
    assert "class_name of 10 images, first größe/0000.jpg: '' there" in text


def test_arrays_grow_with_their_documents(path, example, kit) -> None:
    example.fill(path)
    before = kit.tree(path)
    extend(path, images=kit.image_table(13), token_types=["patches"])
    root = Root(path)
    sizes = {name: document["shape"] for name, document in root.arrays.items()}
    assert sizes["image_id"] == sizes["label"] == sizes["readable"] == [13]
    assert (sizes["complete"], sizes["cls"], sizes["patches"]) == ([4, 3, 4], [13, 4, 5], [13, 4, 6, 5])
    assert (sizes["layer"], sizes["row"]) == ([4], [6])
    for name, document in root.arrays.items():
        assert json.loads((path / name / "zarr.json").read_text()) == document
    assert check_tables(path) == {}
    after = kit.tree(path)
    new = {name for name in after if after[name] != before.get(name)}
    assert {name for name in new if not name.endswith("zarr.json")} == {
        *("image_id/c.0", "content_sha256/c.0", "label/c.0", "class_name/c.0", "complete/c.2.0.0")
    }
    assert StoreReader(path).array("complete").all(axis=(1, 2)).tolist() == [True, True, False, False]
    assert StoreWriter(path).pending([0], ["cls"]) == [2, 3]


def test_images_after_a_full_block_leave_all_blocks_finished(tmp_path, kit) -> None:
    example = kit.make_example(images=8)
    path = example.make(tmp_path / "full.zarr")
    extend(path, images=kit.image_table(9))
    assert StoreReader(path).array("complete").all(axis=(1, 2)).tolist() == [True, True, False]
    assert StoreWriter(path).pending([0], ["cls"]) == [2]


def test_a_new_token_type_is_an_array_of_its_own(tmp_path, kit) -> None:
    example = kit.make_example(token_types=("patches",))
    path = example.make(tmp_path / "few.zarr")
    extend(path, token_types=["cls"])
    assert StoreReader(path).spec.token_types == ("cls", "patches")
    assert json.loads((path / "cls" / "zarr.json").read_text()) == Root(path).arrays["cls"]
    assert StoreReader(path).coverage("patches") == (0, 1, 2, 3)
    example.fill(path, token_types=["cls"])
    example.check(path)


def test_the_root_vouches_for_arrays_as_they_grow_and_are_replaced(path, kit) -> None:
    writer = StoreWriter(path)

    def promised(name: str) -> int:
        return Root(path).about["tables"][name]

    def sealed(*numbers: int) -> int:
        return int.from_bytes(checksum(np.array(numbers, "<i8").tobytes()), "little")

    writer.write_image_array("donor", np.arange(10), ("image",))
    assert promised("donor") == sealed(*range(10))
    writer.write_image_array("donor", np.arange(10, 20), ("image",), {"rule": "next"})
    assert promised("donor") == sealed(*range(10, 20))
    assert Root(path).arrays["donor"]["attributes"] == {"rule": "next"}
    extend(path, images=kit.image_table(12))
    assert promised("donor") == sealed(*range(10, 20), -1, -1)
    assert promised("label") == sealed(*(index % 3 - 1 for index in range(12)))
    assert StoreReader(path).array("donor").tolist() == [*range(10, 20), -1, -1]
    assert not list(path.rglob("*.partial-*"))


def test_an_array_that_could_not_be_replaced_is_absent_and_nothing_vouches_for_it(path, monkeypatch) -> None:
    writer = StoreWriter(path)
    writer.write_image_array("donor", np.arange(10), ("image",))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys.modules["cachetool.store.extend"], "write_file", full)
    with pytest.raises(StoreError, match=r"Cannot write .*donor: the disk is full"):
        writer.write_image_array("donor", np.arange(10, 20), ("image",))
    assert "donor" not in Root(path).arrays
    assert "donor" not in Root(path).about["tables"]


def test_names_and_dimensions_that_do_not_fit_are_named_together(path, kit) -> None:
    writer = StoreWriter(path)
    before = kit.tree(path)
    with pytest.raises(StoreError) as caught:
        writer.write_image_array("no name", np.zeros((9, 3, 1)), ("image", "layer"))
    text = str(caught.value)
    assert text.startswith(f"Arrays do not fit {path}: 'no name' is no free name: expected an identifier other than ")
    assert text.endswith(
        "; no name: 3 dimensions have 2 names; no name: dimension image is 10 elsewhere, and 9 here;"
        " no name: dimension layer is 4 elsewhere, and 3 here."
    )
    for name in ("cls", "norm_bias", "complete", "token_type", "layer", "readable", "image_id"):
        with pytest.raises(StoreError, match=f"'{name}' is no free name"):
            writer.write_image_array(name, np.zeros(10), ("image",))
    assert kit.tree(path) == before


def test_a_store_without_digests_of_its_tables_gets_them_for_what_is_added(path, kit) -> None:
    StoreWriter(path).write_image_array("donor", np.arange(5, 15), ("image",))
    root = Root(path)
    del root.about["tables"]
    root.write()
    writer = StoreWriter(path)
    for numbers in (np.arange(10), np.arange(10, 20)):
        writer.write_image_array("donor", numbers, ("image",))
        assert list(Root(path).about["tables"]) == ["donor"]
        np.testing.assert_array_equal(StoreReader(path).array("donor"), numbers)
    extend(path, images=kit.image_table(11))
    assert StoreReader(path).array("donor").tolist() == [*range(10, 20), -1]
