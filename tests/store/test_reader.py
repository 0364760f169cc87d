"""Ways of reading beside whole states: tables beside the tokens, coverage of some images, single tokens, flags."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from cachetool.errors import DamagedError, StoreError
from cachetool.store import NormSpec, StoreReader, StoreWriter, create, to_float32
from cachetool.store.shards import checksum
from cachetool.store.tables import encode_table


@pytest.fixture
def path(tmp_path, example):
    return example.make(tmp_path / "a.zarr")


def test_coverage_is_of_all_blocks_or_of_those_of_some_images(tmp_path, example) -> None:
    path = tmp_path / "b.zarr"
    create(path, example.spec)
    writer = StoreWriter(path)
    for block, layers in ((0, [1, 2]), (1, [2, 3]), (2, [0])):
        writer.write_block(block, example.arrays(block, layers, ["cls"], 10), layers)
    reader = StoreReader(path)
    assert reader.coverage("cls") == reader.coverage("patches") == reader.coverage("neck") == ()
    assert reader.coverage("cls", np.array([5, 0])) == (2,)
    assert reader.coverage("cls", np.array([7, 4])) == (2, 3)
    assert reader.coverage("cls", np.array([9])) == (0,)
    assert reader.coverage("cls", np.array([], dtype=np.int64)) == (0, 1, 2, 3)
    with pytest.raises(StoreError, match="10 images; 3 to 11"):
        reader.coverage("cls", np.array([3, 10]))


def test_arrays_beside_the_tokens_are_those_that_describe_no_dimension(path) -> None:
    writer = StoreWriter(path)
    writer.write_image_array("donor", np.arange(10), ("image",), {"rule": "next"})
    writer.write_image_array("pair", np.arange(3), ("pair",))
    assert StoreReader(path).beside == {
        "donor": (("image",), {"rule": "next"}),
        "norm_weight": (("channel",), {}),
        "norm_bias": (("channel",), {}),
    }


def test_an_array_that_is_not_there_is_refused_with_those_that_are(path) -> None:
    with pytest.raises(StoreError, match=r"a\.zarr has the arrays class_name, cls, col, .*token_type; no 'donor'\."):
        StoreReader(path).array("donor")


def test_values_that_the_root_does_not_vouch_for_are_refused(path) -> None:
    labels = np.arange(4096, dtype="<i8").tobytes()
    (path / "label" / "c.0").write_bytes(labels + checksum(labels))
    with pytest.raises(DamagedError, match=r"label is damaged: its values are not those that zarr\.json vouches for"):
        StoreReader(path).array("label")


def test_flags_that_are_not_those_of_the_records_are_refused(path) -> None:
    assert StoreReader(path).readable.all()
    flags = np.array([True, True, False, True])
    (path / "readable" / "c.1").write_bytes(flags.tobytes() + checksum(flags.tobytes()))
    with pytest.raises(
        DamagedError, match=r"readable is damaged: the flags of block 1 are not those of its done record"
    ):
        _ = StoreReader(path).readable
    record = path / ".cachetool" / "blocks" / "0000001.json"
    text = record.read_text()
    for harmed in (
        "{",  # raised where anything of the block is read
        json.dumps(json.loads(text) | {"replacing": json.loads(text)["files"]}),  # flags follow the shards
    ):
        record.write_text(harmed)
        assert StoreReader(path).readable.tolist() == [index != 6 for index in range(10)]
    record.unlink()
    assert not StoreReader(path).readable[6]


@pytest.mark.parametrize("way", ["read", "read_layers"])
def test_results_go_where_they_are_wanted(path, example, way) -> None:
    reader = StoreReader(path)
    values = example.values["patches"][2:9, [2]] if way == "read_layers" else example.values["patches"][2:9, 2]
    values = values.swapaxes(0, 1) if way == "read_layers" else values
    layer = [2] if way == "read_layers" else 2
    out = np.zeros(values.shape, np.float16)
    assert getattr(reader, way)("patches", layer, 2, 9, out=out) is out
    np.testing.assert_array_equal(out, values)
    for wrong in (out[..., :4], out.astype(np.float32), np.asfortranarray(out)):
        with pytest.raises(StoreError, match=r"`out` must be C-contiguous float16 \(.*7, 6, 5\); it is float"):
            getattr(reader, way)("patches", layer, 2, 9, out=wrong)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_whole_state_goes_where_it_is_wanted(path, example, dtype) -> None:
    reader = StoreReader(path)
    expected = np.concatenate([to_float32(example.values[name][2:9, 2], "float16") for name in example.values], axis=1)
    out = np.zeros(expected.shape, dtype)
    assert reader.read_state(2, 2, 9, dtype, out=out) is out
    np.testing.assert_array_equal(out, expected)
    for wrong in (out[:, 1:], out.astype(np.float16), np.asfortranarray(out)):
        with pytest.raises(StoreError, match=rf"`out` must be C-contiguous {np.dtype(dtype)} \(7, 9, 5\); it is float"):
            reader.read_state(2, 2, 9, dtype, out=wrong)


def test_single_tokens_come_in_the_order_of_their_pairs(path, example) -> None:
    reader = StoreReader(path)
    images, tokens = np.array([9, 0, 9, 4, 0]), np.array([5, 0, 1, 2, 5])
    found = reader.read_tokens("patches", 3, images, tokens)
    np.testing.assert_array_equal(found, example.values["patches"][images, 3, tokens])
    assert reader.read_tokens("patches", 3, images[:0], tokens[:0]).shape == (0, 5)
    for wrong in (-1, 6):
        with pytest.raises(StoreError, match=rf"Tokens of patches are numbered 0 to 5; found {min(wrong, 0)} to "):
            reader.read_tokens("patches", 3, images, np.array([0, 0, 0, 0, wrong]))
    for wrong in (-1, 10):
        with pytest.raises(StoreError, match="10 images"):
            reader.read_tokens("patches", 3, np.array([0, wrong]), np.array([0, 0]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_states_are_decoded(tmp_path, kit, dtype) -> None:
    example = kit.make_example(dtype=dtype)
    reader = StoreReader(example.make(tmp_path / "b.zarr"))
    expected = to_float32(example.values["registers"][3:9, 1], dtype)
    np.testing.assert_array_equal(reader.read_float32("registers", 1, 3, 9), expected)
    whole = np.concatenate([to_float32(example.values[name][3:9, 1], dtype) for name in example.values], 1)
    for wanted in (np.float32, np.float64):
        found = reader.read_state(1, 3, 9, wanted)
        assert found.dtype == wanted
        np.testing.assert_array_equal(found, whole)


def test_what_does_not_fit_into_memory_is_refused(path, monkeypatch) -> None:
    reader = StoreReader(path)
    for error in (MemoryError, ValueError):

        def fail(*_: object, error: type[Exception] = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("cachetool.store.reader.np.empty", fail)
            with pytest.raises(StoreError, match=r"a\.zarr: float16 \(10, 6, 5\) does not fit into memory; read fewer"):
                reader.read("patches", 0, 0, 10)


def test_a_reader_travels_to_another_process(path, example) -> None:
    for verify in (True, False):
        reader = pickle.loads(pickle.dumps(StoreReader(path, verify=verify)))
        assert (reader.path, reader._verify) == (path, verify)
        np.testing.assert_array_equal(reader.read("cls", 1, 0, 10), example.values["cls"][:, 1])


def test_a_reader_travels_to_a_process_that_stands_elsewhere(path, monkeypatch) -> None:
    monkeypatch.chdir(path.parent)
    packed = pickle.dumps(StoreReader(path.name))
    monkeypatch.chdir("/")
    assert pickle.loads(packed).path == path


def test_the_norm_is_read_back_or_none(tmp_path, kit) -> None:
    spec = kit.make_example().spec
    norms = (None, NormSpec("rms_norm", 0.0, np.arange(5, dtype=np.float32)), NormSpec("layer_norm", 1e-5))
    for number, norm in enumerate(norms):
        create(tmp_path / f"{number}.zarr", replace(spec, norm=norm))
        found = StoreReader(tmp_path / f"{number}.zarr").spec.norm
        if norm is None:
            assert found is None
            continue
        assert (found.type, found.epsilon, found.bias) == (norm.type, norm.epsilon, None)
        np.testing.assert_array_equal(found.weight, norm.weight)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"norm_type": "batch_norm"}, "'batch_norm' and 1e-06"),
        ({"norm_epsilon": -1.0}, r"'layer_norm' and -1\.0"),
        ({"norm_epsilon": None}, "'layer_norm' and None"),
        ({"norm_epsilon": True}, "'layer_norm' and True"),
    ],
)
def test_a_norm_that_is_none_is_refused(path, change, found) -> None:
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"].update(change)
    del document["attributes"]["cachetool"]["crc32c"]
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(DamagedError, match=rf"norm_type must be one of layer_norm, rms_norm .*, found {found}\."):
        _ = StoreReader(path).spec


def test_ids_that_occur_twice_are_damage(path) -> None:
    document = json.loads((path / "zarr.json").read_text())
    for name in ("crc32c", "tables"):
        del document["attributes"]["cachetool"][name]
    (path / "zarr.json").write_text(json.dumps(document))
    twice = np.array(["a", "b", "a", *"cdefghi"], dtype=object)
    ((_, chunk),) = encode_table(twice, document["consolidated_metadata"]["metadata"]["image_id"])
    (path / "image_id" / "c.0").write_bytes(chunk)
    with pytest.raises(DamagedError, match=r"a\.zarr is damaged: Image ids must be unique; .* more than once: a\."):
        _ = StoreReader(path).images


def test_views_that_are_known_need_no_second_look(path, example, monkeypatch) -> None:
    reader = StoreReader(path)
    for start, stop in ((0, 10), (3, 9)):
        found = reader.read_layers("registers", [3, 2], start, stop)
        np.testing.assert_array_equal(found, example.values["registers"][start:stop, [3, 2]].swapaxes(0, 1))
        monkeypatch.setattr(reader, "_layered_chunks", None)


def test_of_a_block_only_the_chunks_that_are_asked_for_are_looked_at(tmp_path, kit) -> None:
    example = kit.make_example(images=24, block=24)
    path = example.make(tmp_path / "a.zarr")
    shard = path / "patches" / "c.0.0.0.0"
    harmed = bytearray(shard.read_bytes())
    for first in (0, 16):
        harmed[harmed.index(example.values["patches"][first : first + 8, 2].tobytes())] ^= 1
    shard.write_bytes(harmed)
    np.testing.assert_array_equal(StoreReader(path).read("patches", 2, 8, 16), example.values["patches"][8:16, 2])
    for start, stop in ((7, 16), (8, 17)):
        with pytest.raises(DamagedError, match="state 2"):
            StoreReader(path).read("patches", 2, start, stop)
