"""What the three shuffles share: tokens of a donor image, which is drawn once and remembered."""

from __future__ import annotations

from abc import ABC
from hashlib import sha256
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cachetool.edits.base import Replacement
from cachetool.edits.donors import Rule, draw_donors
from cachetool.edits.edit import Edit
from cachetool.edits.selection import Selection
from cachetool.edits.sources import Sources


class ShuffleReplacement(Replacement, ABC):
    """Puts in the intact token of a donor image, of the same type and index, at the same state."""

    rule: ClassVar[Rule]
    """Who may donate."""
    needs = frozenset({"stored-states"})
    random = True
    varies = True

    def __init__(self) -> None:
        """Start without drawn donors."""
        self._drawn_for: tuple[Sources, int] | None = None
        self._drawn: dict[int | None, NDArray[np.int64]] = {}

    def donors(self, sources: Sources, edit: Edit, layer: int) -> NDArray[np.int64]:
        """Index of each image's donor at one state, int64 (image,), -1 for images that could not be read."""
        if self._drawn_for is None or self._drawn_for[0] is not sources or self._drawn_for[1] != edit.seed:
            self._drawn_for, self._drawn = (sources, edit.seed), {}
        drawn_for_layer = layer if edit.fresh_per_layer else None
        if drawn_for_layer not in self._drawn:
            donors = draw_donors(sources.images, sources.readable, self.rule, edit.seed, drawn_for_layer)
            self._drawn[drawn_for_layer] = donors
        return self._drawn[drawn_for_layer]

    def check(self, sources: Sources, edit: Edit) -> None:
        """Draw donors, so that what makes that impossible is known before the replay."""
        self.donors(sources, edit, edit.from_layer)

    def key_parts(self, sources: Sources, edit: Edit) -> dict[str, str]:
        """Digest of the images that take part: in a cache that has grown, an image has another donor."""
        taking_part = sha256()
        for image_id, readable in zip(sources.images.image_id, sources.readable, strict=True):
            taking_part.update(f"{image_id}\n{int(readable)}\n".encode())
        return {"donor_images": taking_part.hexdigest()}

    def values(
        self, sources: Sources, edit: Edit, layer: int, images: NDArray[np.int64], selection: Selection
    ) -> NDArray[np.float32]:
        """The donors' tokens, float32 (pair, channel)."""
        donors = self.donors(sources, edit, layer)[images]
        return sources.tokens(layer, selection.token_type, donors, selection.token)
