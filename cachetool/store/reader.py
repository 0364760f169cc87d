"""Read stored states at close to the speed of memory: shards are mapped, chunks copied straight into the result.

Only what a done record vouches for is read; everything else raises. Each chunk is compared with its checksum when it is
first read.
"""

from __future__ import annotations

import os
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from cachetool.errors import DamagedError, IncompleteError, StoreError
from cachetool.store.dtypes import storage_dtype, to_float32
from cachetool.store.format import COORDINATES, ImageTable, StoreSpec
from cachetool.store.opened import OpenedStore
from cachetool.store.records import Record, misfits
from cachetool.store.shards import Shard
from cachetool.tokens import TOKEN_TYPES

OPEN_SHARDS = 256
"""Shards kept mapped at a time: each takes one file descriptor, of which a process often has no more than 1024."""


READ_AHEAD = 4
"""Blocks that the system is told to read before they are needed: with one, a disk waits between blocks."""

READERS = 4
"""Blocks that are read at the same time where they are read for the first time: a disk is fastest with several."""


class StoreReader:
    """Read a cache or run. Safe to use while another process extends it."""

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = True) -> None:
        """Open a store.

        Parameters
        ----------
        path
            Folder of the store.
        verify
            Compare every chunk with its checksum when it is first read.

        Raises
        ------
        MissingDataError
            There is no store at `path`.
        StoreError
            It is of another format, of a newer version, or of a kind without token arrays.
        DamagedError
            Its documents cannot be read.
        """
        self.path = Path(path)
        self._verify = verify
        self._store = OpenedStore(self.path)
        self._records: dict[int, Record] = {}
        self._shards: OrderedDict[tuple[str, int], Shard] = OrderedDict()
        self._checked: dict[tuple[str, int], tuple[tuple[int, ...], npt.NDArray[np.bool_]]] = {}
        self._read_once: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
        self._guard = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Open the store anew in the process that unpickles the reader: maps of files do not travel."""
        return partial(StoreReader, verify=self._verify), (self.path,)

    @cached_property
    def spec(self) -> StoreSpec:
        """What the store says about itself."""
        return self._store.spec()

    @property
    def images(self) -> ImageTable:
        """The images of the store, in its order."""
        return self._store.images

    @cached_property
    def readable(self) -> npt.NDArray[np.bool_]:
        """Whether each image could be decoded, bool (image,); the activations of the others are NaN."""
        return self._store.array("readable")

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """What is finished, bool (block, token_type, layer); token types as in `spec.layout.types`."""
        blocks = range(self._store.geometry.blocks)
        shape = (0, len(self._store.geometry.layout.types), len(self._store.geometry.layers))
        flags = [self._store.flags(self._record(block))[np.newaxis] for block in blocks]
        return np.concatenate([np.zeros(shape, dtype=bool), *flags])

    def coverage(self, token_type: str, images: npt.NDArray[np.integer[Any]] | None = None) -> tuple[int, ...]:
        """States of a token type that are finished in all blocks, or in those of some images, given by position.

        None for a type that is not stored.
        """
        geometry = self._store.geometry
        if token_type not in geometry.token_types:
            return ()
        finished = self.complete[:, geometry.layout.types.index(token_type)]
        if images is not None:
            finished = finished[np.unique(self._blocks_of(images))]
        return tuple(layer for index, layer in enumerate(geometry.layers) if finished[:, index].all())

    def array(self, name: str) -> npt.NDArray[Any]:
        """A small array as a whole: a coordinate, or one that was written beside the tokens."""
        return self._store.array(name)

    @property
    def beside(self) -> dict[str, tuple[str, ...]]:
        """Names of the small arrays that describe no dimension, each with its dimensions: norm, donors, distances."""
        arrays = self._store.root.arrays
        known = (*TOKEN_TYPES, *COORDINATES, "complete")
        described = {name: tuple(document["dimension_names"]) for name, document in arrays.items()}
        return {name: over for name, over in described.items() if name not in known and over != (name,)}

    def read(
        self, token_type: str, layer: int, start: int, stop: int, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """One state of a range of images.

        Parameters
        ----------
        token_type, layer
            What to read.
        start, stop
            Images from `start` to before `stop`.
        out
            C-contiguous (image, token, channel) array of the storage dtype to read into.

        Returns
        -------
        (image, token, channel), token dimension of length 1 for `cls`, storage dtype (uint16 for bfloat16).

        Raises
        ------
        IncompleteError
            Some of it is not stored, or not yet; names the blocks.
        DamagedError
            Stored bytes contradict their checksum or record; names file, images and state.
        """
        geometry = self._store.geometry
        shape = (stop - start, geometry.layout.count(token_type), geometry.channels)
        dtype = storage_dtype(geometry.dtype)
        if out is None:
            out = self._empty(shape, dtype)
        elif out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
            raise StoreError(f"`out` must be C-contiguous {dtype} {shape}; it is {out.dtype} {out.shape}.")
        done = self._read_first(token_type, layer, start, stop, out) if self._verify else ()
        for position, values in self._pieces(token_type, layer, start, stop, skip=done):
            out[position : position + len(values)] = values
        return out

    def read_layers(
        self, token_type: str, layers: Sequence[int], start: int, stop: int, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """Several states of a range of images: what `read` gives for each, in one pass over the files.

        Parameters
        ----------
        token_type, layers
            What to read; states in any order.
        start, stop
            Images from `start` to before `stop`.
        out
            C-contiguous (layer, image, token, channel) array of the storage dtype to read into.

        Returns
        -------
        (layer, image, token, channel), storage dtype. Raises as `read` does.
        """
        geometry = self._store.geometry
        shape = (len(layers), stop - start, geometry.layout.count(token_type), geometry.channels)
        dtype = storage_dtype(geometry.dtype)
        if out is None:
            out = self._empty(shape, dtype)
        elif out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
            raise StoreError(f"`out` must be C-contiguous {dtype} {shape}; it is {out.dtype} {out.shape}.")
        self._check_range(start, stop)
        span = self._block_span(start, stop)
        if not self._hold_all(token_type, layers, span):
            self._refuse([problem for layer in layers for problem in self._missing(token_type, layer, span)])
        indices = tuple(geometry.layers.index(layer) for layer in layers)
        size = geometry.array(token_type).chunk_images(geometry.block)
        for first in range(start // size * size, stop, size) if indices else ():
            low, high = max(start, first), min(stop, first + size)
            values = self._layered_chunk(token_type, first // geometry.block, indices, first % geometry.block // size)
            out[:, low - start : high - start] = values[:, low - first : high - first]
        return out

    def read_float32(self, token_type: str, layer: int, start: int, stop: int) -> npt.NDArray[np.float32]:
        """One state of a range of images, (image, token, channel), decoded to float32 chunk by chunk.

        Takes no memory beside its result but that of a chunk. Raises as `read` does.
        """
        geometry = self._store.geometry
        out = self._empty((stop - start, geometry.layout.count(token_type), geometry.channels), np.float32)
        for position, values in self._pieces(token_type, layer, start, stop):
            to_float32(values, geometry.dtype, out=out[position : position + len(values)])
        return out

    def read_tokens(
        self, token_type: str, layer: int, images: npt.NDArray[np.integer[Any]], tokens: npt.NDArray[np.integer[Any]]
    ) -> npt.NDArray[Any]:
        """Single tokens of one state, in any order.

        Parameters
        ----------
        images
            Image of each pair, int (pair,).
        tokens
            Token of each pair within its type, int (pair,); 0 for `cls`.

        Returns
        -------
        (pair, channel), storage dtype. Raises as `read` does, and `StoreError` for positions out of range.
        """
        geometry = self._store.geometry
        images, tokens = np.asarray(images), np.asarray(tokens)
        count = geometry.layout.count(token_type)
        if len(tokens) and not (tokens.min() >= 0 and tokens.max() < count):
            raise StoreError(
                f"Tokens of {token_type} are numbered 0 to {count - 1}; found {tokens.min()} to {tokens.max()}."
            )
        out = self._empty((len(images), geometry.channels), storage_dtype(geometry.dtype))
        index = self._checked_index(token_type, layer, sorted({int(b) for b in np.unique(self._blocks_of(images))}))
        size = geometry.array(token_type).chunk_images(geometry.block)
        chunks = images // size
        order = np.argsort(chunks, kind="stable")
        bounds = np.flatnonzero(np.diff(chunks[order])) + 1
        for group in np.split(order, bounds) if len(order) else []:
            first = int(chunks[group[0]]) * size
            values = self._chunk(token_type, first // geometry.block, index, first % geometry.block // size)
            out[group] = values[images[group] - first, tokens[group]]
        return out

    def read_state(self, layer: int, start: int, stop: int, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """One state of a range of images as the whole sequence, (image, token, channel), decoded to `dtype`.

        Raises as `read` does, naming every token type that is missing.
        """
        geometry = self._store.geometry
        self._check_range(start, stop)
        missing = [
            problem
            for token_type in geometry.layout.types
            for problem in self._missing(token_type, layer, self._block_span(start, stop))
        ]
        self._refuse(missing)
        out = self._empty((stop - start, geometry.layout.tokens, geometry.channels), dtype)
        for token_type in geometry.layout.types:
            window = out[:, geometry.layout.slice(token_type)]
            for position, values in self._pieces(token_type, layer, start, stop):
                target = window[position : position + len(values)]
                if out.dtype == np.float32:
                    to_float32(values, geometry.dtype, out=target)
                else:
                    with np.errstate(invalid="ignore"):  # NumPy warns of NaN with a payload
                        target[...] = to_float32(values, geometry.dtype)
        return out

    def _read_first(self, token_type: str, layer: int, start: int, stop: int, out: npt.NDArray[Any]) -> Collection[int]:
        """Read blocks that were never read, several at a time, into their place in `out`; returns those that were."""
        self._check_range(start, stop)
        size = self._store.geometry.block
        key = (token_type, layer)
        unread = [block for block in range(-(-start // size), stop // size) if block not in self._read_once[key]]
        if not unread:
            return ()

        def read(block: int) -> bool:
            shard = self._shard(token_type, block, index)
            rows = out[block * size - start : (block + 1) * size - start]
            return not shard.checked[:, index].any() and shard.read_layer(index, rows.reshape(-1).view(np.uint8))

        # Records, indices and values of several blocks at a time: a disk answers them together.
        with ThreadPoolExecutor(min(READERS, len(unread)), thread_name_prefix="cachetool-read") as pool:
            list(pool.map(self._record, unread))
            index = self._checked_index(token_type, layer, self._block_span(start, stop))
            found = {block for block, well in zip(unread, pool.map(read, unread), strict=True) if well}
        self._read_once[key].update(unread)
        return found

    def _empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Memory for a result; what a document claims may be more than there is."""
        try:
            return np.empty(shape, dtype=dtype)
        except (MemoryError, ValueError) as error:
            raise StoreError(
                f"{self.path}: {np.dtype(dtype)} {shape} does not fit into memory; read fewer images at a time, and"
                " check with `cachetool verify` that the store holds as many channels and tokens."
            ) from error

    def _hold_all(self, token_type: str, layers: Sequence[int], blocks: range) -> bool:
        """Whether blocks hold all these states, by the records that are known."""
        wanted = set(layers)
        records = map(self._record, blocks)
        return all(record is not None and wanted.issubset(record.layers.get(token_type, ())) for record in records)

    def _pieces(
        self, token_type: str, layer: int, start: int, stop: int, skip: Collection[int] = ()
    ) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Views of stored values, (image, token, channel), chunk by chunk, with their position after `start`.

        Blocks of `skip` are left out.
        """
        geometry = self._store.geometry
        self._check_range(start, stop)
        index = self._checked_index(token_type, layer, self._block_span(start, stop))
        size = geometry.array(token_type).chunk_images(geometry.block)
        ahead, last = start // geometry.block, -(-stop // geometry.block)
        for first in range(start // size * size, stop, size):
            if first // geometry.block in skip:
                continue
            while ahead < min(first // geometry.block + READ_AHEAD, last):
                self._shard(token_type, ahead, index).will_need(index)
                ahead += 1
            values = self._chunk(token_type, first // geometry.block, index, first % geometry.block // size)
            low, high = max(start, first), min(stop, first + size)
            yield low - start, values[low - first : high - first]

    def _chunk(self, token_type: str, block: int, index: int, chunk: int) -> npt.NDArray[Any]:
        """A whole inner chunk as a view of the file, (image, token, channel). Raises `DamagedError`."""
        geometry = self._store.geometry
        shard = self._shard(token_type, block, index)
        if not shard.has(index, chunk) or (self._verify and not shard.intact(index, chunk)):
            first = block * geometry.block + chunk * shard.layout.chunk_images
            last = min(first + shard.layout.chunk_images, geometry.images) - 1
            raise DamagedError(
                f"{shard.path} is damaged at the images {first} to {last}, state {geometry.layers[index]}: the stored"
                " bytes do not match their checksum. Run `cachetool verify --repair`."
            )
        return shard.values(index, chunk, storage_dtype(geometry.dtype)).reshape(
            shard.layout.chunk_images, -1, geometry.channels
        )

    def _layered_chunk(self, token_type: str, block: int, indices: tuple[int, ...], chunk: int) -> npt.NDArray[Any]:
        """An inner chunk at several states, (layer, image, token, channel). Raises `DamagedError`."""
        geometry = self._store.geometry
        shard = self._shard(token_type, block, indices[0])
        if (known := shard.checked_views.get((indices, chunk))) is not None:
            return known
        shape = (len(indices), geometry.array(token_type).chunk_images(geometry.block), -1, geometry.channels)
        view = shard.layered_values(indices, chunk, storage_dtype(geometry.dtype))
        # What was not read before is compared with its checksum on the way through `_chunk`.
        if view is None or (self._verify and not shard.checked[chunk, indices].all()):
            return np.stack([self._chunk(token_type, block, index, chunk) for index in indices]).reshape(shape)
        shard.checked_views[indices, chunk] = view = view.reshape(shape)
        return view

    def _shard(self, token_type: str, block: int, index: int) -> Shard:
        """The mapped shard of a block, opened again where it was replaced by one with more states."""
        key = (token_type, block)
        with self._guard:
            shard = self._shards.get(key)
            if shard is not None and shard.has(index, 0):
                self._shards.move_to_end(key)
                return shard
        opened = self._open(token_type, block)  # not under the lock: it waits for the disk
        with self._guard:
            identity, checked = self._checked.get(key, ((), opened.checked))
            if identity == opened.identity:
                opened.checked = checked
            self._checked[key] = opened.identity, opened.checked
            self._shards[key] = opened
            self._shards.move_to_end(key)
            if len(self._shards) > OPEN_SHARDS:
                self._shards.popitem(last=False)
        return opened

    def _open(self, token_type: str, block: int) -> Shard:
        record = self._record(block)
        if record is not None and misfits(self.path, record):
            record = self._record(block, renew=True)
        problems = misfits(self.path, record) if record is not None else []
        if problems:
            raise DamagedError(
                f"Block {block} of {self.path} does not match its done record: {'; '.join(problems)}."
                " Run `cachetool verify --repair`."
            )
        path = self.path / self._store.shard_name(token_type, block)
        return Shard(path, self._store.geometry.shard_layout(token_type))

    def _record(self, block: int, *, renew: bool = False) -> Record | None:
        """The record of a block; finished ones are remembered."""
        if renew or block not in self._records:
            record = self._store.record(block)
            if record is None:
                return None
            self._records[block] = record
        return self._records[block]

    def _checked_index(self, token_type: str, layer: int, blocks: Sequence[int]) -> int:
        """Position of a state in the `layer` coordinate. Raises `IncompleteError` unless all blocks hold it."""
        self._refuse(self._missing(token_type, layer, blocks))
        return self._store.geometry.layers.index(layer)

    def _missing(self, token_type: str, layer: int, blocks: Sequence[int]) -> list[str]:
        geometry = self._store.geometry
        if token_type not in geometry.token_types:
            return [f"{token_type} (the store holds {', '.join(geometry.token_types)})"]
        if layer not in geometry.layers:
            return [f"state {layer} of {token_type} (the store holds {list(geometry.layers)})"]
        absent = [block for block in blocks if not self._finished(token_type, layer, block)]
        return [f"state {layer} of {token_type} in the blocks {_ranges(absent)}"] if absent else []

    def _finished(self, token_type: str, layer: int, block: int) -> bool:
        for renew in (False, True):
            record = self._record(block, renew=renew)
            if record is not None and layer in record.layers.get(token_type, ()):
                return True
        return False

    def _refuse(self, missing: Sequence[str]) -> None:
        if missing:
            raise IncompleteError(
                f"{self.path} does not hold all that is needed; missing: {'; '.join(missing)}. Run `cachetool extract`"
                " with these states and token types to complete it."
            )

    def _check_range(self, start: int, stop: int) -> None:
        images = self._store.geometry.images
        if not 0 <= start <= stop <= images:
            raise StoreError(f"{self.path} has {images} images; {start} to {stop} were asked for.")

    def _block_span(self, start: int, stop: int) -> range:
        size = self._store.geometry.block
        return range(start // size, -(-stop // size)) if stop > start else range(0)

    def _blocks_of(self, images: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
        if len(images):
            self._check_range(int(images.min()), int(images.max()) + 1)
        return images // self._store.geometry.block


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as `0-3, 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
