"""Read stored states at close to the speed of memory: shards are mapped, chunks copied straight into the result.

Only what a done record vouches for is read; everything else raises. Each chunk is compared with its checksum when it is
first read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cachetool.errors import DamagedError, StoreError
from cachetool.objects import AnyPlace, place
from cachetool.store.dtypes import storage_dtype, to_float32
from cachetool.store.finished import FinishedBlocks
from cachetool.store.format import COORDINATES, ImageTable, StoreSpec
from cachetool.store.memory import empty_for_reading
from cachetool.store.mending import advice
from cachetool.store.open_shards import OpenShards
from cachetool.store.opened import OpenedStore
from cachetool.store.reading_ahead import worked_on_ahead
from cachetool.tokens import TOKEN_TYPES


class StoreReader:
    """Read a cache or run. Safe to use while another process extends it."""

    def __init__(self, path: AnyPlace, *, verify: bool = True) -> None:
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
        self.path = place(path)
        self._verify = verify
        self._store = OpenedStore(self.path)
        self._finished = FinishedBlocks(self._store)
        self._shards = OpenShards(self._store, self._finished, verify=verify)

    def __reduce__(self) -> tuple[Any, ...]:
        """Open the store anew in the process that unpickles the reader: maps of files do not travel."""
        return partial(StoreReader, verify=self._verify), (self.path.absolute(),)  # it may stand in another folder

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
        """Whether each image could be decoded, bool (image,); the activations of the others are NaN.

        Raises `DamagedError` where the flags are not those of the done records.
        """
        flags = self._store.array("readable")
        for block in range(self._store.geometry.blocks):
            try:
                record = self._finished.record(block)
            except DamagedError:  # raised again where anything of the block is read
                continue
            if record is None or record.replacing:
                continue
            ids = self._store.images.image_id[record.first : record.last]
            if [name not in record.failed for name in ids] != flags[record.first : record.last].tolist():
                raise DamagedError(
                    f"{self.path / 'readable'} is damaged: the flags of block {block} are not those of its done record."
                    f" {advice(self.path)}"
                )
        return flags

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """What is finished, bool (block, token_type, layer); token types as in `spec.layout.types`."""
        return self._finished.flags()

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
    def small(self) -> dict[str, tuple[tuple[str, ...], dict[str, Any]]]:
        """All arrays but those of tokens: dimensions and attributes by name."""
        return {
            name: (tuple(document.get("dimension_names", ())), dict(document.get("attributes", {})))
            for name, document in self._store.root.arrays.items()
            if name not in TOKEN_TYPES
        }

    @property
    def beside(self) -> dict[str, tuple[tuple[str, ...], dict[str, Any]]]:
        """The small arrays that describe no dimension (norm, donors, distances): dimensions and attributes by name."""
        known = (*COORDINATES, "complete")
        return {name: found for name, found in self.small.items() if name not in known and found[0] != (name,)}

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
            C-contiguous (image, token, channel) array of the storage dtype to read into, best from
            `empty_for_reading`.

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
        out = self._room(shape, storage_dtype(geometry.dtype), out)
        for position, values in self._pieces(token_type, layer, start, stop):
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
            C-contiguous (layer, image, token, channel) array of the storage dtype to read into, best from
            `empty_for_reading`.

        Returns
        -------
        (layer, image, token, channel), storage dtype. Raises as `read` does.
        """
        geometry = self._store.geometry
        shape = (len(layers), stop - start, geometry.layout.count(token_type), geometry.channels)
        out = self._room(shape, storage_dtype(geometry.dtype), out)
        blocks, states = self._finished.block_span(start, stop), tuple(layers)
        if not states or not blocks:
            self._finished.require([token_type], states, blocks)
            return out
        size = self._chunk_images(token_type)
        firsts = range(start // size * size, stop, size)
        known = self._shards.known_views(token_type, states)
        found = [values for values in map(known.get, firsts) if values is not None]
        all_known = len(found) == len(firsts)
        chunks: Iterable[npt.NDArray[Any]] = (
            found if all_known else self._layered_chunks(token_type, states, start, stop)
        )
        for first, values in zip(firsts, chunks, strict=True):
            low, high = max(start, first), min(stop, first + size)
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
        (index,) = self._finished.require([token_type], [layer], np.unique(self._blocks_of(images)).tolist())
        size = self._chunk_images(token_type)
        chunks = images // size
        order = np.argsort(chunks)
        bounds = np.flatnonzero(np.diff(chunks[order])) + 1
        for group in np.split(order, bounds) if len(order) else []:
            first = int(chunks[group[0]]) * size
            values = self._shards.chunk(token_type, first // geometry.block, index, first % geometry.block // size)
            out[group] = values[images[group] - first, tokens[group]]
        return out

    def read_state(
        self,
        layer: int,
        start: int,
        stop: int,
        dtype: npt.DTypeLike = np.float32,
        out: npt.NDArray[Any] | None = None,
    ) -> npt.NDArray[Any]:
        """One state of a range of images as the whole sequence, (image, token, channel), decoded to `dtype`.

        `out` is a C-contiguous array of this shape and dtype to read into, best from `empty_for_reading`. Raises as
        `read` does, naming every token type that is missing.
        """
        geometry = self._store.geometry
        self._finished.require(geometry.layout.types, [layer], self._finished.block_span(start, stop))
        out = self._room((stop - start, geometry.layout.tokens, geometry.channels), np.dtype(dtype), out)
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

    def _room(self, shape: tuple[int, ...], dtype: np.dtype[Any], out: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        """The array to read into that was given, or a new one."""
        if out is None:
            return self._empty(shape, dtype)
        if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
            raise StoreError(f"`out` must be C-contiguous {dtype} {shape}; it is {out.dtype} {out.shape}.")
        return out

    def _empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Memory for a result; what a document claims may be more than there is."""
        try:
            return empty_for_reading(shape, dtype)
        except (MemoryError, ValueError) as error:
            raise StoreError(
                f"{self.path}: {np.dtype(dtype)} {shape} does not fit into memory; read fewer images at a time, and"
                " check with `cachetool verify` that the store holds as many channels and tokens."
            ) from error

    def _pieces(self, token_type: str, layer: int, start: int, stop: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Views of stored values, (image, token, channel), chunk by chunk, with their position after `start`."""
        blocks = self._finished.block_span(start, stop)
        indices = self._finished.require([token_type], [layer], blocks)
        size = self._chunk_images(token_type)
        for block, chunk in self._chunks_in_memory(token_type, indices, start, stop):
            first = block * self._store.geometry.block + chunk * size
            low, high = max(start, first), min(stop, first + size)
            yield low - start, self._shards.chunk(token_type, block, indices[0], chunk)[low - first : high - first]

    def _layered_chunks(
        self, token_type: str, layers: tuple[int, ...], start: int, stop: int
    ) -> Iterator[npt.NDArray[Any]]:
        """Whole inner chunks at several states, (layer, image, token, channel)."""
        indices = self._finished.require([token_type], layers, self._finished.block_span(start, stop))
        for block, chunk in self._chunks_in_memory(token_type, indices, start, stop):
            yield self._shards.layered_chunk(token_type, block, layers, indices, chunk)

    def _chunks_in_memory(
        self, token_type: str, indices: tuple[int, ...], start: int, stop: int
    ) -> Iterator[tuple[int, int]]:
        """The chunks of a range of images, (block, chunk), once they are in memory; others are read meanwhile."""
        geometry = self._store.geometry
        size = self._chunk_images(token_type)
        blocks = self._finished.block_span(start, stop)

        def chunks(block: int) -> slice:
            images = geometry.block_range(block)
            low, high = max(start, images.start) - images.start, min(stop, images.stop) - images.start
            return slice(low // size, -(-high // size))

        def bring(block: int) -> None:
            self._shards.bring(token_type, block, indices, chunks(block))

        unread = not all(self._shards.was_read(token_type, block, indices, chunks(block)) for block in blocks)
        for block in worked_on_ahead(bring, blocks, self._shards.ahead(token_type, len(indices))) if unread else blocks:
            wanted = chunks(block)
            yield from ((block, chunk) for chunk in range(wanted.start, wanted.stop))

    def _chunk_images(self, token_type: str) -> int:
        """Images of an inner chunk."""
        geometry = self._store.geometry
        return geometry.array(token_type).chunk_images(geometry.block)

    def _blocks_of(self, images: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
        if len(images):
            self._finished.block_span(int(images.min()), int(images.max()) + 1)
        return images // self._store.geometry.block
