"""Write the blocks of a store: one sequential write per array, then the flags, then the done record.

The order makes a kill at any moment harmless. Shards are written and synced under temporary names; for a block that was
finished before, its record announces them; they are renamed; `readable` and `complete` follow; the record comes last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cachetool.errors import DamagedError, StoreError
from cachetool.objects import AnyPlace, Place, place, worked_on
from cachetool.store.atomic import Staged, remove_file, remove_leftovers, write_atomically
from cachetool.store.chunks import image_chunks, kept_chunks
from cachetool.store.dtypes import fill_value, storage_dtype
from cachetool.store.extend import Facts, SmallArray, add_arrays, merge_facts
from cachetool.store.format import StoreSpec
from cachetool.store.lock import living_owners, remove_dead_locks
from cachetool.store.mapped_shard import MappedShard
from cachetool.store.opened import OpenedStore
from cachetool.store.records import FileFacts, Record, record_path, records_folder, write_record
from cachetool.store.shards import Buffer, HeldShard, Shard, ShardLayout, encode
from cachetool.store.tables import encode_chunk

Arrays = Mapping[str, npt.NDArray[Any]]


class StoreWriter:
    """Fill a store block by block. One block must have one writer at a time (see `lock`)."""

    def __init__(self, path: AnyPlace) -> None:
        """Open an existing store and remove what killed processes left behind.

        Raises `MissingDataError`, `StoreError` or `DamagedError` as `StoreReader` does.
        """
        self.path = place(path)
        self._store = OpenedStore(self.path)
        remove_dead_locks(self.path)
        owners = living_owners(self.path)
        # Who writes under a shared lock on other hosts is not known here: what they have in hand must stay.
        known = not any(owner.shared for owner in owners)
        writers = {(owner.host, owner.process) for owner in owners} if known else None
        for folder in (self.path, records_folder(self.path), *(self.path / name for name in self._store.root.arrays)):
            remove_leftovers(folder, writers=writers)
        self._restore_flags()

    @property
    def spec(self) -> StoreSpec:
        """What the store says about itself, facts written through this writer included."""
        return self._store.spec()

    def pending(
        self, layers: Sequence[int], token_types: Sequence[str], blocks: Sequence[int] | None = None
    ) -> list[int]:
        """Blocks, of all or of some, that are not finished for these states and token types.

        A block counts as finished only by a done record whose files exist with the recorded sizes.
        Raises `StoreError` naming every state or token type that the store has no place for.
        """
        self._check_coverage(layers, token_types)
        asked = range(self._store.geometry.blocks) if blocks is None else blocks
        covered = worked_on(partial(self._covered, layers, token_types), asked, self.path)
        return [block for block, done in zip(asked, covered, strict=True) if not done]

    def write_block(
        self,
        block: int,
        arrays: Arrays,
        layers: Sequence[int],
        failed: Mapping[str, str] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> int:
        """Write states of one block and mark them finished; states that it already holds stay.

        Parameters
        ----------
        block
            Number of the block.
        arrays
            By token type, all images of the block: (layer, image, channel) for `cls`, (layer, image, token, channel)
            for the others, in the storage dtype (uint16 for bfloat16), rows of `layer` as in `layers`.
        layers
            States that the arrays hold.
        failed
            Images that could not be read, id to message: all their values become NaN and `readable` false.
        facts
            JSON to keep in the block's record.

        Returns
        -------
        Bytes written to shards.

        Raises
        ------
        StoreError
            The arrays do not fit the store, or the disk refuses; the block is as it was before.
        DamagedError
            A state that the block already holds is damaged, so that it cannot be kept.
        """
        store, geometry = self._store, self._store.geometry
        images = geometry.block_range(block)
        self._check_arrays(arrays, layers, len(images))
        old = store.sound_record(block)
        unreadable = {**(old.failed if old else {}), **(failed or {})}
        rows = self._rows(images, unreadable)
        with Staged() as staged:
            new: dict[str, FileFacts] = {}
            held = _union(old.layers if old else {}, dict.fromkeys(arrays, layers))
            for token_type, array in arrays.items():
                name = store.shard_name(token_type, block)
                parts = self._encoded(token_type, block, array, layers, rows, old)
                written = staged.add(self.path / name, parts)
                new[name] = store.file_facts(
                    _staged_shard(self.path / name, written, geometry.shard_layout(token_type))
                )
            if old is not None:
                write_record(self.path, _announce(old, new))
            staged.commit()
        record = Record(
            block=block,
            first=images.start,
            last=images.stop,
            layers=held,
            files={**(old.files if old else {}), **new},
            failed=unreadable,
            facts={**(old.facts if old else {}), **(facts or {})},
        )
        self._write_flags(record, rows)
        write_record(self.path, record)
        return sum(file.bytes for file in new.values())

    def discard(self, block: int) -> None:
        """Declare a block unfinished, so that `pending` names it again; how a damaged block is repaired.

        Raises `StoreError` where the disk refuses.
        """
        self._write_complete(block, None)
        remove_file(record_path(self.path, block))

    def restore_flags(self, block: int) -> None:
        """Write `readable` and `complete` of a block again, as its record has them. Raises `StoreError`."""
        record = self._store.sound_record(block)
        if record is None:
            self._write_complete(block, None)
        else:
            self._write_flags(record, self._rows(self._store.geometry.block_range(block), record.failed))

    def write_image_array(
        self,
        name: str,
        data: npt.NDArray[Any],
        dims: Sequence[str],
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Add or replace one small array beside the tokens, as `write_image_arrays` does."""
        self.write_image_arrays({name: SmallArray(data, dims, attrs or {})})

    def write_image_arrays(self, arrays: Mapping[str, SmallArray], facts: Facts | None = None) -> None:
        """Add or replace small arrays beside the tokens by name, such as donors or distances over `image`.

        `facts` are merged as `update_facts` does it, in the same step that makes the arrays part of the store.
        Raises `StoreError` for names that the format uses, and where dimensions do not fit the store or each other.
        """
        add_arrays(self.path, arrays, facts)
        self._store.renew()

    def update_facts(self, facts: Facts) -> None:
        """Merge entries into the facts of the store (JSON; later values replace earlier ones).

        A function is given the facts as they are, while nobody else changes them. Raises `StoreError`.
        """
        merge_facts(self.path, facts)
        self._store.renew()

    def _restore_flags(self) -> None:
        """Flag the last block as finished again where an extension was given up after it had taken the flags away."""
        block = self._store.geometry.blocks - 1
        record = self._store.sound_record(block) if block >= 0 else None
        if record is None:
            return
        try:
            lacking = self._store.flags(record) & ~self._store.array("complete")[block]
        except DamagedError:  # for a repair to mend: records are decisive
            return
        if lacking.any():
            self._write_complete(block, record)

    def _covered(self, layers: Sequence[int], token_types: Sequence[str], block: int) -> bool:
        record = self._store.sound_record(block)
        return record is not None and all(set(layers) <= set(record.layers.get(name, ())) for name in token_types)

    def _check_coverage(self, layers: Sequence[int], token_types: Sequence[str]) -> None:
        self._store.geometry.layer_indices(layers)
        absent = [name for name in token_types if name not in self._store.geometry.token_types]
        if absent:
            raise StoreError(
                f"{self.path} has arrays for {', '.join(self._store.geometry.token_types)}; none for"
                f" {', '.join(absent)}. Extend the store first."
            )

    def _check_arrays(self, arrays: Arrays, layers: Sequence[int], images: int) -> None:
        self._check_coverage(layers, list(arrays))
        geometry = self._store.geometry
        problems = [] if len(set(layers)) == len(layers) else [f"states are named twice: {list(layers)}"]
        for name, array in arrays.items():
            shape = (len(layers), images, *geometry.array(name).inner_shape)
            dtype = storage_dtype(geometry.dtype)
            if array.shape != shape or array.dtype != dtype:
                problems.append(f"{name}: expected {dtype} {shape}, found {array.dtype} {array.shape}")
        if problems:
            raise StoreError(f"The block does not fit {self.path}: " + "; ".join(problems) + ".")

    def _rows(self, images: range, failed: Mapping[str, str]) -> npt.NDArray[np.bool_]:
        """Which images of a block could be read, bool (image,). Raises `StoreError` for ids of other blocks."""
        ids = self._store.images.image_id[images.start : images.stop]
        strange = sorted(set(failed) - set(ids))
        if strange:
            raise StoreError(
                f"These failed images are not in block {images.start} to {images.stop - 1}: {', '.join(strange)}."
            )
        return np.array([name not in failed for name in ids], dtype=bool)

    def _encoded(
        self,
        token_type: str,
        block: int,
        array: npt.NDArray[Any],
        layers: Sequence[int],
        readable: npt.NDArray[np.bool_],
        old: Record | None,
    ) -> Iterator[Buffer]:
        """The shard of one token type: the given states, and those that the block holds already."""
        geometry = self._store.geometry
        layout = geometry.shard_layout(token_type)
        fill = fill_value(geometry.dtype)
        chunks: dict[int, Sequence[Sequence[Buffer]]] = {}
        kept = [layer for layer in old.layers.get(token_type, ()) if layer not in layers] if old else []
        if old is not None and kept:
            shard = self._store.shard(token_type, old)
            chunks = kept_chunks(shard, layout.used_chunks(len(readable)), geometry.layer_indices(kept), kept)
        for index, states in zip(geometry.layer_indices(layers), array, strict=True):
            chunks[index] = image_chunks(layout, states, readable, fill)
        return encode(layout, chunks)

    def _write_flags(self, record: Record, readable: npt.NDArray[np.bool_]) -> None:
        path = self.path / "readable" / f"c.{record.block}"
        if not readable.all() or path.is_file():
            write_atomically(path, encode_chunk(readable, self._store.root.arrays["readable"]))
        self._write_complete(record.block, record)

    def _write_complete(self, block: int, record: Record | None) -> None:
        flags = self._store.flags(record)[np.newaxis]
        write_atomically(
            self.path / "complete" / f"c.{block}.0.0", encode_chunk(flags, self._store.root.arrays["complete"])
        )


def _staged_shard(path: Place, written: Path | bytes, layout: ShardLayout) -> Shard:
    """A shard that is about to take its place: a file under its temporary name, or content that is yet to be put."""
    return HeldShard(path, layout, written) if isinstance(written, bytes) else MappedShard(written, layout)


def _announce(old: Record, new: Mapping[str, FileFacts]) -> Record:
    """The old record, saying that its files may be new ones by now."""
    return replace(old, replacing=dict(new))


def _union(old: Mapping[str, Sequence[int]], new: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(sorted({*old.get(name, ()), *new.get(name, ())})) for name in {**old, **new}}
