"""How a calibration lies on disk: a small Zarr v3 group that plain xarray opens, version 1 of the store format.

For each calibrated token type T of `cls`, `registers`, `patches` (the `register` dimension for registers only):

    T_count           ()                                     tokens per statistic: images (times patches)
    T_mean            (layer, [register,] channel)           float64
    T_variance        (layer, [register,] channel)           float64, divisor n
    T_covariance      (layer, [register,] channel, other_channel)   optional
    T_class_mean      (layer, class, [register,] channel)    optional, float32
    T_reference       (layer, [register,] T_reference_row, channel)  optional, float32: for the meter
    T_reference_image, T_reference_token, T_reference_fit   (T_reference_row): image id, patch index, half

and the coordinates `layer`, `image_id`, `content_sha256` and `label` (image), `class`, `class_name` and `class_count`
(class); the latter four where labels are known. The key in the root attributes is that of the cache. The root document
vouches for every array (`tables`): by one digest, or by one a layer where it is read layer by layer.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import stat
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from cachetool.errors import DamagedError, StoreError
from cachetool.objects import ObjectPath, Place, taken, tree_bytes, worked_on, zarr_store
from cachetool.store.atomic import (
    remove_leftovers,
    storage_errors,
    sync_folder,
    sync_folders,
    temporary_name,
    write_file,
)
from cachetool.store.format import FORMAT_VERSION
from cachetool.store.metadata import ROOT, Document, Root, encode_document, root_document, write_document
from cachetool.store.object_folders import make_whole
from cachetool.store.tables import MOST_FILLED, MOST_LOOKED_FOR, table_digest
from cachetool.tokens import TOKEN_TYPES

_DIMENSIONS = {
    "layer": ("layer",),
    "image_id": ("image",),
    "content_sha256": ("image",),
    "label": ("image",),
    "class": ("class",),
    "class_name": ("class",),
    "class_count": ("class",),
}

_STATISTICS = {
    "count": (),
    "mean": ("layer", "register", "channel"),
    "variance": ("layer", "register", "channel"),
    "covariance": ("layer", "register", "channel", "other_channel"),
    "class_mean": ("layer", "class", "register", "channel"),
    "reference": ("layer", "register", "reference_row", "channel"),
    "reference_image": ("reference_row",),
    "reference_token": ("reference_row",),
    "reference_fit": ("reference_row",),
}


_KINDS = {
    "layer": "int",
    "image_id": "string",
    "content_sha256": "string",
    "label": "int",
    "class": "int",
    "class_name": "string",
    "class_count": "int",
    "count": "int",
    "reference_image": "string",
    "reference_token": "int",
    "reference_fit": "bool",
}
"""Beginning of the data type of each array that does not hold numbers with fractions."""

_ADVICE = "remove the calibration and compute it again"

_FILL_VALUES = {"f": np.nan, "i": -1, "b": False}


CONTENT = "content_sha256"
"""Fact that holds the digest of all numbers of the artefact."""


def content_sha256(arrays: Mapping[str, Any]) -> str:
    """SHA-256 over name, dtype, shape and values of every array, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = np.asarray(arrays[name][...])
        if values.dtype.kind in "UOT":
            digest.update(json.dumps([name, [str(text) for text in values.tolist()]]).encode())
        else:
            digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
            digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def dimensions(name: str) -> tuple[str, ...]:
    """Dimension names of an array of the artefact."""
    if name in _DIMENSIONS:
        return _DIMENSIONS[name]
    token_type, _, statistic = name.partition("_")
    kept = (part for part in _STATISTICS[statistic] if part != "register" or token_type == "registers")
    return tuple(f"{token_type}_{part}" if part == "reference_row" else part for part in kept)


def write(path: Place, arrays: Mapping[str, Any], key: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write a new artefact: built beside its place, then renamed. Raises `StoreError`."""
    if taken(path):
        raise StoreError(f"a new calibration needs a free place, but {path} exists; remove it or choose another name")
    # In memory first: zarr goes on writing in the background where one of its files fails, on a full disk for example.
    content: dict[str, Any] = {}
    group = zarr.create_group(content, zarr_format=3)
    for name in arrays:
        _write_array(group, name, np.asarray(arrays[name][...]))
    files = {file: buffer.to_bytes() for file, buffer in content.items()}
    documents = {name: json.loads(files[f"{name}/{ROOT}"]) for name in arrays}
    recorded = {**facts, CONTENT: content_sha256(arrays)}
    about = {"format": FORMAT_VERSION, "kind": "calibration", "key": dict(key), "facts": recorded}
    about["tables"] = {
        name: _digests(name, np.asarray(arrays[name][...]), document) for name, document in documents.items()
    }
    coordinates = [name for name in arrays if name in _DIMENSIONS and name not in _DIMENSIONS[name]]
    root = root_document({"cachetool": about, "coordinates": " ".join(coordinates)}, documents)
    if isinstance(path, ObjectPath):
        make_whole(path, {**files, ROOT: encode_document(root)})
        return
    temporary = temporary_name(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        try:
            for file, encoded in files.items():
                (temporary / file).parent.mkdir(parents=True, exist_ok=True)
                write_file(temporary / file, [encoded])
            write_document(temporary, root)
            sync_folders(temporary)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(path.parent)


def read(path: Place) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Arrays (opened, not read), key and facts of an artefact. Raises `MissingDataError` or `StoreError`."""
    root = Root(path)
    if root.about["kind"] != "calibration":
        raise StoreError(
            f"a calibration was expected at {path}, but it is a {root.about['kind']}; "
            "make one with `cachetool calibrate`"
        )
    if problems := _problems(root.arrays):
        raise DamagedError(f"{path / ROOT} is damaged: {'; '.join(problems)}; {_ADVICE}")
    for name, document in root.arrays.items():
        _check_held(path / name, document)
    digests = root.about.get("tables", {})
    # Of Zarr format 3 alone: format 2 has codecs that run code.
    try:
        group = zarr.open_group(zarr_store(path), mode="r", zarr_format=3)
        arrays = {
            name: _StoredArray(path / name, group[name], document, digests.get(name))
            for name, document in root.arrays.items()
        }
    except Exception as error:  # zarr raises whatever a false document makes it stumble over
        raise DamagedError(f"{path / ROOT} is damaged: {error}; {_ADVICE}") from error
    return arrays, root.about["key"], root.about["facts"]


def _digests(name: str, values: np.ndarray[Any, Any], document: Document) -> int | list[int]:
    if _layered(name):
        return [table_digest(part, document) for part in values]
    return table_digest(values, document)


def _layered(name: str) -> bool:
    """Whether an array is stored, and read, one layer a chunk."""
    return len(dimensions(name)) > 1


def _problems(arrays: Mapping[str, Any]) -> list[str]:
    """Arrays that are missing, unknown, of another kind, or of other sizes than each other."""
    sizes: dict[str, int] = {}
    problems = [
        f"the array {name} is missing" for name in ("layer", "image_id", "content_sha256") if name not in arrays
    ]
    for name, document in arrays.items():
        token_type, _, statistic = name.partition("_")
        statistical = token_type in TOKEN_TYPES and statistic in _STATISTICS
        if not statistical and name not in _DIMENSIONS:
            problems.append(f"{name} is no part of a calibration")
            continue
        expected, found = dimensions(name), document.get("dimension_names", [])
        if list(expected) != found:
            problems.append(f"{name} must have the dimensions {', '.join(expected)}, found {', '.join(found)}")
        kind = _KINDS.get(statistic if statistical else name, "float")
        if not document["data_type"].startswith(kind):
            problems.append(f"{name} must be of type {kind}, found {document['data_type']}")
        problems += [
            f"{name} has {size} along {dimension}, another array {sizes[dimension]}"
            for dimension, size in zip(found, document["shape"], strict=True)
            if sizes.setdefault(dimension, size) != size
        ]
        if statistic == "mean" and f"{name.removesuffix('mean')}count" not in arrays:
            problems.append(f"the array {name.removesuffix('mean')}count is missing")
    return problems


def _check_held(folder: Place, document: Mapping[str, Any]) -> None:
    """Raise `DamagedError` where an array is much larger than its files, or `StoreError` where some are links."""
    itemsize = 4 if document["data_type"] == "string" else np.dtype(document["data_type"]).itemsize
    declared = math.prod(document["shape"]) * itemsize
    if isinstance(folder, ObjectPath):
        held = _object_bytes(folder, document) if declared > MOST_FILLED else 0
    else:
        files = [file.lstat() for file in folder.rglob("*")]
        if folder.is_symlink() or any(stat.S_ISLNK(status.st_mode) for status in files):
            raise StoreError(f"{folder} has symbolic links; all of a calibration must lie in its own folder")
        held = sum(status.st_size for status in files)
    if declared > held + MOST_FILLED:
        raise DamagedError(
            f"{folder} is damaged: it is declared as {document['data_type']} {tuple(document['shape'])}, of which its"
            f" files hold {held} bytes; {_ADVICE}"
        )


def _object_bytes(folder: ObjectPath, document: Mapping[str, Any]) -> int:
    """Bytes of the objects of an array; where nobody says what lies there, its chunks are asked for by name."""
    known = tree_bytes(folder)
    if known is not None:
        return known
    count = -(-document["shape"][0] // document["chunk_grid"]["configuration"]["chunk_shape"][0])
    rest = ["0"] * (len(document["shape"]) - 1)
    chunks = [folder / "/".join(["c", str(place), *rest]) for place in range(min(count, MOST_LOOKED_FOR))]
    return sum(found.size for found in worked_on(ObjectPath.found, chunks, folder) if found is not None)


class _StoredArray:
    """An array that is read piece by piece, and whose damage is named."""

    def __init__(self, path: Place, array: Any, document: Document, digests: int | list[int] | None) -> None:
        self._path = path
        self._array = array
        self._document = document
        self._digests = digests

    def __getitem__(self, where: Any) -> np.ndarray[Any, Any]:
        """Read a layer or the whole. Raises `DamagedError` where bytes are wrong, missing, or in another's place."""
        try:
            found = np.asarray(self._array[where])
        except Exception as error:  # as above
            raise DamagedError(f"{self._path} is damaged ({error}); {_ADVICE}") from error
        # What is missing reads as the fill value, and nothing that was calibrated is NaN.
        if found.dtype.kind == "f" and np.isnan(found).any():
            raise DamagedError(f"{self._path} is damaged (numbers are missing); {_ADVICE}")
        if self._digests is not None:
            parts = found if isinstance(self._digests, list) and where is ... else [found]
            promised = np.atleast_1d(self._digests)[where if isinstance(self._digests, list) else ...]
            if [table_digest(part, self._document) for part in parts] != np.atleast_1d(promised).tolist():
                raise DamagedError(f"{self._path} is damaged (its values are not those that were written); {_ADVICE}")
        return found


def _write_array(group: zarr.Group, name: str, data: np.ndarray[Any, Any]) -> None:
    """Write one array, one layer a chunk, with checksums."""
    names = dimensions(name)
    text = data.dtype.kind in "UOT"
    array = group.create_array(
        name,
        shape=data.shape,
        dtype="string" if text else data.dtype,
        chunks=tuple(
            1 if part == "layer" and data.ndim > 1 else max(size, 1)
            for part, size in zip(names, data.shape, strict=True)
        ),
        compressors=Crc32cCodec(),
        dimension_names=names,
        fill_value=_FILL_VALUES.get(data.dtype.kind, ""),
    )
    array[...] = data.astype(object) if text else data
