"""`mean`: the average token over the calibration images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cachetool.edits.base import Replacement
from cachetool.edits.edit import Edit
from cachetool.edits.selection import Selection
from cachetool.edits.sources import Sources


class Mean(Replacement):
    """Puts in the calibration mean of the same register, of [CLS], or of all patches, at the same state."""

    name = "mean"
    description = "the calibration mean of the same token (pooled over patches) at that layer"
    usage = "mean"
    needs = frozenset({"calibration"})

    def key_parts(self, sources: Sources, edit: Edit) -> dict[str, str]:
        """The calibration's digest."""
        return {"calibration": sources.calibration.digest}

    def values(
        self, sources: Sources, edit: Edit, layer: int, images: NDArray[np.int64], selection: Selection
    ) -> NDArray[np.float32]:
        """Means, float32 (pair, channel)."""
        mean = sources.calibration.mean(layer, selection.token_type).astype(np.float32)
        return mean[sources.calibration.slots(selection.token_type, selection.token)]
