"""Nearest patches by cosine: where in the target's input the patch most similar to a source patch lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

TIE_TOLERANCE = 1e-7
"""Cosines closer than this are equal: two unit vectors that differ by the rounding of float16 (5e-4) have a cosine of
1 - 1e-7, so that patches which are copies of each other tie even after they were stored."""

_BORDER_TOLERANCE = 1e-6  # input pixels; the image's edge, mapped by floating point, still lies in the outermost patch


@dataclass(frozen=True)
class PatchGrid:
    """The patches of a model's input, numbered row by row."""

    rows: int
    columns: int
    patch_size: float
    """Side of a patch in pixels of the input."""

    @cached_property
    def centres(self) -> npt.NDArray[np.float64]:
        """Centre of each patch, (patch, xy) in input pixels; the centre of the top left pixel is (0, 0)."""
        row, column = np.divmod(np.arange(self.rows * self.columns), self.columns)
        return (np.stack([column, row], axis=-1) + 0.5) * self.patch_size - 0.5

    def containing(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Index of the patch that contains each point, floor((xy + 0.5) / patch_size).

        Parameters
        ----------
        points
            (..., xy) in input pixels; NaN stands for no point.

        Returns
        -------
        int64 (...), -1 where there is no point or it lies outside all patches.
        """
        offset = (points + 0.5) / self.patch_size
        counts = np.array([self.columns, self.rows])
        slack = _BORDER_TOLERANCE / self.patch_size
        inside = np.all((offset >= -slack) & (offset <= counts + slack), axis=-1, keepdims=True)
        cell = np.clip(np.floor(np.where(inside, offset, 0.0)), 0, counts - 1).astype(np.int64)
        return np.where(inside[..., 0], cell[..., 1] * self.columns + cell[..., 0], -1)


def cosine_similarity(
    descriptors: npt.NDArray[np.floating[Any]], tokens: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.float64]:
    """Cosine of each descriptor with each token.

    Parameters
    ----------
    descriptors
        (point, channel).
    tokens
        (patch, channel).

    Returns
    -------
    float64 (point, patch); -inf where either vector holds a NaN or has no direction (zero), so that it never matches.
    """
    with np.errstate(invalid="ignore"):
        similarity = _unit_vectors(descriptors) @ _unit_vectors(tokens).T
    return np.where(np.isfinite(similarity), similarity, -np.inf)


def best_patches(similarity: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Index of the most similar patch of each point.

    Parameters
    ----------
    similarity
        (point, patch) as `cosine_similarity` gives it.

    Returns
    -------
    int64 (point,); -1 where no patch can match, and where several are most similar within `TIE_TOLERANCE`: the first of
    them would be right or wrong by its position alone.
    """
    best = similarity.argmax(axis=1)
    highest = np.take_along_axis(similarity, best[:, None], axis=1)
    unique = (similarity >= highest - TIE_TOLERANCE).sum(axis=1) == 1
    return np.where(unique & np.isfinite(highest[:, 0]), best, -1).astype(np.int64)


def centre_positions(best: npt.NDArray[np.int64], grid: PatchGrid) -> npt.NDArray[np.float64]:
    """Centres of the best patches, (point, xy) in input pixels, NaN where there is none (-1)."""
    return np.where((best >= 0)[:, None], grid.centres[best], np.nan)


def soft_positions(
    similarity: npt.NDArray[np.float64],
    best: npt.NDArray[np.int64],
    grid: PatchGrid,
    radius: int,
    temperature: float,
) -> npt.NDArray[np.float64]:
    """Windowed soft-argmax: the mean of the patch centres around the best patch, weighted by their similarity.

    The weights are softmax(cosine / temperature) over the patches of the grid at most `radius` rows and columns away
    from the best one (Zhang et al., "Telling Left from Right", CVPR 2024, arXiv 2311.17034, section 4.2); patches
    outside of the window weigh nothing.

    Parameters
    ----------
    similarity
        (point, patch) as `cosine_similarity` gives it.
    best
        (point,) as `best_patches` gives it.
    grid
        The target's patches.
    radius
        In patches: the window is a square of 2 * radius + 1, cut at the border of the grid.
    temperature
        Above 0; towards 0 the position is that of the argmax.

    Returns
    -------
    float64 (point, xy) in input pixels, NaN where there is no best patch.
    """
    row, column = np.divmod(np.arange(grid.rows * grid.columns), grid.columns)
    best_row, best_column = np.divmod(best, grid.columns)
    window = (np.abs(row - best_row[:, None]) <= radius) & (np.abs(column - best_column[:, None]) <= radius)
    found = best >= 0
    logits = np.where(window & found[:, None], similarity / temperature, -np.inf)
    highest = np.where(found, logits.max(axis=1, initial=-np.inf), 0.0)
    weights = np.exp(logits - highest[:, None])
    total = np.where(found, weights.sum(axis=1), np.nan)
    return np.asarray(weights @ grid.centres / total[:, None], dtype=np.float64)


def _unit_vectors(vectors: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Vectors over their norms, float64; NaN where the norm is 0 or not finite."""
    vectors = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where((norms > 0) & np.isfinite(norms), norms, np.nan)
