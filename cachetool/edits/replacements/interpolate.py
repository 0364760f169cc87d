"""`interpolate`: a dose between the intact token and another replacement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cachetool.edits.base import Replacement
from cachetool.edits.edit import Edit
from cachetool.edits.grammar import format_number, parse_number
from cachetool.edits.registry import parse_replacement
from cachetool.edits.selection import Selection
from cachetool.edits.sources import Sources
from cachetool.errors import InvalidEditError

MOST_NESTED = 8
"""Doses of doses that are taken apart."""


class Interpolate(Replacement):
    """Puts in (1 - dose) x intact + dose x other: 0 is the intact token, 1 the other replacement."""

    name = "interpolate"
    description = "a dose from 0 (the intact token) to 1 (another replacement)"
    usage = "interpolate:OTHER:DOSE"

    def __init__(self, other: Replacement, dose: float) -> None:
        """Mix the intact token with `other`; `dose` from 0 to 1."""
        self.other = other
        self.dose = dose
        self.argument = f"{other}:{format_number(dose)}"
        self.oracle = other.oracle
        self.needs = other.needs | {"stored-states"}
        self.random = other.random
        self.varies = other.varies

    @classmethod
    def parse(cls, argument: str | None) -> Self:
        """Read OTHER:DOSE; OTHER may have arguments of its own."""
        other, _, dose_text = (argument or "").rpartition(":")
        dose = parse_number(dose_text)
        if not other or dose is None or not 0 <= dose <= 1:
            raise InvalidEditError(
                f"'interpolate' needs another replacement and a dose from 0 to 1, as in 'interpolate:mean:0.5'; "
                f"found {argument or 'nothing'!r}"
            )
        if other.startswith(f"{cls.name}:" * MOST_NESTED):
            raise InvalidEditError(f"more than {MOST_NESTED} times 'interpolate' in each other; multiply the doses")
        replacement = parse_replacement(other)
        if replacement.kind != "values":
            raise InvalidEditError(
                f"'interpolate' mixes the values of two tokens, but {replacement.name!r} puts in no values; "
                "choose a replacement such as 'mean'"
            )
        return cls(replacement, abs(dose))

    def check(self, sources: Sources, edit: Edit) -> None:
        """What the other replacement checks."""
        self.other.check(sources, edit)

    def check_early(self, image_ids: Sequence[str]) -> None:
        """What the other replacement checks."""
        self.other.check_early(image_ids)

    def key_parts(self, sources: Sources, edit: Edit) -> dict[str, str]:
        """What the other replacement depends on."""
        return self.other.key_parts(sources, edit)

    def donors(self, sources: Sources, edit: Edit, layer: int) -> NDArray[np.int64] | None:
        """The other replacement's donors."""
        return self.other.donors(sources, edit, layer)

    def values(
        self, sources: Sources, edit: Edit, layer: int, images: NDArray[np.int64], selection: Selection
    ) -> NDArray[np.float32]:
        """The mixture, float32 (pair, channel)."""
        intact = sources.tokens(layer, selection.token_type, images, selection.token)
        other = self.other.values(sources, edit, layer, images, selection)
        return np.float32(1 - self.dose) * intact + np.float32(self.dose) * other
