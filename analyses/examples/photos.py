"""The pixels that a model saw, from the data set of a cache."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cachetool.annotations import Annotations

Picture = npt.NDArray[np.uint8]
"""(row, column, rgb), 0 to 255."""


def photo(annotations: Annotations, image: int) -> Picture:
    """One image of a cache as the model saw it, resized and cropped, uint8 (row, column, rgb).

    Raises
    ------
    ImageError
        The file cannot be decoded; names it.
    """
    transform = annotations.transform
    normalized = transform.apply(annotations.dataset.decode(image)).transpose(1, 2, 0)
    values = normalized * np.array(transform.std) + np.array(transform.mean)
    picture: Picture = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return picture


def spread_images(readable: npt.NDArray[np.bool_], count: int) -> list[int]:
    """Positions of `count` readable images, evenly spread over the store; all of them where there are no more."""
    positions = np.flatnonzero(readable)
    chosen = np.linspace(0, len(positions) - 1, min(count, len(positions))).round().astype(np.int64)
    return [int(image) for image in positions[chosen]] if len(positions) else []
