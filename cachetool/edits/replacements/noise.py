"""`noise`: Gaussian tokens with the natural mean and variance of each channel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cachetool.edits.base import Replacement
from cachetool.edits.edit import Edit
from cachetool.edits.selection import Selection
from cachetool.edits.sources import Sources
from cachetool.randomness import normals


class Noise(Replacement):
    """Puts in independent Gaussian draws, fresh at each state: that state's mean and variance, channel by channel.

    The covariance is diagonal; the variance is that of the calibration tokens with divisor n (ddof = 0).
    """

    name = "noise"
    description = "Gaussian with the calibration mean and variance of the same token at that layer, channel by channel"
    usage = "noise"
    needs = frozenset({"calibration"})
    random = True

    def key_parts(self, sources: Sources, edit: Edit) -> dict[str, str]:
        """The calibration's digest."""
        return {"calibration": sources.calibration.digest}

    def values(
        self, sources: Sources, edit: Edit, layer: int, images: NDArray[np.int64], selection: Selection
    ) -> NDArray[np.float32]:
        """Draws, float32 (pair, channel), keyed by seed, image id, layer and token."""
        calibration, token_type = sources.calibration, selection.token_type
        slots = calibration.slots(token_type, selection.token)
        image_ids = [sources.images.image_id[image] for image in images]
        drawn = normals(edit.seed, image_ids, layer, selection.token, sources.channels, f"noise/{token_type}")
        drawn *= np.sqrt(calibration.variance(layer, token_type)).astype(np.float32)[slots]
        drawn += calibration.mean(layer, token_type).astype(np.float32)[slots]
        return drawn
