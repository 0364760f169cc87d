"""Which documents are accepted: every rule at its limit, from both sides."""

from __future__ import annotations

import copy
import json

import pytest

from cachetool.errors import DamagedError
from cachetool.store import Root, create
from cachetool.store.documents import (
    array_problems,
    chunk_shape,
    codec_names,
    is_integer,
    is_number,
    name_problem,
    read_json,
    shown,
)
from cachetool.store.metadata import array_document


@pytest.mark.parametrize(
    ("value", "accepted"),
    [(2, True), (5, True), (1, False), (6, False), (True, False), (3.0, False), ("3", False), (None, False)],
)
def test_integers(value, accepted) -> None:
    assert is_integer(value, 2, 5) is accepted
    assert not is_integer(True, 0, 1)


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        *((0, True), (-1.5, True), (9e299, True), (1e300, False), (-1e300, False), (10**4000, False)),
        *((float("nan"), False), (True, False), ("1", False), (None, False)),
    ],
)
def test_numbers(value, accepted) -> None:
    assert is_number(value) is accepted


def test_long_values_are_cut_for_a_message() -> None:
    assert shown("x" * 78) == "'" + "x" * 78 + "'"
    assert shown("x" * 79) == "'" + "x" * 76 + "..."


@pytest.mark.parametrize("name", ["a", "größe", "norm weight", "a.b", "a..", "x" * 255])
def test_plain_names(name) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".cachetool", "a/b", "a\\b", "/a", "a\0", "a\nb", "\u202eb", "x" * 256, "ß" * 128]
)
def test_names_that_are_none(name) -> None:
    assert name_problem(name) == (
        f"{shown(name)} is no name of an array, which is a plain folder name of at most 255 bytes"
    )


def document(**changes):
    sound = array_document((10, 3), (4, 3), "int16", -1, ("image", "layer"), {"unit": "m"})
    return json.loads(json.dumps(sound | changes))


def grid(chunks):
    return {"name": "regular", "configuration": {"chunk_shape": chunks}}


def coded(*codecs):
    return {"codecs": [{"name": name} if isinstance(name, str) else name for name in codecs]}


SHARDED = {"name": "sharding_indexed", "configuration": {"codecs": [{"name": "bytes"}, {"name": "crc32c"}]}}


def test_sound_arrays_have_no_problems() -> None:
    assert array_problems(document()) == []
    assert array_problems(array_document((), (), "float64", "NaN", ())) == []
    assert array_problems(array_document((3,), (3,), "string", "", ("image",))) == []
    assert array_problems(array_document((3, 1), (1, 1), "uint16", 5, ("a", "b"), None, (1, 1))) == []
    largest = 2**48
    assert array_problems(document(shape=[largest, 3], chunk_grid=grid([largest, largest]))) == []
    assert array_problems(array_document((1,) * 8, (1,) * 8, "bool", True, "abcdefgh")) == []
    bare = document(shape=[], chunk_grid=grid([]))
    del bare["dimension_names"], bare["attributes"], bare["storage_transformers"]
    assert array_problems(bare) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"zarr_format": 2}, "it is no array of Zarr format 3"),
        ({"node_type": "group"}, "it is no array of Zarr format 3"),
        ({"shape": None}, "shape must be a list of sizes, found None"),
        ({"shape": [10, -1]}, "shape must be a list of sizes, found [10, -1]"),
        ({"shape": [2**48 + 1, 3]}, f"shape must be a list of sizes, found [{2**48 + 1}, 3]"),
        ({"shape": [1] * 9}, "shape must be a list of sizes, found [1, 1, 1, 1, 1, 1, 1, 1, 1]"),
        ({"shape": [2**48, 2**12]}, f"shape must hold sizes of at most {2**59} values, found [{2**48}, 4096]"),
        ({"shape": [0, 2**48, 2**48]}, f"shape must hold sizes of at most {2**59} values, found [0, {2**48}, {2**48}]"),
        ({"chunk_grid": grid([4])}, "chunk_shape must hold 2 positive sizes, found [4]"),
        ({"chunk_grid": grid([4, 0])}, "chunk_shape must hold 2 positive sizes, found [4, 0]"),
        ({"chunk_grid": grid(4)}, "chunk_shape must hold 2 positive sizes, found 4"),
        ({"chunk_grid": {"name": "rectilinear"}}, "chunk_shape must hold 2 positive sizes, found None"),
        ({"chunk_grid": {"name": "regular", "configuration": 1}}, "chunk_shape must hold 2 positive sizes, found None"),
        ({"chunk_grid": None}, "chunk_shape must hold 2 positive sizes, found None"),
        ({"chunk_grid": grid([4, 2])}, "chunks of [4, 2] cut [10, 3] along another dimension than the first"),
        ({"fill_value": 2**15}, "fill_value 32768 is none of int16"),
        ({"fill_value": "NaN"}, "fill_value 'NaN' is none of int16"),
        ({"data_type": "bool", "fill_value": 0}, "fill_value 0 is none of bool"),
        ({"data_type": "float16", "fill_value": 65505.0}, "fill_value 65505.0 is none of float16"),
        ({"data_type": "float32", "fill_value": "Infinity"}, "fill_value 'Infinity' is none of float32"),
        ({"data_type": "uint8", "fill_value": -1}, "fill_value -1 is none of uint8"),
        ({"dimension_names": ["image", ""]}, "dimension_names must be a list of names, found ['image', '']"),
        ({"dimension_names": "ab"}, "dimension_names must be a list of names, found 'ab'"),
        ({"dimension_names": ["image"]}, "dimension_names must name 2 dimensions, found ['image']"),
        ({"attributes": []}, "attributes must be an object, found []"),
        (coded("bytes"), "codecs must be bytes and crc32c, found [{'name': 'bytes'}]"),
        (coded("crc32c", "bytes"), "codecs must be bytes and crc32c, found [{'name': 'crc32c'}, {'name': 'bytes'}]"),
        ({"codecs": None}, "codecs must be bytes and crc32c, found None"),
        ({"storage_transformers": [1]}, "codecs must be bytes and crc32c, found"),
    ],
)
def test_every_problem_of_an_array_is_named(changes, message) -> None:
    (problem,) = array_problems(document(**changes))
    assert problem.startswith(message)


def test_several_problems_are_named_together() -> None:
    changed = document(zarr_format=2, data_type="complex64", dimension_names=None, attributes=1)
    found = array_problems(changed)
    assert [problem.split(" ")[0] for problem in found] == ["it", "data_type", "dimension_names", "attributes"]
    assert "int64" in found[1]
    assert found[1].endswith("float16, float32, float64, found 'complex64'")
    strings = document(data_type="string", fill_value=1)
    assert array_problems(strings)[0] == "fill_value 1 is none of string"
    assert array_problems(strings)[1].startswith("codecs must be vlen-utf8 and crc32c, found")
    assert array_problems([1]) == ["expected an object, found [1]"]


@pytest.mark.parametrize(
    ("data_type", "fill"),
    [
        ("int16", -(2**15)),
        ("int16", 2**15 - 1),
        ("uint8", 255),
        ("float16", 65504),
        ("float16", -65504.0),
        ("bool", True),
    ],
)
def test_fill_values_at_the_limit(data_type, fill) -> None:
    assert array_problems(document(data_type=data_type, fill_value=fill)) == []


def test_names_of_codecs() -> None:
    big = {"name": "bytes", "configuration": {"endian": "big"}}
    elsewhere = copy.deepcopy(SHARDED)
    elsewhere["configuration"]["index_location"] = "start"
    assert codec_names(coded("bytes", "crc32c")) == ["bytes", "crc32c"]
    assert codec_names(coded({"name": "bytes", "configuration": {"endian": "little"}})) == ["bytes"]
    assert codec_names(coded(big, 5)) == [None, None]
    assert codec_names(coded(SHARDED)) == ["sharding_indexed", "bytes", "crc32c"]
    assert codec_names(coded(elsewhere)) == ["sharding_indexed", None]
    assert codec_names(coded({"name": "sharding_indexed", "configuration": 1})) == ["sharding_indexed"]
    assert codec_names({}) == codec_names({"codecs": 3}) == []
    assert chunk_shape(document()) == [4, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1, "b": 2, "a": 3, "b": 4, "c": 5}', r"these names occur twice: a, b\."),
        ("[1, 2]", r"expected a JSON object, found \[1, 2\]\."),
        ('{"a": 1e999}', "Out of range float values are not JSON compliant"),
        ('{"a": NaN}', "Out of range float values are not JSON compliant"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
    ],
)
def test_what_is_no_strict_json_is_refused(tmp_path, content, message) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DamagedError, match=rf"a\.json is damaged: .*{message}"):
        read_json(tmp_path / "a.json")


@pytest.mark.timeout(20)
def test_many_names_of_which_one_occurs_twice_are_refused_at_once(tmp_path) -> None:
    names = [f'"{number}": 0' for number in range(100_000)]
    (tmp_path / "a.json").write_text("{" + ", ".join([*names, names[0]]) + "}")
    with pytest.raises(DamagedError, match=r"these names occur twice: 0\."):
        read_json(tmp_path / "a.json")


def test_files_that_are_absent_or_unreadable(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").mkdir()
    with pytest.raises(DamagedError, match=r"a\.json cannot be read: expected a file, found a folder\."):
        read_json(tmp_path / "a.json")


@pytest.fixture
def root(tmp_path, example):
    """The root document of a store without the checksums that would tell of a change, and a way to read it changed."""
    path = tmp_path / "a.zarr"
    create(path, example.spec)
    text = json.loads((path / "zarr.json").read_text())
    for name in ("crc32c", "tables"):
        del text["attributes"]["cachetool"][name]

    def read(change) -> None:
        changed = copy.deepcopy(text)
        change(changed["attributes"]["cachetool"], changed["consolidated_metadata"]["metadata"])
        (path / "zarr.json").write_text(json.dumps(changed))
        opened = Root(path)
        opened.check_entries()
        opened.geometry((0, 1, 2, 3))

    return read


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about, arrays: about["layout"].pop("rows"), "layout must hold cls, registers, rows and columns, found"),
        (lambda about, arrays: about["layout"].update(cls=2), "cls must be an integer from 0 to 1, found 2"),
        (
            lambda about, arrays: about["layout"].update(columns=2**20 + 1),
            "columns must be an integer from 0 to 1048576",
        ),
        (lambda about, arrays: about["layout"].update(rows=-1), "rows must be an integer from 0 to 1048576, found -1"),
        (lambda about, arrays: about.update(channels=0), "channels must be an integer from 1 to 1048576, found 0"),
        (lambda about, arrays: about.update(channels=2**20 + 1), "channels must be an integer from 1 to 1048576"),
        (lambda about, arrays: about.update(block=0), "block must be an integer from 1 to 1048576, found 0"),
        (lambda about, arrays: about.update(block=2**20 + 1), "block must be an integer from 1 to 1048576"),
        (
            lambda about, arrays: about["layout"].update(rows=2**10, columns=2**10 - 1, registers=2**10),
            "a layout of .* has more than 1048576 tokens",
        ),
        (
            lambda about, arrays: about.update(dtype="int8"),
            "dtype must be one of float32, float16, bfloat16, found 'int8'",
        ),
        (lambda about, arrays: arrays.pop("readable"), "the array readable is missing"),
        (lambda about, arrays: arrays["label"].update(data_type="int32"), "label must be int64, found int32"),
        (
            lambda about, arrays: arrays["label"].update(dimension_names=["picture"]),
            r"label must have the dimensions image, found \['picture'\]",
        ),
        (
            lambda about, arrays: arrays["complete"].update(dimension_names=["layer", "token_type", "block"]),
            "complete must have the dimensions block, token_type, layer, found",
        ),
        (
            lambda about, arrays: arrays["layer"].update(shape=[2**12 + 1], chunk_grid=grid([2**12 + 1])),
            "a store has 1 to 4096 states, found 4097",
        ),
        (lambda about, arrays: arrays["layer"].update(shape=[0]), "a store has 1 to 4096 states, found 0"),
        (lambda about, arrays: arrays["label"].update(shape=[9]), "label has 9 along image, the store 10"),
        (
            lambda about, arrays: arrays["norm_bias"].update(shape=[6], chunk_grid=grid([6])),
            "norm_bias has 6 along channel, the store 5",
        ),
        (
            lambda about, arrays: arrays["cls"].update(codecs=[{"name": "bytes"}, {"name": "crc32c"}]),
            "cls must be stored in shards",
        ),
        (lambda about, arrays: arrays["label"].update(codecs=[SHARDED]), "label must not be stored in shards"),
        (
            lambda about, arrays: arrays["cls"].update(data_type="float32"),
            "cls: data_type must be float16, found 'float32'",
        ),
        (
            lambda about, arrays: arrays["patches"].update(chunk_grid=grid([8, 4, 6, 5])),
            r"patches: shards must be \[4, 4, 6, 5\], found \[8, 4, 6, 5\]",
        ),
        (
            lambda about, arrays: arrays["patches"]["codecs"][0]["configuration"].update(chunk_shape=[2, 1, 6, 5]),
            r"patches: chunks must be \[4, 1, 6, 5\], found \[2, 1, 6, 5\]",
        ),
        (
            lambda about, arrays: arrays["registers"].update(dimension_names=["image", "layer", "token", "channel"]),
            "registers: dimension_names must be .*'register', 'channel'.*, found",
        ),
    ],
)
def test_parts_that_do_not_agree_are_named(root, change, message) -> None:
    root(lambda about, arrays: None)
    with pytest.raises(DamagedError, match=message):
        root(change)
