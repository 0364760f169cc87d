"""Decoded masks, kept in memory: every arm is scored on the same ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from cachetool.annotations import Annotations


class MaskMemory:
    """Masks by annotations and image, as long as the annotations are in use and as far as a limit allows.

    Once it is full, further masks are decoded each time they are asked for: all images are scored in turn, so throwing
    out old ones for new ones would only mean that none is there when its turn comes again.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Largest number of bytes kept, one a pixel."""
        self._kept: WeakKeyDictionary[Annotations, _Kept] = WeakKeyDictionary()

    @property
    def size(self) -> int:
        """Bytes kept now."""
        return sum(kept.size for kept in self._kept.values())

    def mask(self, annotations: Annotations, image: int) -> npt.NDArray[np.uint8]:
        """Class of every pixel of an image, uint8 (row, column); read-only where it is kept."""
        kept = self._kept.setdefault(annotations, _Kept())
        if image in kept.masks:
            return kept.masks[image]
        mask = annotations.mask(image)
        if self.size + mask.nbytes <= self.limit:
            kept.masks[image] = mask = mask.copy()  # not a view, which would keep more alive than it counts
            kept.size += mask.nbytes
            mask.flags.writeable = False
        return mask


@dataclass
class _Kept:
    """Masks of one data set."""

    masks: dict[int, npt.NDArray[np.uint8]] = field(default_factory=dict)
    size: int = 0
