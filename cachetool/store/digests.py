"""Which values a store holds, state by state: how whoever read them once finds out whether they are still the same.

A store grows: by states, by token types, and by images at its end. None of that changes a digest of what was there
before. Values that were computed anew and came out otherwise do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from cachetool.errors import IncompleteError
from cachetool.objects import AnyPlace, place, worked_on
from cachetool.store.chunks import image_chunks
from cachetool.store.dtypes import fill_value
from cachetool.store.opened import OpenedStore
from cachetool.store.reader import StoreReader
from cachetool.store.records import Record
from cachetool.store.shards import checksum, extend_checksum

Digests = dict[str, dict[str, int]]
"""By token type and state, the latter as text, ready for JSON."""


class StateDigests:
    """Digests of the states of one store as it is now, each looked up once; done records hold most of what it takes."""

    def __init__(self, path: AnyPlace) -> None:
        """Open a store. Raises as `StoreReader` does."""
        self._store = OpenedStore(place(path))
        self._records: dict[int, Record | None] = {}
        self._known: dict[tuple[str, int, int], int] = {}

    def of(self, states: Mapping[str, Iterable[int]], images: int | None = None) -> Digests:
        """Digests of states by token type, over the first `images` images, all by default.

        Raises `IncompleteError` where one is not finished for these images, `DamagedError` for a record or shard that
        cannot be read.
        """
        count = self._store.geometry.images if images is None else images
        return {
            name: {str(layer): self._digest(name, layer, count) for layer in sorted(layers)}
            for name, layers in states.items()
        }

    def changed(self, recorded: Mapping[str, Mapping[str, int]], images: int) -> list[str]:
        """What differs from digests that were recorded over the first `images` images, such as `cls at state 6`.

        A state that is not there any more, or not as a whole, differs.
        """
        found = []
        for name, digests in recorded.items():
            for layer, digest in digests.items():
                try:
                    same = self._digest(name, int(layer), images) == digest
                except IncompleteError:
                    same = False
                if not same:
                    found.append(f"{name} at state {layer}")
        return found

    def _digest(self, token_type: str, layer: int, images: int) -> int:
        key = (token_type, layer, images)
        if key not in self._known:
            value = 0
            blocks = range(-(-images // self._store.geometry.block))
            digest = partial(self._block_digest, token_type, layer, images)
            for part in worked_on(digest, blocks, self._store.path):
                value = extend_checksum(value, part.to_bytes(4, "little"))
            self._known[key] = value
        return self._known[key]

    def _block_digest(self, token_type: str, layer: int, images: int, block: int) -> int:
        record = self._record(block)
        if record is None or layer not in record.layers.get(token_type, ()) or images > self._store.geometry.images:
            raise IncompleteError(
                f"state {layer} of {token_type} is not finished in block {block} of {self._store.path}; "
                "run `cachetool extract` with it to complete it"
            )
        if images < record.last:
            return self._grown_digest(token_type, layer, record.first, images)
        recorded = record.state_digests(self._store.shard_name(token_type, block), layer)
        if len(recorded) == 1:
            return recorded.pop()
        # None was recorded, or the block is being replaced and may have either.
        return self._store.shard(token_type, record).state_digest(self._store.geometry.layer_indices([layer])[0])

    def _grown_digest(self, token_type: str, layer: int, first: int, last: int) -> int:
        """Digest of a block that held fewer images: their chunks as they were padded then."""
        geometry = self._store.geometry
        values: np.ndarray[Any, Any] = StoreReader(self._store.path).read(token_type, layer, first, last)
        readable = np.ones(last - first, dtype=bool)  # images that could not be read are NaN already
        chunks = image_chunks(geometry.shard_layout(token_type), values, readable, fill_value(geometry.dtype))
        digest = 0
        for parts in chunks:
            digest = extend_checksum(digest, checksum(*parts))
        return digest

    def _record(self, block: int) -> Record | None:
        if block not in self._records:
            self._records[block] = self._store.record(block)
        return self._records[block]
