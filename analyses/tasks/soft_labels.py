"""Soft labels of patches: which share of a patch's annotated pixels belongs to each class."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cachetool.annotations import Annotations
from cachetool.datasets import IGNORE


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """One entry for each class that a patch has pixels of, patch by patch; the shares of a patch add up to 1."""

    image: npt.NDArray[np.int64]
    """Position of the image in the cache, (entry,), ascending."""
    patch: npt.NDArray[np.int64]
    """Index of the patch, row by row, (entry,)."""
    label: npt.NDArray[np.int64]
    """Value of the class in masks, (entry,)."""
    share: npt.NDArray[np.float64]
    """Share of the patch's annotated pixels, above 0 and at most 1, (entry,)."""

    def sample(self, patches: int, seed: int) -> SoftLabels:
        """Keep at most so many patches, drawn evenly and without replacement, with all their entries."""
        token = self.image * (1 + self.patch.max(initial=0)) + self.patch
        distinct = np.unique(token)
        if len(distinct) <= patches:
            return self
        generator = np.random.Generator(np.random.Philox(key=seed))
        kept = np.isin(token, generator.choice(distinct, patches, replace=False))
        return self.select(kept)

    def select(self, kept: npt.NDArray[np.bool_]) -> SoftLabels:
        """Keep some entries, (entry,)."""
        return SoftLabels(self.image[kept], self.patch[kept], self.label[kept], self.share[kept])


def patch_shares(mask: npt.NDArray[np.uint8], annotations: Annotations) -> npt.NDArray[np.float64]:
    """Share of each class among the annotated pixels of each patch.

    A pixel of the mask belongs to the patch in which its centre lies after the image became the model's input, so that
    no mask is resized; pixels that a crop cut off belong to none.

    Parameters
    ----------
    mask
        Class of every pixel, (row, column), 255 = not annotated.
    annotations
        Whose geometry, patch grid and classes hold for the mask.

    Returns
    -------
    (patch, class), float64; the sum over classes is 1, or 0 for a patch without annotated pixels.
    """
    height, width = mask.shape
    affine = annotations.geometry(width, height)
    size, rows, columns = annotations.patch_size, annotations.rows, annotations.columns
    diagonal = np.arange(max(height, width), dtype=np.float64)
    # Half a pixel turns centre coordinates into distances from the edge, which patches divide evenly.
    position = np.floor((affine.forward(np.stack([diagonal, diagonal], axis=1)) + 0.5) / size).astype(np.int64)
    column, row = position[:width, 0], position[:height, 1]
    inside = ((row >= 0) & (row < rows))[:, None] & ((column >= 0) & (column < columns))[None, :] & (mask != IGNORE)
    classes = len(annotations.mask_names or ())
    token = (row[:, None] * columns + column[None, :])[inside]
    counts = np.bincount(token * classes + mask[inside], minlength=rows * columns * classes).reshape(-1, classes)
    annotated = counts.sum(axis=1, keepdims=True)
    return np.asarray(counts / np.maximum(annotated, 1), dtype=np.float64)


def soft_labels(
    annotations: Annotations, images: Iterable[int], mask: Callable[[int], npt.NDArray[np.uint8]]
) -> SoftLabels:
    """Soft labels of all patches with annotated pixels.

    Parameters
    ----------
    annotations
        Whose geometry, patch grid and classes hold for the masks.
    images
        Positions of the images in the cache, ascending.
    mask
        Gives the mask (row, column) of an image.
    """
    found: list[tuple[npt.NDArray[np.int64], ...]] = []
    shares: list[npt.NDArray[np.float64]] = []
    for image in images:
        values = patch_shares(mask(image), annotations)
        patch, label = np.nonzero(values)
        found.append((np.full(len(patch), image, dtype=np.int64), patch, label))
        shares.append(values[patch, label])
    if not found:
        empty = np.empty(0, dtype=np.int64)
        return SoftLabels(empty, empty, empty, np.empty(0))
    image_of, patch_of, label_of = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return SoftLabels(image_of, patch_of, label_of, np.concatenate(shares))
