"""Small arrays: their bytes worked out by hand, chunks cut, missing or too many, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from cachetool.errors import DamagedError, StoreError
from cachetool.objects import ObjectPath, worked_on
from cachetool.store import tables
from cachetool.store.mending import advice
from cachetool.store.metadata import array_document
from cachetool.store.shards import checksum
from cachetool.store.tables import (
    check_held,
    decode_chunk,
    encode_chunk,
    encode_table,
    read_table,
    table_digest,
    table_document,
)

NUMBERS = np.array([[1, 2], [3, 4], [5, 6]], dtype=">i4")


def sealed(data: bytes) -> bytes:
    return data + checksum(data)


def stored(folder: Path, values: np.ndarray, document) -> Path:
    folder.mkdir(exist_ok=True)
    for key, chunk in encode_table(values, document):
        (folder / key).write_bytes(chunk)
    return folder


def test_numbers_are_little_endian_and_padded_with_the_fill_value() -> None:
    document = table_document(NUMBERS, ("image", "layer"), chunk=2)
    assert (document["shape"], document["fill_value"], document["data_type"]) == ([3, 2], -1, "int32")
    assert document["chunk_grid"]["configuration"]["chunk_shape"] == [2, 2]
    assert list(encode_table(NUMBERS, document)) == [
        ("c.0.0", sealed(struct.pack("<4i", 1, 2, 3, 4))),
        ("c.1.0", sealed(struct.pack("<4i", 5, 6, -1, -1))),
    ]
    assert [key for key, _ in encode_table(NUMBERS, document, start=1)] == ["c.0.0", "c.1.0"]
    assert [key for key, _ in encode_table(NUMBERS, document, start=2)] == ["c.1.0"]
    assert [key for key, _ in encode_table(NUMBERS, document, start=3)] == ["c.1.0"]


def test_strings_are_counted_and_told_their_length_in_bytes() -> None:
    names = np.array(["a", "", "größe"], dtype=object)
    document = table_document(names, ("image",), chunk=4)
    text = "größe".encode()
    expected = struct.pack("<II", 4, 1) + b"a" + struct.pack("<II", 0, len(text)) + text + struct.pack("<I", 0)
    ((key, chunk),) = encode_table(names, document)
    assert (key, chunk) == ("c.0", sealed(expected))
    assert decode_chunk(chunk, document, Path("c.0")).tolist() == ["a", "", "größe", ""]
    assert decode_chunk(chunk, document, Path("c.0"), rows=3).tolist() == ["a", "", "größe"]
    assert decode_chunk(chunk, document, Path("c.0"), rows=0).tolist() == []


def test_one_number_without_dimensions(tmp_path) -> None:
    value = np.array(2.5)
    document = table_document(value, ())
    assert list(encode_table(value, document)) == [("c", sealed(struct.pack("<d", 2.5)))]
    folder = stored(tmp_path / "a", value, document)
    assert read_table(folder, document, 1) == 2.5
    (folder / "c").unlink()
    assert np.isnan(read_table(folder, document))
    with pytest.raises(DamagedError, match=r"a/c is missing\. Run `cachetool verify --repair`"):
        read_table(folder, document, 1)


def test_an_empty_array_has_a_chunk_of_one_and_no_file(tmp_path) -> None:
    document = table_document(np.zeros((0, 2), bool), ("image", "layer"), fill_value=True)
    assert document["chunk_grid"]["configuration"]["chunk_shape"] == [1, 2]
    assert document["fill_value"] is True
    assert list(encode_table(np.zeros((0, 2), bool), document)) == []
    assert read_table(tmp_path / "absent", document).shape == (0, 2)


@pytest.mark.parametrize("values", [NUMBERS, np.array(["x", "猫", "", "y"]), np.linspace(0, 1, 5, dtype=np.float32)])
@pytest.mark.parametrize("chunk", [None, 1, 2, 9])
def test_tables_read_back_whatever_their_chunks(tmp_path, values, chunk) -> None:
    document = table_document(values, ["image", "layer"][: values.ndim], chunk)
    found = read_table(stored(tmp_path / "a", values, document), document, len(values))
    np.testing.assert_array_equal(found, values)
    assert found.dtype == (object if values.dtype.kind == "U" else values.dtype.newbyteorder("<"))
    assert table_digest(values, document) == table_digest(found, document)


def test_the_digest_is_of_the_values_alone() -> None:
    document = table_document(NUMBERS, ("image", "layer"), chunk=2)
    assert table_digest(NUMBERS, document) == int.from_bytes(checksum(struct.pack("<6i", *range(1, 7))), "little")
    names = np.array(["b"], dtype=object)
    encoded = struct.pack("<II", 1, 1) + b"b"
    assert table_digest(names, table_document(names, ("x",))) == int.from_bytes(checksum(encoded), "little")


def test_missing_chunks_read_as_the_fill_value_unless_they_are_required(tmp_path) -> None:
    document = table_document(NUMBERS, ("image", "layer"), chunk=1)
    folder = stored(tmp_path / "a", NUMBERS, document)
    (folder / "c.1.0").unlink()
    assert read_table(folder, document, 1).tolist() == [[1, 2], [-1, -1], [5, 6]]
    with pytest.raises(DamagedError, match=r"a/c\.1\.0 is missing\."):
        read_table(folder, document, 2)
    (folder / "c.2.0").unlink()
    with pytest.raises(DamagedError, match=r"a/c\.1\.0 is missing\."):
        read_table(folder, document, 3)
    pairs = table_document(NUMBERS, ("image", "layer"), chunk=2)
    folder = stored(tmp_path / "b", NUMBERS, pairs)
    assert list(check_held(folder, pairs, 99)) == [0, 1]
    (folder / "c.1.0").unlink()
    assert read_table(folder, pairs, 2).tolist() == [[1, 2], [3, 4], [-1, -1]], "the first chunk holds what is required"
    with pytest.raises(DamagedError, match=r"b/c\.1\.0 is missing\."):
        read_table(folder, pairs, 3)


def test_only_names_of_chunks_are_looked_at_and_each_by_its_place(tmp_path) -> None:
    values = np.arange(12)
    document = table_document(values, ("image",), chunk=1)
    folder = stored(tmp_path / "a", values, document)
    for name in ("c.12", "c.01", "c.-1", "c.1.0", "c.x", "c.²", "d.1", "c", f"c.{'0' * 20}", "zarr.json"):
        (folder / name).write_bytes(b"nothing")
    assert check_held(folder, document) == {place: folder / f"c.{place}" for place in range(12)}
    np.testing.assert_array_equal(read_table(folder, document, 12), values)


@pytest.mark.parametrize("listed", [True, False])
def test_objects_are_looked_for_and_read_at_once(object_root, monkeypatch, listed) -> None:
    document = table_document(NUMBERS, ("image", "layer"), chunk=1)
    folder = object_root / "a"
    for key, chunk in encode_table(NUMBERS, document):
        (folder / key).put(chunk)
    asked = []

    def at_once(work, items, where):
        given = list(items)
        asked.append((work, [one.name for one in given], where))
        return worked_on(work, given, where)

    monkeypatch.setattr(tables, "worked_on", at_once)
    monkeypatch.setattr(ObjectPath, "listed", listed)
    np.testing.assert_array_equal(read_table(folder, document, 3), NUMBERS)
    chunks = ["c.0.0", "c.1.0", "c.2.0"]
    looked_for = [] if listed else [(ObjectPath.found, chunks, folder)]
    assert asked == [*looked_for, (tables._read, chunks, folder)]
    (folder / "c.1.0").unlink()
    assert read_table(folder, document, 1).tolist() == [[1, 2], [-1, -1], [5, 6]]
    with pytest.raises(DamagedError, match=rf"^{folder}/c\.1\.0 is missing\."):
        read_table(folder, document, 3)


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (sealed(b"x" * 16)[:-1] + b"x", "its checksum does not match. Run `cachetool verify --repair`"),
        (sealed(b"x" * 12), r"expected a chunk of int32 \(2, 2\) \(cannot reshape"),
        (sealed(b"x" * 15), r"expected a chunk of int32 \(2, 2\) \(buffer size must be a multiple"),
    ],
)
def test_chunks_that_are_none_are_refused(chunk, message) -> None:
    with pytest.raises(DamagedError, match=rf"here is damaged: {message}"):
        decode_chunk(chunk, table_document(NUMBERS, ("image", "layer"), chunk=2), Path("here"))


def test_who_can_only_read_a_table_is_told_whom_to_ask(monkeypatch) -> None:
    folder, document = ObjectPath("https://host/a"), table_document(NUMBERS, ("image", "layer"))
    assert advice(folder) != advice(Path("a"))
    with pytest.raises(DamagedError) as caught:
        decode_chunk(b"damaged", document, folder / "c.0.0")
    assert str(caught.value) == f"{folder}/c.0.0 is damaged: its checksum does not match. {advice(folder)}"
    monkeypatch.setattr(tables, "_files", lambda folder, keys: {})
    with pytest.raises(DamagedError) as caught:
        check_held(folder, document, 1)
    assert str(caught.value) == f"{folder}/c.0.0 is missing. {advice(folder)}"


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (struct.pack("<II", 2, 2) + b"a", "a string reaches beyond the end"),
        (struct.pack("<II", 2, 1) + b"a", "requires a buffer"),
        (struct.pack("<II", 2, 1) + b"\xff", "can't decode"),
        (struct.pack("<II", 1, 1) + b"a", "it holds 1 strings"),
        (struct.pack("<II", 3, 1) + b"a", "it holds 3 strings"),
    ],
)
def test_strings_that_lie_are_refused(payload, message) -> None:
    document = table_document(np.array(["a", "b"]), ("image",))
    with pytest.raises(DamagedError, match=rf"expected a chunk of strings \(2,\) .*{message}"):
        decode_chunk(sealed(payload), document, Path("here"))


def declared(images: int, chunk: int, data_type: str = "bool"):
    return array_document((images,), (chunk,), data_type, "" if data_type == "string" else False, ("image",))


def test_an_array_may_be_fill_values_up_to_a_limit(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "MOST_FILLED", 100)
    folder = tmp_path / "a"
    assert len(read_table(folder, declared(100, 10))) == 100
    with pytest.raises(DamagedError, match=r"a is damaged: .*bool \(101,\), of which 0 of 11 files hold 0 bytes\."):
        read_table(folder, declared(101, 10))
    folder.mkdir()
    (folder / "c.3").write_bytes(sealed(bytes(10)))
    assert len(read_table(folder, declared(114, 10))) == 114, "what files hold counts too"
    with pytest.raises(DamagedError, match=r"bool \(115,\), of which 1 of 12 files hold 14 bytes\."):
        read_table(folder, declared(115, 10))


def test_an_array_that_must_be_there_as_a_whole_is_no_larger_than_its_files(tmp_path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "c.0").write_bytes(b"x" * 19)
    assert check_held(folder, declared(20, 20), 19)
    with pytest.raises(DamagedError, match=r"bool \(20,\), of which 1 of 1 files hold 19 bytes"):
        check_held(folder, declared(20, 20), 20)
    assert check_held(folder, declared(19, 19), 19)
    with pytest.raises(DamagedError, match=r"string \(5,\), of which 1 of 1 files hold 19 bytes"):
        check_held(folder, declared(5, 5, "string"), 5)  # each string takes the four bytes of its length
    assert check_held(folder, declared(4, 4, "string"), 4)


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch) -> None:
    document = table_document(NUMBERS, ("image", "layer"))
    folder = stored(tmp_path / "a", NUMBERS, document)
    (folder / "c.0.0").unlink()
    (folder / "c.0.0").symlink_to("elsewhere")
    with pytest.raises(DamagedError, match=r"a/c\.0\.0 cannot be read: expected a file, found a symbolic link\."):
        read_table(folder, document)
    (tmp_path / "file").write_text("")
    with pytest.raises(DamagedError, match=r"file cannot be read: Not a directory\."):
        read_table(tmp_path / "file", document)

    def vanished(*_: object, **__: object) -> bytes:
        raise FileNotFoundError

    monkeypatch.setattr(tables, "read_own", vanished)
    assert (read_table(folder, document) == -1).all(), "of a block that was made unfinished meanwhile"


@pytest.mark.parametrize(
    ("dtype", "data_type", "fill"),
    [
        *(("bool", "bool", False), ("U3", "string", ""), ("O", "string", ""), ("float16", "float16", "NaN")),
        *(("float64", "float64", "NaN"), ("int8", "int8", -1), ("uint8", "uint8", 255), ("uint16", "uint16", 65535)),
    ],
)
def test_data_types_and_what_missing_entries_read_as(dtype, data_type, fill) -> None:
    document = table_document(np.zeros(1, dtype), ("image",))
    assert (document["data_type"], document["fill_value"]) == (data_type, fill)


@pytest.mark.parametrize("dtype", ["longdouble", "complex64", "datetime64[s]", "S3"])
def test_data_types_that_cannot_be_stored(dtype) -> None:
    with pytest.raises(StoreError, match="cannot be stored; use bool, int, uint, float or strings"):
        table_document(np.zeros(1, dtype), ("image",))


def test_encoding_needs_no_whole_chunk() -> None:
    document = table_document(np.zeros(4, np.uint8), ("image",))
    assert encode_chunk(np.array([7], np.uint8), document) == sealed(bytes([7, 255, 255, 255]))
