"""`zero`: the zero vector, which the network never sees in nature."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cachetool.edits.base import Replacement
from cachetool.edits.edit import Edit
from cachetool.edits.selection import Selection
from cachetool.edits.sources import Sources


class Zero(Replacement):
    """Puts in the zero vector."""

    name = "zero"
    description = "the zero vector"
    usage = "zero"

    def values(
        self, sources: Sources, edit: Edit, layer: int, images: NDArray[np.int64], selection: Selection
    ) -> NDArray[np.float32]:
        """Zeros, float32 (pair, channel)."""
        return np.zeros((len(selection), sources.channels), dtype=np.float32)
