"""A cache or run as a lazy xarray object: nothing is read until a result is asked for.

Chunks are one block of images at one state of one token type: one contiguous read of a shard, and the unit at which
dask reductions run near the speed of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import tokenize

from cachetool.errors import InvalidEditError
from cachetool.objects import AnyPlace, Place, place
from cachetool.provenance import RUN, check_provenance
from cachetool.store import StateDigests, StoreReader

PATH_ATTRIBUTE = "cachetool_path"
"""Attribute of an opened data set that names its store."""

_TOKEN_DIMENSION = {"cls": None, "registers": "register", "patches": "patch"}


def open_store(path: AnyPlace, dtype: Literal["float32", "stored"] = "float32") -> xr.Dataset:
    """Open a cache or a run lazily, with its coordinates, restricted to the states that are finished for all images.

    Parameters
    ----------
    path
        Path of the cache or run.
    dtype
        `float32` converts each chunk as it is read, so that sums over many images do not lose precision or overflow as
        they would in float16; `stored` gives float16 as it is stored (bfloat16 is always converted).

    Returns
    -------
    Data set with `cls` (image, layer, channel), `registers` (image, layer, register, channel) and `patches`
    (image, layer, patch, channel) as far as the store holds them, dask-backed, and the coordinates `layer`, `image_id`,
    `label`, `class_name`, `readable`, `row`, `col`. Its attributes hold the store's key and facts, and `depth`, the
    number of the model's blocks and so of its last state, whether or not that is among the states held; and `digests`,
    which tell the values of each state by token type from others.

    Raises
    ------
    StoreError
        There is no store at the path, or it is of another format.
    """
    reader = StoreReader(place(path))
    spec = reader.spec
    check_provenance(reader.path, spec.key, spec.facts, *(RUN if spec.kind == "run" else ()))
    coverage = {name: reader.coverage(name) for name in spec.token_types}
    layers = sorted({layer for covered in coverage.values() for layer in covered})
    variables: dict[str, Any] = {
        name: (_dimensions(name), _lazy_tokens(reader, name, layers, covered, dtype))
        for name, covered in coverage.items()
        if covered
    }
    variables |= {
        name: xr.Variable(dimensions, reader.array(name), attributes)
        for name, (dimensions, attributes) in reader.beside.items()
    }
    data = xr.Dataset(variables, coords={"layer": ("layer", layers), **_coordinates(reader)})
    if "edited_layer" in data.sizes:
        first = spec.key["edit"]["from_layer"]
        data = data.assign_coords(edited_layer=np.arange(first, first + data.sizes["edited_layer"]))
    data.attrs = {
        PATH_ATTRIBUTE: str(path),
        "kind": spec.kind,
        "key": dict(spec.key),
        "facts": dict(spec.facts),
        # A cache declares all states of the model, a run those that it keeps.
        "depth": int(spec.facts.get("depth", spec.layers[-1])),
        "digests": StateDigests(path).of(coverage),
        "norm": {"type": "none"} if spec.norm is None else {"type": spec.norm.type, "epsilon": spec.norm.epsilon},
    }
    return data


def store_path(cache: AnyPlace | xr.Dataset) -> Place:
    """Path of a cache given as a path or as what `open_store` returned.

    Raises
    ------
    InvalidEditError
        The data set was not opened by cachetool.
    """
    if not isinstance(cache, xr.Dataset):
        return place(cache)
    if PATH_ATTRIBUTE not in cache.attrs:
        raise InvalidEditError("this data set was not opened with cachetool.open; pass the cache's path instead")
    return place(cache.attrs[PATH_ATTRIBUTE])


def _dimensions(token_type: str) -> tuple[str, ...]:
    token = _TOKEN_DIMENSION[token_type]
    return ("image", "layer", *((token,) if token else ()), "channel")


def _lazy_tokens(
    reader: StoreReader, token_type: str, layers: Sequence[int], covered: Sequence[int], dtype: str
) -> da.Array:
    """One dask chunk per block and state; states that this token type lacks are NaN."""
    spec = reader.spec
    count = spec.layout.count(token_type)
    target = np.dtype(np.float32) if dtype == "float32" or spec.dtype == "bfloat16" else np.dtype(spec.dtype)
    images, size = len(spec.images), spec.block
    tail = (spec.channels,) if token_type == "cls" else (count, spec.channels)

    def read(layer: int, first: int, last: int) -> npt.NDArray[Any]:
        if layer not in covered:
            return np.full((last - first, 1, *tail), np.nan, dtype=target)
        tokens = reader.read_float32 if target == np.float32 else reader.read
        return tokens(token_type, layer, first, last).reshape(last - first, 1, *tail)

    name = f"{token_type}-{tokenize(str(reader.path), spec.key, token_type, list(layers), str(target), images)}"
    origin = (0,) * len(tail)
    graph = {
        (name, block, column, *origin): (read, layer, block * size, min((block + 1) * size, images))
        for block in range(-(-images // size))
        for column, layer in enumerate(layers)
    }
    rows = tuple(min(size, images - first) for first in range(0, images, size))
    chunks = (rows, (1,) * len(layers), *((length,) for length in tail))
    return da.Array(graph, name, chunks, dtype=target)  # type: ignore[no-untyped-call]


def _coordinates(reader: StoreReader) -> dict[str, Any]:
    images, layout = reader.spec.images, reader.spec.layout
    found: dict[str, Any] = {
        "image_id": ("image", np.array(images.image_id, dtype=object)),
        "content_sha256": ("image", np.array(images.sha256, dtype=object)),
        "readable": ("image", reader.readable),
    }
    if images.label is not None:
        found["label"] = ("image", np.array(images.label, dtype=np.int64))
    if images.class_name is not None:
        found["class_name"] = ("image", np.array(images.class_name, dtype=object))
    if "patches" in reader.spec.token_types:
        row, column = np.divmod(np.arange(layout.patches), layout.columns)
        found |= {"row": ("patch", row), "col": ("patch", column)}
    return found
