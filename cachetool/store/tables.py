"""Small arrays: coordinates, flags and extra arrays over images, encoded without a Zarr library in between.

They are cut along one dimension at most, so that a store grows, or a block is flagged, by replacing one small file.
Like all chunks of a store they end with their CRC32C.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cachetool.errors import DamagedError
from cachetool.store.metadata import Document, array_document, numpy_data_type
from cachetool.store.shards import CHECKSUM_BYTES, checksum

_COUNT = struct.Struct("<I")

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
    padded = np.full(_chunk_shape(document), _fill(document), dtype=_dtype(document))
    padded[tuple(slice(0, size) for size in values.shape)] = values
    payload = _encode_strings(padded.ravel().tolist()) if padded.dtype.kind == "O" else padded.tobytes()
    return payload + checksum(payload)


def decode_chunk(encoded: bytes, document: Document, path: Path) -> Table:
    """The values of a whole chunk. Raises `DamagedError` naming the file where the checksum does not match."""
    payload, found = encoded[:-CHECKSUM_BYTES], encoded[-CHECKSUM_BYTES:]
    if checksum(payload) != found:
        raise DamagedError(f"{path} is damaged: its checksum does not match. Run `cachetool verify --repair`.")
    shape, dtype = _chunk_shape(document), _dtype(document)
    try:
        values = np.array(_decode_strings(payload), dtype) if dtype.kind == "O" else np.frombuffer(payload, dtype)
        return values.reshape(shape)
    except (ValueError, struct.error) as error:
        raise DamagedError(f"{path} is damaged: it is the chunk of another array ({error}).") from error


def table_digest(values: Table, document: Document) -> int:
    """CRC32C of the values of a small array, whatever its chunks: what the root document vouches for.

    A chunk is sound in itself also in the place of another, and one that is lost reads as the fill value.
    """
    stored = np.asarray(values, _dtype(document))
    payload = _encode_strings(stored.ravel().tolist()) if stored.dtype.kind == "O" else stored.tobytes()
    return int.from_bytes(checksum(payload), "little")


def _encode_strings(strings: Sequence[str]) -> bytes:
    """Strings as the `vlen-utf8` codec lays them: their number, then length (uint32, little) and UTF-8 of each."""
    encoded = [string.encode() for string in strings]
    return _COUNT.pack(len(encoded)) + b"".join(_COUNT.pack(len(text)) + text for text in encoded)


def _decode_strings(payload: bytes) -> list[str]:
    strings, position = [], _COUNT.size
    for _ in range(_COUNT.unpack_from(payload)[0]):
        start = position + _COUNT.size
        position = start + _COUNT.unpack_from(payload, position)[0]
        strings.append(payload[start:position].decode())
    return strings


def read_table(folder: Path, document: Document, required: int = 0) -> Table:
    """A small array as a whole; strings come as objects.

    Chunks that hold any of the first `required` entries of the first dimension must be there; other missing ones read
    as the fill value, as they do in every Zarr reader. Raises `DamagedError` naming the file.
    """
    shape, chunk_shape = tuple(document["shape"]), _chunk_shape(document)
    values = np.full(shape, _fill(document), dtype=_dtype(document))
    counts = [-(-size // chunk) for size, chunk in zip(shape, chunk_shape, strict=True)]
    for index in np.ndindex(*counts):
        path = folder / ".".join(["c", *map(str, index)])
        try:
            encoded = path.read_bytes()
        except FileNotFoundError as error:
            if (index[0] * chunk_shape[0] if index else 0) < required:
                raise DamagedError(f"{path} is missing. Run `cachetool verify --repair`.") from error
            continue
        window = tuple(
            slice(position * chunk, min((position + 1) * chunk, size))
            for position, chunk, size in zip(index, chunk_shape, shape, strict=True)
        )
        part = decode_chunk(encoded, document, path)
        values[window] = part[tuple(slice(0, item.stop - item.start) for item in window)]
    return values


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
