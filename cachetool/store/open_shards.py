"""The shards that a reader has mapped, and views of their chunks: checked once, opened again where one was replaced."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from cachetool.errors import DamagedError
from cachetool.objects import ObjectPath, Replaced
from cachetool.store.dtypes import storage_dtype
from cachetool.store.finished import FinishedBlocks
from cachetool.store.mending import advice
from cachetool.store.opened import OpenedStore
from cachetool.store.reading_ahead import AHEAD
from cachetool.store.shards import Shard

OPEN_SHARDS = 256
"""Shards kept mapped at a time: each takes one file descriptor, of which a process often has no more than 1024."""

FETCHED_BYTES = 2**28
"""Bytes of objects kept in memory at a time, whatever a store holds; one shard may be more."""

FETCHED_AHEAD = 8
"""Ranges of objects that are fetched at the same time: an object store is fast only where many are asked for."""

Views = dict[int, npt.NDArray[Any]]
"""Views of inner chunks at several states, (layer, image, token, channel), by their first image."""


class OpenShards:
    """Shards by token type and block, the most recently used ones. Safe to use from several threads."""

    def __init__(self, store: OpenedStore, finished: FinishedBlocks, *, verify: bool) -> None:
        """Nothing is opened yet. `verify` has every chunk compared with its checksum when it is first read."""
        self._store = store
        self._finished = finished
        self._verify = verify
        self._fetches = isinstance(store.path, ObjectPath)
        self._shards: OrderedDict[tuple[str, int], Shard] = OrderedDict()
        self._checked: dict[tuple[str, int], tuple[tuple[int, ...], npt.NDArray[np.bool_]]] = {}
        self._views: dict[tuple[str, tuple[int, ...]], Views] = {}
        self._guard = Lock()

    def ahead(self, token_type: str, states: int) -> int:
        """Blocks that are worth being read at the same time, beside the one in hand; none where memory has no room."""
        if not self._fetches:
            return AHEAD
        layout = self._store.geometry.shard_layout(token_type)
        return min(FETCHED_AHEAD, FETCHED_BYTES // (states * layout.chunks * layout.chunk_bytes) - 1)

    def get(self, token_type: str, block: int, index: int) -> Shard:
        """The mapped shard of a block, opened again where it was replaced by one with more states.

        `index` is the position of a state in the `layer` coordinate. Raises `DamagedError`.
        """
        key = (token_type, block)
        with self._guard:
            shard = self._shards.get(key)
            if shard is not None and shard.has(index, 0):
                self._shards.move_to_end(key)
                return shard
        # Not under the lock: it waits for the disk.
        opened = self._open(token_type, block)
        with self._guard:
            identity, checked = self._checked.get(key, ((), opened.checked))
            if identity == opened.identity:
                opened.checked = checked
            self._checked[key] = opened.identity, opened.checked
            self._forget_views(key)
            self._shards[key] = opened
            self._shards.move_to_end(key)
            if len(self._shards) > OPEN_SHARDS:
                self._forget(next(iter(self._shards)))
        return opened

    def _open(self, token_type: str, block: int) -> Shard:
        record = self._finished.sound_record(block)
        try:
            return self._store.shard(token_type, record)
        except DamagedError:
            # Another process may have written the block again since its record was read.
            renewed = self._finished.record(block, renew=True)
            if renewed is None or renewed == record:
                raise
            return self._store.shard(token_type, renewed)

    def bring(self, token_type: str, block: int, indices: Sequence[int], chunks: slice) -> None:
        """Have chunks in memory, see `Shard.bring`. Raises `DamagedError`."""
        shard = self.get(token_type, block, indices[0])
        try:
            shard.bring(indices, chunks)
        except Replaced:
            self._close(token_type, block)
            shard = self.get(token_type, block, indices[0])
            shard.bring(indices, chunks)
        if self._fetches:
            self._let_go(shard)

    def _let_go(self, kept: Shard) -> None:
        """Let go of the shards that were used longest ago, but for one, where all that was fetched is too much."""
        with self._guard:
            held = {key: shard.held_bytes for key, shard in self._shards.items()}
            for key, size in held.items():
                if sum(held.values()) <= FETCHED_BYTES:
                    return
                if self._shards[key] is not kept:
                    self._forget(key)
                    held[key] -= size

    def _forget(self, key: tuple[str, int]) -> None:
        """Let go of a shard; whoever holds it may go on with it. What is fetched again is checked again."""
        del self._shards[key]
        self._forget_views(key)
        if self._fetches:
            self._checked.pop(key, None)

    def _close(self, token_type: str, block: int) -> None:
        """Have a shard opened again by a record that is read again."""
        self._finished.record(block, renew=True)
        with self._guard:
            if (token_type, block) in self._shards:
                self._forget((token_type, block))

    def was_read(self, token_type: str, block: int, indices: Sequence[int], chunks: slice) -> bool:
        """Whether all these chunks were compared with their checksums before, so that they may well be in memory."""
        known = self._checked.get((token_type, block))
        return known is not None and bool(known[1][chunks, list(indices)].all())

    def chunk(self, token_type: str, block: int, index: int, chunk: int) -> npt.NDArray[Any]:
        """A whole inner chunk as a view of the file, (image, token, channel). Raises `DamagedError`."""
        geometry = self._store.geometry
        shard = self.get(token_type, block, index)
        if self._fetches and not shard.checked[chunk, index]:
            self.bring(token_type, block, [index], slice(chunk, chunk + 1))
            shard = self.get(token_type, block, index)
        if self._verify and shard.has(index, chunk) and not shard.intact(index, chunk):
            # Another process may have written the block again since its record was read.
            self._close(token_type, block)
            shard = self.get(token_type, block, index)
        if not shard.has(index, chunk) or (self._verify and not shard.intact(index, chunk)):
            first = block * geometry.block + chunk * shard.layout.chunk_images
            last = min(first + shard.layout.chunk_images, geometry.images) - 1
            raise DamagedError(
                f"{shard.path} is damaged at the images {first} to {last}, state {geometry.layers[index]}: the stored"
                f" bytes do not match their checksum or done record. {advice(shard.path)}"
            )
        values = shard.values(index, chunk, storage_dtype(geometry.dtype))
        return values.reshape(shard.layout.chunk_images, -1, geometry.channels)

    def known_views(self, token_type: str, layers: tuple[int, ...]) -> Views:
        """What `layered_chunk` gave for these states as one view, checked: records need no second look."""
        return self._views.get((token_type, layers), {})

    def layered_chunk(
        self, token_type: str, block: int, layers: tuple[int, ...], indices: tuple[int, ...], chunk: int
    ) -> npt.NDArray[Any]:
        """An inner chunk at several states, (layer, image, token, channel). Raises `DamagedError`."""
        geometry = self._store.geometry
        shard = self.get(token_type, block, indices[0])
        if self._verify and not shard.checked[chunk, list(indices)].all():
            for index in indices:
                self.chunk(token_type, block, index, chunk)
        try:
            view = shard.layered_values(indices, chunk, storage_dtype(geometry.dtype))
        except Replaced:
            view = None
        # Looked at again: a shard that was replaced meanwhile is not the one whose chunks were compared.
        if view is None or (self._verify and not shard.checked[chunk, list(indices)].all()):
            return np.stack([self.chunk(token_type, block, index, chunk) for index in indices])
        view = view.reshape(len(indices), shard.layout.chunk_images, -1, geometry.channels)
        with self._guard:
            # Of what was fetched a view would keep all in memory that is let go of elsewhere.
            if self._shards.get((token_type, block)) is shard and not self._fetches:
                first = block * geometry.block + chunk * shard.layout.chunk_images
                self._views.setdefault((token_type, layers), {})[first] = view
        return view

    def _forget_views(self, key: tuple[str, int]) -> None:
        """Let go of a shard that is no longer kept open: a view would keep it mapped, or show what was replaced."""
        token_type, block = key
        geometry = self._store.geometry
        step = geometry.array(token_type).chunk_images(geometry.block)
        for (kind, _layers), views in self._views.items():
            if kind == token_type:
                for first in range(block * geometry.block, (block + 1) * geometry.block, step):
                    views.pop(first, None)
