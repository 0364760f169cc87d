"""`none`: the intact arm of a comparison."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cachetool.edits.base import Replacement
from cachetool.edits.edit import Edit
from cachetool.edits.selection import Selection
from cachetool.edits.sources import Sources


class Nothing(Replacement):
    """Selects nothing: an unedited replay, with the storage error of every other one."""

    name = "none"
    description = "nothing is edited: the intact arm, replayed from the same state"
    usage = "none"
    kind = "none"

    def values(
        self, sources: Sources, edit: Edit, layer: int, images: NDArray[np.int64], selection: Selection
    ) -> NDArray[np.float32]:
        """No pairs are selected, so there are no values: float32 (0, channel)."""
        return np.empty((len(selection), sources.channels), dtype=np.float32)
