"""Small arrays: coordinates, flags and extra arrays over images, encoded without a Zarr library in between.

They are cut along one dimension at most, so that a store grows, or a block is flagged, by replacing one small file.
Like all chunks of a store they end with their CRC32C.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cachetool.errors import DamagedError, StoreError
from cachetool.objects import ObjectPath, Place, listed, read_own, worked_on
from cachetool.store.mending import advice
from cachetool.store.metadata import Document, array_document, numpy_data_type
from cachetool.store.shards import CHECKSUM_BYTES, checksum

_COUNT = struct.Struct("<I")

MOST_FILLED = 2**28
"""Bytes of an array that may be fill values alone, without a file that holds them. The flags of 20 million images take
less, and no document can claim the memory of the machine."""

MOST_LOOKED_FOR = 2**16
"""Files of an array that are asked for one by one where nobody gives a list: blocks of four million images."""

Table = npt.NDArray[Any]


def table_document(
    array: Table,
    dimensions: Sequence[str],
    chunk: int | None = None,
    attributes: dict[str, Any] | None = None,
    fill_value: Any = None,
) -> Document:
    """The document of a small array: one chunk, or cut along the first dimension into chunks of `chunk` entries."""
    data_type, default_fill = numpy_data_type(array)
    chunk_shape = [max(size, 1) for size in array.shape]
    if chunk is not None:
        chunk_shape[0] = chunk
    fill = default_fill if fill_value is None else fill_value
    return array_document(array.shape, chunk_shape, data_type, fill, dimensions, attributes)


def _dtype(document: Document) -> np.dtype[Any]:
    if document["data_type"] == "string":
        return np.dtype(object)
    return np.dtype(document["data_type"]).newbyteorder("<")


def _fill(document: Document) -> Any:
    return np.nan if document["fill_value"] == "NaN" else document["fill_value"]


def _chunk_shape(document: Document) -> tuple[int, ...]:
    return tuple(document["chunk_grid"]["configuration"]["chunk_shape"])


def encode_chunk(values: Table, document: Document) -> bytes:
    """One chunk with its checksum; values that fall short of the chunk's shape are padded with the fill value."""
    shape, dtype = _chunk_shape(document), _dtype(document)
    if dtype.kind == "O":
        payload = _encode_strings(values.ravel().tolist(), math.prod(shape) - values.size, _fill(document))
    else:
        padded = np.full(shape, _fill(document), dtype=dtype)
        padded[tuple(slice(0, size) for size in values.shape)] = values
        payload = padded.tobytes()
    return payload + checksum(payload)


def decode_chunk(encoded: bytes, document: Document, path: Place, rows: int | None = None) -> Table:
    """The values of a chunk, or its first `rows` entries. Raises `DamagedError` naming a file of other content.

    Tables of few images are padded to thousands of empty strings, which take long to make one by one.
    """
    payload, found = encoded[:-CHECKSUM_BYTES], encoded[-CHECKSUM_BYTES:]
    if checksum(payload) != found:
        raise DamagedError(f"{path} is damaged: its checksum does not match. {advice(path)}")
    shape, dtype = _chunk_shape(document), _dtype(document)
    wanted = shape if rows is None else (rows, *shape[1:])
    try:
        if dtype.kind == "O":
            return np.array(_decode_strings(payload, math.prod(shape), math.prod(wanted)), dtype).reshape(wanted)
        values = np.frombuffer(payload, dtype).reshape(shape)
        return values if rows is None else values[:rows]
    except (ValueError, struct.error) as error:
        raise DamagedError(
            f"{path} is damaged: expected a chunk of {dtype if dtype.kind != 'O' else 'strings'} {shape} ({error})."
        ) from error


def table_digest(values: Table, document: Document) -> int:
    """CRC32C of the values of a small array, whatever its chunks: what the root document vouches for.

    A chunk is sound in itself also in the place of another, and one that is lost reads as the fill value.
    """
    stored = np.asarray(values, _dtype(document))
    payload = _encode_strings(stored.ravel().tolist()) if stored.dtype.kind == "O" else stored.tobytes()
    return int.from_bytes(checksum(payload), "little")


def _encode_strings(strings: Sequence[str], padding: int = 0, fill: str = "") -> bytes:
    """Strings as the `vlen-utf8` codec lays them: their number, then length (uint32, little) and UTF-8 of each.

    So many fill values come after them: tables of few images are padded to thousands.
    """
    encoded = [string.encode() for string in (*strings, fill)]
    *entries, last = (_COUNT.pack(len(text)) + text for text in encoded)
    return b"".join((_COUNT.pack(len(entries) + padding), *entries, last * padding))


def _decode_strings(payload: bytes, held: int, wanted: int) -> list[str]:
    """The first `wanted` of `held` strings. Raises `ValueError` where it holds another number, or half of one."""
    (found,) = _COUNT.unpack_from(payload)
    if found != held:
        raise ValueError(f"it holds {found} strings")
    strings, position = [], _COUNT.size
    for _ in range(wanted):
        start = position + _COUNT.size
        position = start + _COUNT.unpack_from(payload, position)[0]
        if position > len(payload):
            raise ValueError("a string reaches beyond the end")
        strings.append(payload[start:position].decode())
    return strings


def read_table(folder: Place, document: Document, required: int = 0) -> Table:
    """A small array as a whole; strings come as objects.

    Chunks that hold any of the first `required` entries of the first dimension must be there; other missing ones read
    as the fill value, as they do in every Zarr reader. Raises `DamagedError` naming the file.
    """
    parts = check_held(folder, document, required)
    shape, chunk_shape = tuple(document["shape"]), _chunk_shape(document)
    read = worked_on(_read, parts.values(), folder)
    # Servers may have told other sizes than came.
    _check_declared(folder, document, required, len(parts), sum(len(encoded or b"") for encoded in read))
    values = np.full(shape, _fill(document), dtype=_dtype(document))
    for (first, path), encoded in zip(parts.items(), read, strict=True):
        if encoded is None:
            continue
        window = values[first * chunk_shape[0] : (first + 1) * chunk_shape[0]] if shape else values
        part = decode_chunk(encoded, document, path, len(window) if shape else None)
        window[...] = part[tuple(slice(0, size) for size in window.shape)]
    return values


def check_held(folder: Place, document: Document, required: int = 0) -> dict[int, Place]:
    """The files of an array's chunks, by their place along the first dimension.

    Raises `DamagedError` where the array is much larger than what they hold, or where a chunk is missing of the first
    `required` entries: before memory is taken for it.
    """
    shape, chunk_shape = document["shape"], _chunk_shape(document)
    ending = ".".join(["", *("0" for _ in shape[1:])])
    count = -(-shape[0] // chunk_shape[0]) if shape else 1
    if not listed(folder) and count > MOST_LOOKED_FOR:
        raise DamagedError(
            f"{folder} is declared to have {count} files, which a server that gives no list would be asked for one by"
            f" one; at most {MOST_LOOKED_FOR} are. Copy the store to a local disk."
        )
    keys = (f"c.{place}{ending}" for place in range(count)) if shape else iter(["c"])
    found: dict[int, Place] = {}
    held = 0
    for name, size in _files(folder, keys).items():
        place = name.removeprefix("c.").removesuffix(ending) if shape else "0"
        key = f"c.{place}{ending}" if shape else "c"
        # More digits than any place has would take long to read as a number.
        if name == key and len(place) < 20 and place.isascii() and place.isdecimal() and int(place) < count:
            found[int(place)] = folder / name
            held += size()
    needed = -(-required // chunk_shape[0]) if shape else required
    missing = next((place for place in range(min(needed, count)) if place not in found), None)
    if missing is not None:
        key = f"c.{missing}{ending}" if shape else "c"
        raise DamagedError(f"{folder / key} is missing. {advice(folder)}")
    _check_declared(folder, document, required, len(found), held)
    return dict(sorted(found.items()))


def _check_declared(folder: Place, document: Document, required: int, files: int, held: int) -> None:
    """Raise `DamagedError` where an array is much larger than the bytes that so many of its files hold."""
    shape = document["shape"]
    itemsize = _COUNT.size if document["data_type"] == "string" else _dtype(document).itemsize
    declared = math.prod(shape) * itemsize
    whole = required > 0 and required >= (shape[0] if shape else 1)
    if declared > held + MOST_FILLED or (whole and declared > held):
        count = -(-shape[0] // _chunk_shape(document)[0]) if shape else 1
        raise DamagedError(
            f"{folder} is damaged: it is declared as {document['data_type']} {tuple(shape)}, of which"
            f" {files} of {count} files hold {held} bytes."
        )


def _files(folder: Place, keys: Iterable[str]) -> dict[str, Callable[[], int]]:
    """What lies in a folder by name, each with what gives its bytes: of objects they come with the names.

    Where nobody says what lies there, `keys` are asked for.
    """
    if isinstance(folder, ObjectPath):
        if not folder.listed:
            named = [folder / key for key in keys]
            looked = zip(named, worked_on(ObjectPath.found, named, folder), strict=True)
            return {path.name: partial(int, found.size) for path, found in looked if found is not None}
        return {name: partial(int, found.size) for name, found in folder.children().items() if found is not None}
    try:
        return {file.name: partial(_bytes, file) for file in folder.iterdir()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DamagedError(f"{folder} cannot be read: {error.strerror or error}.") from error


def _bytes(file: Path) -> int:
    return file.lstat().st_size


def _read(path: Place) -> bytes | None:
    """The bytes of a chunk; None for one of a block that was made unfinished meanwhile."""
    try:
        return read_own(path)
    except FileNotFoundError:
        return None
    except StoreError:
        raise
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror or error}.") from error


def encode_table(values: Table, document: Document, start: int = 0) -> Iterator[tuple[str, bytes]]:
    """Key and bytes of each chunk, from the one that holds entry `start` of the first dimension on."""
    chunk_shape = _chunk_shape(document)
    if not chunk_shape:
        yield "c", encode_chunk(values, document)
        return
    rows = chunk_shape[0]
    for first in range(start // rows * rows, values.shape[0], rows):
        key = ".".join(["c", str(first // rows), *("0" for _ in chunk_shape[1:])])
        yield key, encode_chunk(values[first : first + rows], document)
