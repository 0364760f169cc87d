"""Edits of a replay by what they share: one read of a state, and what their first block projects of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cachetool.edits import Edit
from cachetool.plan.costs import disk_bytes
from cachetool.replaying.checks import draws
from cachetool.replaying.portions import portions, stored_bytes
from cachetool.replaying.run_blocks import run_block, state_bytes, value_bytes
from cachetool.store import StoreSpec


@dataclass(frozen=True)
class Group:
    """Edits that are replayed on one read of their first state."""

    from_layer: int
    keep: tuple[int, ...]
    """States that their runs hold, ascending."""
    block: int
    """Images of a block of their runs."""
    edits: tuple[Edit, ...]

    def shared(self, spec: StoreSpec, token_types: Sequence[str]) -> int:
        """How many of them find their first state projected; an edit of most tokens has its own projected."""
        return sum(
            max(sum(_leaves_most(self.edits[place], spec) for place in part) - 1, 0)
            for part in self._portions(spec, token_types)
        )

    def disk_bytes(self, spec: StoreSpec, token_types: Sequence[str]) -> int:
        """What their runs take."""
        run = replace(spec, block=self.block)
        return len(self.edits) * disk_bytes(run, len(spec.images), len(self.keep), token_types)

    def memory_bytes(self, spec: StoreSpec, token_types: Sequence[str], *, pinned: bool) -> int:
        """What the host holds: intact states of two blocks and values of two portions, float32, and stored states.

        The latter are what edits of a portion give, what is written meanwhile, and one on its way there. With `pinned`
        the values of one portion are copied once more, for the device.
        """
        images = min(self.block, len(spec.images))
        stored = stored_bytes(spec, images, len(self.keep), token_types)
        cut = self._portions(spec, token_types)
        held = stored * max(map(len, cut))
        values = [images * value_bytes(spec, edit, self.keep[-1]) for edit in self.edits]
        prepared = max(sum(values[part.start : part.stop]) for part in cut)
        return 2 * images * state_bytes(spec) + (2 + pinned) * prepared + held + max(held, 2 * stored) + stored

    def _portions(self, spec: StoreSpec, token_types: Sequence[str]) -> list[range]:
        return portions(spec, self.edits, min(self.block, len(spec.images)), self.keep, token_types)


def _leaves_most(edit: Edit, spec: StoreSpec) -> bool:
    """Whether most tokens stay as they are, as far as is known before tokens are selected."""
    return not draws(edit) or 2 * edit.parsed_target().most(spec.layout) <= spec.layout.tokens


def group_edits(spec: StoreSpec, edits: Sequence[Edit], keep_all: bool, keep: Sequence[int]) -> list[Group]:
    """Edits by first state and by how their runs are cut."""
    found: dict[tuple[int, tuple[int, ...], int], list[Edit]] = defaultdict(list)
    for edit in edits:
        kept = tuple(range(edit.from_layer, spec.layers[-1] + 1)) if keep_all else tuple(keep)
        found[edit.from_layer, kept, run_block(spec, edit, kept)].append(edit)
    return [Group(*key, tuple(together)) for key, together in found.items()]
