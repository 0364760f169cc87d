"""The root document: what it says of a store, and how a store is refused that it does not describe."""

from __future__ import annotations

import json

import google_crc32c
import pytest

from cachetool.errors import DamagedError, MissingDataError, StoreError
from cachetool.store import Root, create
from cachetool.store.metadata import array_document, coordinates, encode_document, root_document


@pytest.fixture
def path(tmp_path, example):
    create(tmp_path / "a.zarr", example.spec)
    return tmp_path / "a.zarr"


def changed(path, change) -> None:
    """Change the root document, and take away the checksums that would tell."""
    document = json.loads((path / "zarr.json").read_text())
    for name in ("crc32c", "tables"):
        document["attributes"]["cachetool"].pop(name)
    change(document)
    (path / "zarr.json").write_text(json.dumps(document))


def test_the_document_of_an_array_is_the_one_that_zarr_defines() -> None:
    assert array_document((3, 2), (2, 2), "int16", -1, ("image", "layer"), {"a": 1}) == {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [3, 2],
        "data_type": "int16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 2]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": -1,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "attributes": {"a": 1},
        "dimension_names": ["image", "layer"],
        "storage_transformers": [],
    }
    strings = array_document((3,), (3,), "string", "", ("image",))
    assert (strings["codecs"], strings["attributes"]) == ([{"name": "vlen-utf8"}, {"name": "crc32c"}], {})


def test_the_document_of_a_token_array_is_sharded(path, example) -> None:
    patches = Root(path).arrays["patches"]
    (sharding,) = patches["codecs"]
    assert sharding == {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [4, 1, 6, 5],
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": "end",
        },
    }
    assert (patches["data_type"], patches["fill_value"], patches["attributes"]) == ("float16", "NaN", {})


def test_bfloat16_is_marked(tmp_path, kit) -> None:
    create(tmp_path / "b.zarr", kit.make_example(dtype="bfloat16").spec)
    cls = Root(tmp_path / "b.zarr").arrays["cls"]
    assert (cls["data_type"], cls["fill_value"], cls["attributes"]) == (
        "uint16",
        0x7FC0,
        {"cachetool_dtype": "bfloat16"},
    )


def test_the_checksum_of_the_root_is_of_its_sorted_text_without_itself() -> None:
    document = root_document({"b": 1, "cachetool": {"kind": "run", "a": (1, 2)}}, {"x": {"shape": (3,)}})
    about = document["attributes"]["cachetool"]
    found = about.pop("crc32c")
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    assert found == google_crc32c.value(text)
    assert about == {"kind": "run", "a": [1, 2]}
    assert document["consolidated_metadata"] == {
        "kind": "inline",
        "must_understand": False,
        "metadata": {"x": {"shape": [3]}},
    }
    assert (document["zarr_format"], document["node_type"]) == (3, "group")


def test_documents_are_json_of_finite_numbers_and_plain_text() -> None:
    assert encode_document({"größe": 1}) == '{\n "größe": 1\n}'.encode()
    for value in (float("nan"), {1, 2}):
        with pytest.raises(StoreError, match=r"must be JSON \(strings, finite numbers, lists, objects\): "):
            encode_document({"a": value})
    with pytest.raises(StoreError, match=r"not what these are: '/caf\\udce9/x', '\\udcff'\. Rename these"):
        encode_document({"a": "/caf\udce9/x", "b": ["fine", "\udcff", "/caf\udce9/x"]})


def test_coordinates_are_those_that_bear_no_dimensions_name(path) -> None:
    root = Root(path)
    assert root.attributes["coordinates"] == "image_id content_sha256 label class_name readable row col"
    assert coordinates({"col": {}, "label": {}, "layer": {}, "x": {}}) == "label col"
    assert coordinates({}) == ""


def test_what_was_changed_is_written_and_read_again(path) -> None:
    root = Root(path)
    root.about["facts"]["device"] = "cpu"
    del root.arrays["label"]
    root.write()
    again = Root(path)
    assert again.about["facts"] == {"device": "cpu"}
    assert list(again.arrays) == sorted(root.arrays)
    assert again.attributes["coordinates"] == "image_id content_sha256 class_name readable row col"
    assert again.about["crc32c"] != root.about["crc32c"]


def test_no_store_is_no_store(tmp_path, path) -> None:
    with pytest.raises(MissingDataError, match=r"There is no store at .*absent: it has no zarr\.json\."):
        Root(tmp_path / "absent")
    with pytest.raises(MissingDataError, match="There is no store at"):
        Root(path / "zarr.json")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda root: root.pop("attributes"), StoreError, "is a Zarr group, but no store of cachetool: it lacks"),
        (lambda root: root.update(attributes=[1]), StoreError, "it lacks the attribute `cachetool`"),
        (lambda root: root["attributes"].update(cachetool=1), StoreError, "it lacks the attribute `cachetool`"),
        (lambda root: about(root).pop("format"), StoreError, "it lacks the attribute `cachetool`"),
        (lambda root: about(root).update(format=2), StoreError, "has format version 2; this cachetool reads up to 1"),
        (lambda root: about(root).update(format=1000), StoreError, "has format version 1000; this cachetool reads"),
        (lambda root: about(root).update(format=0), DamagedError, "format must be a number from 1, found 0"),
        (lambda root: about(root).update(format=True), DamagedError, "format must be a number from 1, found True"),
        (lambda root: about(root).update(crc32c=5), DamagedError, "is damaged: its checksum does not match. Put back"),
        (
            lambda root: about(root).update(kind="x"),
            StoreError,
            "is of kind 'x'; expected one of cache, run, calibration",
        ),
        (lambda root: root.pop("consolidated_metadata"), DamagedError, "holds no documents of arrays"),
        (lambda root: root.update(consolidated_metadata=[]), DamagedError, "holds no documents of arrays"),
        (
            lambda root: about(root).update(key=1, facts=[]),
            DamagedError,
            r"key must be an object, found 1; facts must be an object, found \[\]\.",
        ),
        (
            lambda root: root["consolidated_metadata"]["metadata"].update({"../x": 5}),
            DamagedError,
            r"'\.\./x' is no name of an array, .*; \.\./x: expected an object, found 5\.",
        ),
    ],
)
def test_roots_that_describe_no_store_are_refused(path, change, error, message) -> None:
    changed(path, change)
    with pytest.raises(error, match=rf"a\.zarr.*{message}") as caught:
        Root(path)
    assert type(caught.value) is error


def about(root) -> dict:
    return root["attributes"]["cachetool"]


def test_a_store_without_token_arrays_is_refused_where_they_are_needed(path) -> None:
    changed(path, lambda root: about(root).pop("layout") and about(root).update(kind="calibration"))
    root = Root(path)
    with pytest.raises(StoreError, match=r"a\.zarr is of kind 'calibration' and holds no token arrays\."):
        root.check_entries()


def test_states_that_no_store_can_have_are_damage(path) -> None:
    with pytest.raises(
        DamagedError, match=r"zarr\.json is damaged: This store cannot be made: layers must be ascending"
    ):
        Root(path).geometry((1, 0, 2, 3))


@pytest.mark.parametrize("name", ["cls", "image_id", ".cachetool", ".cachetool/blocks"])
def test_links_in_place_of_folders_are_refused(path, name) -> None:
    (path / name).rename(path.parent / "aside")
    (path / name).symlink_to(path.parent / "aside")
    with pytest.raises(StoreError, match=rf"a\.zarr has symbolic links in place of {name}; all of a store must lie"):
        Root(path)
