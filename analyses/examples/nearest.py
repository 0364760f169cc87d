"""What the patches nearest to each register show: cut out of the images, with their surroundings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import xarray as xr

from analyses.examples.photos import Picture, photo
from cachetool.annotations import Annotations

CONTEXT = 1
"""Patches shown on every side of the patch itself."""


@dataclass(frozen=True)
class NearestPatch:
    """One patch, cut out of its image."""

    layer: int
    """State of the tokens that were compared."""
    register: int
    """Register that it is near to."""
    rank: int
    """0 for the nearest."""
    image: int
    """Position of the image in the cache."""
    image_id: str
    """Id of the image."""
    row: int
    """Row of the patch in the grid."""
    col: int
    """Column of the patch in the grid."""
    cosine: float
    """Cosine with the register's mean over images."""
    cutout: Picture
    """The patch and `CONTEXT` patches around it, the border repeated beyond the image, uint8 (row, column, rgb)."""


def nearest_cutouts(found: xr.Dataset, annotations: Annotations, *, count: int = 8) -> list[NearestPatch]:
    """Cut the patches that `analyses.geometry.nearest_patches` found out of their images.

    Parameters
    ----------
    found
        What the analysis returned, loaded.
    annotations
        The data set of the same cache.
    count
        Nearest patches per register and layer.

    Raises
    ------
    ImageError
        A file cannot be decoded; names it.
    """
    side = round(annotations.patch_size)
    margin = CONTEXT * side

    @lru_cache(maxsize=64)
    def framed(image: int) -> Picture:
        return np.pad(photo(annotations, image), ((margin, margin), (margin, margin), (0, 0)), mode="edge")

    cutouts = []
    for layer in found.layer.values.tolist():
        for register in range(found.sizes["register"]):
            for rank in range(min(count, found.sizes["rank"])):
                one = found.sel(layer=layer).isel(register=register, rank=rank)
                image, row, col = (int(one[f"nearest_{name}"]) for name in ("image", "row", "col"))
                if image < 0:
                    continue
                top, left = row * side, col * side
                width = side + 2 * margin
                cutouts.append(
                    NearestPatch(
                        layer, register, rank, image, str(annotations.image_ids[image]), row, col, float(one.cosine),
                        framed(image)[top : top + width, left : left + width],
                    )
                )  # fmt: skip
    return cutouts
