"""What of a store is finished, by its done records: finished ones are remembered, others looked for again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cachetool.errors import DamagedError, IncompleteError, StoreError
from cachetool.objects import ObjectPath, worked_on
from cachetool.store.mending import advice
from cachetool.store.opened import OpenedStore
from cachetool.store.records import Record, misfits


class FinishedBlocks:
    """The blocks of a store that a reader may rely on."""

    def __init__(self, store: OpenedStore) -> None:
        """Nothing is read yet."""
        self._store = store
        self._records: dict[int, Record] = {}

    def record(self, block: int, *, renew: bool = False) -> Record | None:
        """The record of a block; None where it is not finished. Raises `DamagedError`."""
        if renew or block not in self._records:
            record = self._store.record(block)
            if record is None:
                return None
            self._records[block] = record
        return self._records[block]

    def flags(self) -> npt.NDArray[np.bool_]:
        """What is finished, bool (block, token_type, layer)."""
        blocks = range(self._store.geometry.blocks)
        shape = (0, len(self._store.geometry.layout.types), len(self._store.geometry.layers))
        records = worked_on(self.record, blocks, self._store.path)
        flags = [self._store.flags(record)[np.newaxis] for record in records]
        return np.concatenate([np.zeros(shape, dtype=bool), *flags])

    def sound_record(self, block: int) -> Record:
        """The record of a block whose files have the sizes that it says; those of objects are looked at when opened.

        Raises `IncompleteError` for a block that is not finished, `DamagedError` for files of another size.
        """
        record = self.record(block)
        if record is None or self._misfits(record):
            record = self.record(block, renew=True)
        if record is None:
            raise IncompleteError(
                f"Block {block} of {self._store.path} is not finished. Run `cachetool extract` again."
            )
        if problems := self._misfits(record):
            raise DamagedError(
                f"Block {block} of {self._store.path} does not match its done record: {'; '.join(problems)}."
                f" {advice(self._store.path)}"
            )
        return record

    def _misfits(self, record: Record) -> list[str]:
        return [] if isinstance(self._store.path, ObjectPath) else misfits(self._store.path, record)

    def require(self, token_types: Sequence[str], layers: Sequence[int], blocks: Sequence[int]) -> tuple[int, ...]:
        """Positions of states in the `layer` coordinate.

        Raises `IncompleteError` naming every token type, state and block that is missing, unless all are finished.
        """
        if isinstance(self._store.path, ObjectPath):
            worked_on(self.record, [block for block in blocks if block not in self._records], self._store.path)
        missing = [
            problem for name in token_types for layer in layers for problem in self._missing(name, layer, blocks)
        ]
        if missing:
            raise IncompleteError(
                f"{self._store.path} does not hold all that is needed; missing: {'; '.join(missing)}. Run"
                " `cachetool extract` with these states and token types to complete it."
            )
        return tuple(map(self._store.geometry.layers.index, layers))

    def block_span(self, start: int, stop: int) -> range:
        """The blocks that hold a range of images. Raises `StoreError` for images that are not there."""
        images, size = self._store.geometry.images, self._store.geometry.block
        if not 0 <= start <= stop <= images:
            raise StoreError(f"{self._store.path} has {images} images; {start} to {stop} were asked for.")
        return range(start // size, -(-stop // size)) if stop > start else range(0)

    def _missing(self, token_type: str, layer: int, blocks: Sequence[int]) -> list[str]:
        geometry = self._store.geometry
        if token_type not in geometry.token_types:
            return [f"{token_type} (the store holds {', '.join(geometry.token_types)})"]
        if layer not in geometry.layers:
            return [f"state {layer} of {token_type} (the store holds {list(geometry.layers)})"]
        absent = [block for block in blocks if not self._holds(token_type, layer, block)]
        return [f"state {layer} of {token_type} in the blocks {_ranges(absent)}"] if absent else []

    def _holds(self, token_type: str, layer: int, block: int) -> bool:
        for renew in (False, True):
            record = self.record(block, renew=renew)
            if record is not None and layer in record.layers.get(token_type, ()):
                return True
        return False


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as `0-3, 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
