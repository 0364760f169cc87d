"""The class of every pixel from logits of patches: bilinear upsampling, then the argmax."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

NO_CLASS = 255
"""Stands for pixels without a prediction, as 255 stands for pixels without annotation in masks."""

_CLASSES_AT_ONCE = 16  # all 150 classes of a large photograph would take gigabytes; 16 at once are no slower


def upsampled_argmax(logits: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Upsample logits bilinearly and take the best class of each pixel.

    The edges of the patch grid fall on the edges of the result (`align_corners=False`), and beyond the centres of the
    outermost patches their values continue. Memory holds 16 classes at `height` x `width` at once, never all of them.

    Parameters
    ----------
    logits
        (image, class, row, column), at most 255 classes.
    height, width
        Size of the result in pixels.

    Returns
    -------
    Index of the class, uint8 (image, row, column), of equals the first; 255 where a logit that takes part is NaN.
    """
    classes = logits.shape[1]
    if not 1 <= classes <= NO_CLASS:
        raise ValueError(f"expected 1 to {NO_CLASS} classes, found logits of {classes} along their second dimension")
    best, winner = _best(torch.from_numpy(logits[:, :_CLASSES_AT_ONCE]), height, width)
    for first in range(_CLASSES_AT_ONCE, classes, _CLASSES_AT_ONCE):
        value, index = _best(torch.from_numpy(logits[:, first : first + _CLASSES_AT_ONCE]), height, width)
        winner = torch.where(value > best, index + first, winner)
        best = torch.maximum(best, value)  # NaN stays NaN
    return winner.masked_fill_(torch.isnan(best), NO_CLASS).numpy()


def _best(logits: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Value and index (uint8) of the best of a few classes at each pixel, (image, row, column)."""
    # With the classes last in memory both steps run several times as fast.
    interleaved = logits.contiguous(memory_format=torch.channels_last)
    value, index = interpolate(interleaved, size=(height, width), mode="bilinear", align_corners=False).max(dim=1)
    return value, index.to(torch.uint8)
