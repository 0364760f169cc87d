"""Documents of a store as data from anybody: strict JSON, and arrays of the few kinds that the format has.

Nothing is allocated and no other file is looked at before a document has passed these checks: a kilobyte of JSON can
claim petabytes, name files outside the store, or hold what only looks like a number.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from cachetool.errors import DamagedError, StoreError
from cachetool.objects import Place, read_own

MOST_DIMENSIONS = 8
MOST_VALUES = 2**59
"""Of all sizes but those that are 0: NumPy refuses arrays of more bytes than there are addresses, empty ones too."""
LARGEST_DIMENSION = 2**48
"""Sizes beyond are no sizes: products of a few of them still are exact where they are compared."""

LONGEST_NAME = 255
"""Bytes of a folder's name that Linux, macOS and Windows file systems have room for."""

_TYPES = ("bool", "string", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)))
DATA_TYPES = (*_TYPES, "float16", "float32", "float64")
"""Zarr data types of the arrays of a store."""


def read_json(path: Place, content: bytes | None = None) -> dict[str, Any]:
    """A JSON object from a file of a store: every name once, finite numbers, text that can be written again.

    `content` is that of the file, where it was read before.

    Raises `FileNotFoundError` or `NotADirectoryError` where there is none, `DamagedError` naming the file otherwise.
    """
    try:
        encoded = read_own(path) if content is None else content
        document = json.loads(encoded, object_pairs_hook=_unique)
        # Finds what json.loads lets pass: NaN and infinity, 1e999 among them, and halves of surrogate pairs.
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except (FileNotFoundError, NotADirectoryError, StoreError):
        raise
    except RecursionError as error:
        raise DamagedError(f"{path} is damaged: it is nested too deeply.") from error
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise DamagedError(f"{path} is damaged: {error}.") from error
    if not isinstance(document, dict):
        raise DamagedError(f"{path} is damaged: expected a JSON object, found {shown(document)}.")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"these names occur twice: {', '.join(sorted(name for name in counts if counts[name] > 1))}")
    return found


def shown(value: object) -> str:
    """A value for a message, cut short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_integer(value: object, low: int, high: int) -> bool:
    """Whether a value of a JSON document is an integer from `low` to `high`; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(value: Any) -> bool:
    """Whether a value of a JSON document is a finite number."""
    # Compared, not converted: an integer may have thousands of digits.
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def name_problem(name: str) -> str | None:
    """Why a name cannot be that of an array, which is a folder inside the store; None for one that can."""
    plain = name.isprintable() and name[:1] not in ("", ".") and not {"/", "\\"} & set(name)
    if plain and len(name.encode()) <= LONGEST_NAME:
        return None
    return f"{shown(name)} is no name of an array, which is a plain folder name of at most {LONGEST_NAME} bytes"


def array_problems(document: object) -> list[str]:
    """What of an array's document is not as the format has it; empty for one that can be read."""
    if not isinstance(document, Mapping):
        return [f"expected an object, found {shown(document)}"]
    shape: Any = document.get("shape")
    dimensions = document.get("dimension_names", [])
    data_type, attributes = document.get("data_type"), document.get("attributes", {})
    problems = []
    if (document.get("zarr_format"), document.get("node_type")) != (3, "array"):
        problems.append("it is no array of Zarr format 3")
    if not (_is_sizes(shape, 0) and len(shape) <= MOST_DIMENSIONS):
        return [*problems, f"shape must be a list of sizes, found {shown(shape)}"]
    if math.prod(max(size, 1) for size in shape) > MOST_VALUES:
        return [*problems, f"shape must hold sizes of at most {MOST_VALUES} values, found {shown(shape)}"]
    chunks = chunk_shape(document)
    if not (_is_sizes(chunks, 1) and len(chunks) == len(shape)):
        return [*problems, f"chunk_shape must hold {len(shape)} positive sizes, found {shown(chunks)}"]
    if any(size > chunk for size, chunk in zip(shape[1:], chunks[1:], strict=True)):
        problems.append(f"chunks of {chunks} cut {shape} along another dimension than the first")
    if data_type not in DATA_TYPES:
        problems.append(f"data_type must be one of {', '.join(DATA_TYPES)}, found {shown(data_type)}")
    elif not _is_fill(document.get("fill_value"), str(data_type)):
        problems.append(f"fill_value {shown(document.get('fill_value'))} is none of {data_type}")
    if not (isinstance(dimensions, list) and all(isinstance(name, str) and name for name in dimensions)):
        problems.append(f"dimension_names must be a list of names, found {shown(dimensions)}")
    elif len(dimensions) != len(shape):
        problems.append(f"dimension_names must name {len(shape)} dimensions, found {shown(dimensions)}")
    if not isinstance(attributes, Mapping):
        problems.append(f"attributes must be an object, found {shown(attributes)}")
    expected = ["vlen-utf8" if data_type == "string" else "bytes", "crc32c"]
    if codec_names(document) not in (expected, ["sharding_indexed", *expected]) or document.get("storage_transformers"):
        problems.append(f"codecs must be {' and '.join(expected)}, found {shown(document.get('codecs'))}")
    return problems


def chunk_shape(document: Mapping[str, Any]) -> Any:
    """The chunk shape of an array's document, whatever it is; None where there is none."""
    grid = document.get("chunk_grid")
    configuration = grid.get("configuration") if isinstance(grid, Mapping) and grid.get("name") == "regular" else None
    return configuration.get("chunk_shape") if isinstance(configuration, Mapping) else None


def codec_names(document: Mapping[str, Any]) -> list[Any]:
    """Names of the codecs of an array's document; those inside a shard follow the name of the sharding."""
    names: list[Any] = []
    codecs = document.get("codecs")
    for codec in codecs if isinstance(codecs, list) else ():
        named = codec if isinstance(codec, Mapping) else {}
        configuration = named.get("configuration")
        inside = configuration if isinstance(configuration, Mapping) else {}
        names.append(named.get("name") if inside.get("endian", "little") == "little" else None)
        if named.get("name") == "sharding_indexed":
            names += codec_names(inside) if inside.get("index_location", "end") == "end" else [None]
    return names


def _is_sizes(value: Any, least: int) -> bool:
    return isinstance(value, list) and all(is_integer(size, least, LARGEST_DIMENSION) for size in value)


def _is_fill(value: Any, data_type: str) -> bool:
    if data_type == "string":
        return isinstance(value, str)
    if data_type == "bool":
        return isinstance(value, bool)
    if data_type.startswith("float"):
        return value == "NaN" or (is_number(value) and abs(value) <= float(np.finfo(data_type).max))
    limits = np.iinfo(data_type)
    return is_integer(value, int(limits.min), int(limits.max))
