"""The `zarr.json` documents of a store, with every array's document repeated inline in the root.

The root document alone describes the whole store (Zarr calls this consolidated metadata), so opening costs one read,
and replacing that one file is how a change of the store's shape becomes visible. zarr-python's own consolidation warns
that it is no part of the specification yet; writing the same document ourselves keeps every reader silent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cachetool.errors import DamagedError, MissingDataError, StoreError
from cachetool.objects import ObjectPath, Place
from cachetool.store.atomic import write_atomically
from cachetool.store.consistency import entry_problems, size_problems
from cachetool.store.documents import array_problems, is_integer, name_problem, read_json, shown
from cachetool.store.dtypes import DTYPE_ATTRIBUTE, zarr_data_type, zarr_fill_value
from cachetool.store.format import COORDINATES, FORMAT_VERSION, KINDS, PRIVATE, Geometry, StoreSpec
from cachetool.store.shards import checksum
from cachetool.tokens import TOKEN_TYPES, TokenLayout

ROOT = "zarr.json"
Document = dict[str, Any]

_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_CHECKSUM = {"name": "crc32c"}


def array_document(
    shape: Sequence[int],
    chunk_shape: Sequence[int],
    data_type: str,
    fill_value: Any,
    dimensions: Sequence[str],
    attributes: Mapping[str, Any] | None = None,
    inner_chunk_shape: Sequence[int] | None = None,
) -> Document:
    """The document of one array; with `inner_chunk_shape` its chunks are shards."""
    serializer = {"name": "vlen-utf8"} if data_type == "string" else _BYTES
    codecs: list[dict[str, Any]] = [serializer, _CHECKSUM]
    if inner_chunk_shape is not None:
        sharding = {
            "chunk_shape": list(inner_chunk_shape),
            "codecs": codecs,
            "index_codecs": [_BYTES, _CHECKSUM],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill_value,
        "codecs": codecs,
        "attributes": dict(attributes or {}),
        "dimension_names": list(dimensions),
        "storage_transformers": [],
    }


def token_document(geometry: Geometry, token_type: str) -> Document:
    """The document of a token array."""
    array = geometry.array(token_type)
    return array_document(
        geometry.shape(token_type),
        (geometry.block, len(geometry.layers), *array.inner_shape),
        zarr_data_type(geometry.dtype),
        zarr_fill_value(geometry.dtype),
        array.dimensions,
        {DTYPE_ATTRIBUTE: geometry.dtype} if geometry.dtype == "bfloat16" else None,
        (array.chunk_images(geometry.block), 1, *array.inner_shape),
    )


def root_attributes(spec: StoreSpec) -> dict[str, Any]:
    """Attributes of the root: what the store is, and which arrays are coordinates."""
    layout = spec.layout
    attributes: dict[str, Any] = {
        "cachetool": {
            "format": FORMAT_VERSION,
            "kind": spec.kind,
            "key": dict(spec.key),
            "facts": dict(spec.facts),
            "layout": {
                "cls": layout.cls,
                "registers": layout.registers,
                "rows": layout.rows,
                "columns": layout.columns,
            },
            "channels": spec.channels,
            "dtype": spec.dtype,
            "block": spec.block,
        }
    }
    if spec.norm is not None:
        attributes["norm_type"] = spec.norm.type
        attributes["norm_epsilon"] = spec.norm.epsilon
    return attributes


def root_document(attributes: Mapping[str, Any], arrays: Mapping[str, Document]) -> Document:
    """The root document over the documents of its arrays, with its checksum among the attributes."""
    bare = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": dict(attributes),
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": dict(arrays)},
    }
    document: Document = json.loads(_text(bare))  # as it will be read: keys are text, tuples are lists
    document["attributes"]["cachetool"]["crc32c"] = root_checksum(document)
    return document


def root_checksum(document: Document) -> int:
    """CRC32C of a root document as compact JSON with sorted keys, its own entry `crc32c` left out."""
    attributes = document["attributes"]
    about = {name: value for name, value in attributes["cachetool"].items() if name != "crc32c"}
    bare = document | {"attributes": attributes | {"cachetool": about}}
    return int.from_bytes(checksum(json.dumps(bare, sort_keys=True, separators=(",", ":")).encode()), "little")


def encode_document(document: Document) -> bytes:
    """Text of a document as it is stored. Raises `StoreError` where an attribute is not JSON."""
    return _text(document, indent=1).encode()


def _text(document: Document, indent: int | None = None) -> str:
    """A document as JSON; without indentation, which Python writes itself, it takes a fifth of the time."""
    try:
        text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError as error:
        strange = dict.fromkeys(re.findall(r'[^"\n]*[\ud800-\udfff][^"\n]*', error.object))
        raise StoreError(
            f"A store records names as UTF-8, which is not what these are: {', '.join(map(ascii, strange))}. Rename"
            " these files or folders."
        ) from error
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"Attributes of a store must be JSON (strings, finite numbers, lists, objects): {error}."
        ) from error
    return text


def write_document(folder: Place, document: Document) -> None:
    """Replace the `zarr.json` of a folder atomically. Raises `StoreError`."""
    write_atomically(folder / ROOT, encode_document(document))


class Root:
    """The root document of an existing store, checked and taken apart.

    It may come from anybody. What passes here names no file outside the store, and declares only arrays that the
    format has, of sizes that agree with each other.
    """

    def __init__(self, path: Place) -> None:
        """Read it. Raises `MissingDataError`, `DamagedError`, or `StoreError` for what is no store of this format."""
        self.path = path
        try:
            document = path / ROOT
            content: bytes | None = None
            self._tag: str | None = None
            if isinstance(document, ObjectPath):
                content, self._tag = document.read_tagged()
            self.document: Document = read_json(document, content)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingDataError(f"There is no store at {path}: it has no {ROOT}.") from error
        attributes = self.document.get("attributes")
        self.attributes: dict[str, Any] = attributes if isinstance(attributes, dict) else {}
        about = self.attributes.get("cachetool")
        if not isinstance(about, dict) or "format" not in about:
            raise StoreError(f"{path} is a Zarr group, but no store of cachetool: it lacks the attribute `cachetool`.")
        self.about: dict[str, Any] = about
        version = about["format"]
        self._refuse(
            [] if is_integer(version, 1, 2**31) else [f"format must be a number from 1, found {shown(version)}"]
        )
        if version > FORMAT_VERSION:
            raise StoreError(
                f"{path} has format version {version}; this cachetool reads up to {FORMAT_VERSION}."
                " Install a newer cachetool."
            )
        if "crc32c" in about and about["crc32c"] != root_checksum(self.document):
            raise DamagedError(
                f"{path / ROOT} is damaged: its checksum does not match. Put back a copy of it, or remove the store"
                " with `cachetool remove` and make it again."
            )
        if about.get("kind") not in KINDS:
            raise StoreError(f"{path} is of kind {shown(about.get('kind'))}; expected one of {', '.join(KINDS)}.")
        self.arrays: dict[str, Document] = self._checked_arrays()
        links = [name for name in (*self.arrays, PRIVATE, f"{PRIVATE}/blocks") if (path / name).is_symlink()]
        if links:
            raise StoreError(
                f"{path} has symbolic links in place of {', '.join(links)}; all of a store must lie in its own folder."
                " Put there what they lead to, or move the whole store and link to it."
            )

    def geometry(self, layers: Sequence[int]) -> Geometry:
        """The geometry of the store, whose `layer` coordinate the caller has read. Raises `StoreError`."""
        try:
            geometry = Geometry(
                layout=TokenLayout(**self.about["layout"]),
                channels=self.about["channels"],
                layers=tuple(layers),
                token_types=tuple(name for name in TOKEN_TYPES if name in self.arrays),
                dtype=self.about["dtype"],
                block=self.about["block"],
                images=self.arrays["image_id"]["shape"][0],
            )
        except StoreError as error:
            raise DamagedError(f"{self.path / ROOT} is damaged: {error}") from error
        self._refuse(size_problems(geometry, self.arrays))
        return geometry

    def check_entries(self) -> None:
        """Raise `StoreError` for a store without token arrays, or one whose entries are not what the format has."""
        if "layout" not in self.about:
            raise StoreError(f"{self.path} is of kind {self.about['kind']!r} and holds no token arrays.")
        self._refuse(entry_problems(self.about, self.arrays))

    def _checked_arrays(self) -> dict[str, Document]:
        consolidated = self.document.get("consolidated_metadata")
        arrays = consolidated.get("metadata") if isinstance(consolidated, dict) else None
        if not isinstance(arrays, dict):
            raise DamagedError(f"{self.path / ROOT} is damaged: consolidated_metadata holds no documents of arrays.")
        problems = [
            f"{entry} must be an object, found {shown(self.about.get(entry))}"
            for entry in ("key", "facts")
            if not isinstance(self.about.get(entry), dict)
        ]
        problems += [problem for name in arrays if (problem := name_problem(name))]
        problems += [f"{name}: {problem}" for name, document in arrays.items() for problem in array_problems(document)]
        self._refuse(problems)
        return arrays

    def _refuse(self, problems: Sequence[str]) -> None:
        if problems:
            raise DamagedError(f"{self.path / ROOT} is damaged: {'; '.join(problems)}.")

    def write(self) -> None:
        """Replace the root document by what `attributes` and `arrays` now say. Raises `StoreError`."""
        arrays = {name: self.arrays[name] for name in sorted(self.arrays)}
        self.document = root_document(self.attributes | {"coordinates": coordinates(arrays)}, arrays)
        document = self.path / ROOT
        if not isinstance(document, ObjectPath) or self._tag is None:
            write_document(self.path, self.document)
            return
        # Whoever stood still for long may have lost the right to change it without a sign.
        content = encode_document(self.document)
        written = document.replace(content, self._tag)
        now, self._tag = document.read_tagged() if written else (b"", None)
        if now != content:
            raise StoreError(
                f"{self.path} was changed by somebody else while this took long; nothing was overwritten. Run the same"
                " command again."
            )


def coordinates(arrays: Mapping[str, Document]) -> str:
    """Names of the coordinate arrays, as the attribute that xarray reads them from (CF conventions)."""
    return " ".join(name for name in COORDINATES if name in arrays)


def numpy_data_type(array: np.ndarray[Any, Any]) -> tuple[str, Any]:
    """Zarr data type and fill value for a small array: the fill value is what a missing entry reads as.

    Raises `StoreError` for dtypes without a core Zarr v3 data type.
    """
    kind = array.dtype.kind
    if kind in "UTO":
        return "string", ""
    if kind == "b":
        return "bool", False
    if kind == "f" and array.dtype.itemsize in (2, 4, 8):
        return array.dtype.name, "NaN"
    if kind == "i":
        return array.dtype.name, -1
    if kind == "u":
        return array.dtype.name, int(np.iinfo(array.dtype).max)
    raise StoreError(f"Arrays of dtype {array.dtype} cannot be stored; use bool, int, uint, float or strings.")
