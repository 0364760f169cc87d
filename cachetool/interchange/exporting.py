"""A store, or a part of it, as one HDF5 file that netCDF readers understand; written block by block.

Data sets have the names, dimensions, dtypes and chunks of the store's arrays (`docs/format.md`), dimension scales, and
Fletcher-32 checksums. What is not finished takes no space and reads as NaN.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from cachetool import objects
from cachetool.errors import MissingDataError, StoreError
from cachetool.events import Events, Silent
from cachetool.interchange.names import (
    BOOL_ATTRIBUTE,
    EMPTY_DIMENSION,
    ENCODING_ATTRIBUTE,
    VERSION,
    VERSION_ATTRIBUTE,
    Place,
)
from cachetool.interchange.part import Part, choose_part
from cachetool.interchange.sink import Sink
from cachetool.objects import AnyPlace
from cachetool.store import StoreReader, StoreSpec, storage_dtype
from cachetool.store.atomic import remove_leftovers, storage_errors, sync_folder, temporary_name
from cachetool.store.dtypes import DTYPE_ATTRIBUTE, fill_value
from cachetool.store.format import COORDINATES, TABLE_CHUNK


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    file: Path
    """The new file."""
    images: int
    """Images in it."""
    layers: tuple[int, ...]
    """States in it."""
    token_types: tuple[str, ...]
    """Token types in it."""
    nbytes: int
    """Size of the file."""
    seconds: float
    """Wall time."""


def export_file(
    store: AnyPlace,
    file: str | Path,
    *,
    layers: Iterable[int] | None = None,
    token_types: Iterable[str] | None = None,
    limit: int | None = None,
    events: Events | None = None,
) -> Exported:
    """Write a cache or run, or a part of it, to one HDF5 file. Holds one state of one block in memory at a time.

    Parameters
    ----------
    store
        Path of the cache or run.
    file
        The new file; it appears under this name when it is whole.
    layers, token_types
        States and token types to write; by default all that are finished for any image.
    limit
        Only the first images.

    Raises
    ------
    StoreError
        The file is there already, or cannot be written; or there is no store.
    MissingDataError
        The folder of the file does not exist.
    IncompleteError
        A state or token type was named of which no image is finished; names each.
    UnknownNameError
        The limit is below 1.
    DamagedError
        Stored bytes contradict their checksum.
    """
    started = time.perf_counter()
    file, events, reader = objects.on_disk(file, "file"), events or Silent(), StoreReader(store)
    part = choose_part(reader, layers, token_types, limit)
    if not file.parent.is_dir():
        raise MissingDataError(f"{file} cannot be written: there is no folder {file.parent}; make it, or name another")
    _refuse_existing(file)
    temporary = temporary_name(file)
    with storage_errors(file):
        remove_leftovers(file.parent, file.name)
        try:
            with Sink(temporary) as sink:
                with h5py.File(sink, "w") as handle:
                    _write(handle, sink, reader, part, events)
                sink.check()
                os.fsync(sink.fileno())
            _refuse_existing(file)
            temporary.rename(file)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(file.parent)
    size = file.stat().st_size
    return Exported(file, part.images, part.layers, part.token_types, size, time.perf_counter() - started)


def _refuse_existing(file: Path) -> None:
    if file.exists() or file.is_symlink():
        raise StoreError(f"{file} is there already, and an export never overwrites; remove it or choose another name")


def _write(handle: Any, sink: Sink, reader: StoreReader, part: Part, events: Events) -> None:
    spec = reader.spec
    _write_attributes(handle, reader.path, spec)
    arrays = _small_arrays(reader, part, events)
    handle.attrs["coordinates"] = " ".join(name for name in COORDINATES if name in arrays)
    sizes = {"image": part.images, "layer": len(part.layers), "channel": spec.channels}
    for dimensions, values, _attributes in arrays.values():
        sizes.update(zip(dimensions, values.shape, strict=True))
    geometry = spec.geometry
    for name in part.token_types:
        sizes.update(zip(geometry.array(name).dimensions[2:], geometry.array(name).inner_shape, strict=True))
    for dimension, size in sizes.items():
        if dimension not in arrays:
            handle.create_dataset(dimension, (size,), ">f4")
            handle[dimension].make_scale(f"{EMPTY_DIMENSION}{size:10d}")
    for name, (_dimensions, values, attributes) in arrays.items():
        _write_small(handle, name, values, attributes)
        if name in sizes:
            handle[name].make_scale(name)
    written = {name: _token_array(handle, spec, part, name) for name in part.token_types}
    named = {name: dimensions for name, (dimensions, _values, _attributes) in arrays.items()}
    for name, dimensions in (named | {name: geometry.array(name).dimensions for name in written}).items():
        for axis, dimension in enumerate(dimensions):
            handle[name].dims[axis].label = dimension
            if name != dimension:  # a scale cannot have one itself
                handle[name].dims[axis].attach_scale(handle[dimension])
    _write_tokens(written, sink, reader, part, events)


def _write_attributes(handle: Any, path: objects.Place, spec: StoreSpec) -> None:
    """What the store says about itself; objects as JSON."""
    layout = spec.layout
    attributes: dict[str, Any] = {
        VERSION_ATTRIBUTE: np.int64(VERSION),
        "title": f"token activations of a vision transformer: {Place.of(path)}",
        "comment": "NaN is what is not finished (see complete) or could not be read (see readable)",
        "place": str(Place.of(path)),
        "kind": spec.kind,
        "key": json.dumps(dict(spec.key), ensure_ascii=False, allow_nan=False),
        "facts": json.dumps(dict(spec.facts), ensure_ascii=False, allow_nan=False),
        "layout": json.dumps(vars(layout)),
        "channels": np.int64(spec.channels),
        "dtype": spec.dtype,
        "block": np.int64(spec.block),
        "all_layers": np.array(spec.layers, dtype=np.int64),
    }
    if spec.norm is not None:
        attributes |= {"norm_type": spec.norm.type, "norm_epsilon": np.float64(spec.norm.epsilon)}
    handle.attrs.update(attributes)


Small = tuple[tuple[str, ...], npt.NDArray[Any], Mapping[str, Any]]
"""Dimensions, values and attributes of a small array."""


def _small_arrays(reader: StoreReader, part: Part, events: Events) -> dict[str, Small]:
    """All arrays but those of tokens, cut to the part."""
    spec = reader.spec
    cut = {"image": slice(part.images)}
    # Of arrays over states or blocks, only `layer` and `complete` can be cut and put back together.
    whole = {"layer": part.layers == spec.layers, "block": part.images == len(spec.images)}
    found: dict[str, Small] = {
        "layer": (("layer",), np.array(part.layers, dtype=np.int64), {"long_name": "state: input of this block"}),
        "complete": (
            ("block", "token_type", "layer"),
            part.complete,
            {"long_name": "whether a token type and a state are finished for all images of a block"},
        ),
    }
    for name, (dimensions, attributes) in reader.small.items():
        if name in found:
            continue
        if lost := [dimension for dimension in dimensions if not whole.get(dimension, True)]:
            events.message(f"{name} is left out: it has the dimension {lost[0]}, of which a part is exported")
            continue
        window = tuple(cut.get(dimension, slice(None)) for dimension in dimensions)
        found[name] = dimensions, reader.array(name)[window], attributes
    return found


def _write_small(handle: Any, name: str, values: npt.NDArray[Any], attributes: Mapping[str, Any]) -> None:
    extra: dict[str, Any] = {key: value for key, value in attributes.items() if isinstance(value, (str, int, float))}
    if values.dtype.kind == "O":
        encoded = [text.encode() for text in values.ravel().tolist()]
        # Of fixed length, so that what a reader has to hold follows from the file's own size.
        dtype = h5py.string_dtype("utf-8", max([1, *map(len, encoded)]))
        data = np.array(encoded, dtype=dtype).reshape(values.shape)
        extra[ENCODING_ATTRIBUTE] = "utf-8"
    elif values.dtype.kind == "b":
        data, extra[BOOL_ATTRIBUTE] = values.astype(np.int8), "bool"
    else:
        data = values
    chunks = (min(len(data), TABLE_CHUNK), *data.shape[1:]) if data.ndim and data.size else None
    dataset = handle.create_dataset(name, data=data, dtype=data.dtype, chunks=chunks, fletcher32=chunks is not None)
    dataset.attrs.update(extra)


def _token_array(handle: Any, spec: StoreSpec, part: Part, name: str) -> Any:
    array = spec.geometry.array(name)
    images = min(part.images, array.chunk_images(spec.block))
    dataset = handle.create_dataset(
        name,
        (part.images, len(part.layers), *array.inner_shape),
        storage_dtype(spec.dtype),
        chunks=(images, 1, *array.inner_shape),
        fillvalue=fill_value(spec.dtype),
        fletcher32=True,
    )
    if spec.dtype == "bfloat16":
        dataset.attrs[DTYPE_ATTRIBUTE] = "bfloat16"
    return dataset


def _write_tokens(datasets: Mapping[str, Any], sink: Sink, reader: StoreReader, part: Part, events: Events) -> None:
    spec = reader.spec
    types: Sequence[str] = spec.layout.types
    events.start("export", part.images)
    for block, finished in enumerate(part.complete):
        start, stop = block * spec.block, min((block + 1) * spec.block, part.images)
        nbytes = 0
        for name, dataset in datasets.items():
            for column in np.flatnonzero(finished[types.index(name)]).tolist():
                values = reader.read(name, part.layers[column], start, stop)
                dataset[start:stop, column] = values[:, 0] if name == "cls" else values
                nbytes += values.nbytes
        sink.check()
        events.advance(stop - start, nbytes)
