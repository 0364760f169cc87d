"""How much of each pixel a polygon covers, and whether the pixel's centre lies inside it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
RealArray = NDArray[np.floating[Any]]

_SUBSAMPLES: Final = 4  # scan lines a pixel row; coverage along the row is exact


def _crossings(
    starts: FloatArray, ends: FloatArray, lines: FloatArray
) -> tuple[NDArray[np.intp], FloatArray, FloatArray]:
    """Where scan lines y (line,) cross the edges: index of the line, x, and +1 (entering) or -1 (leaving)."""
    below_start, below_end = starts[:, 1] <= lines[:, None], ends[:, 1] <= lines[:, None]
    line, edge = np.nonzero(below_start != below_end)
    start, end = starts[edge], ends[edge]
    x = start[:, 0] + (lines[line] - start[:, 1]) / (end[:, 1] - start[:, 1]) * (end[:, 0] - start[:, 0])
    # A contour that runs clockwise on screen goes up on its left side, where a line from the left enters it.
    return line, x, np.where(end[:, 1] < start[:, 1], np.float32(1.0), np.float32(-1.0))


def coverage(starts: FloatArray, ends: FloatArray, extent: tuple[int, int]) -> FloatArray:
    """Share of each pixel (row, column) inside the contours: exact along the row, a few scan lines down it."""
    height, width = extent
    lines = (np.arange(height * _SUBSAMPLES, dtype=np.float32) + 0.5) / np.float32(_SUBSAMPLES)
    line, x, sign = _crossings(starts, ends, lines)
    x = np.clip(x, 0.0, width)
    column = np.floor(x).astype(np.intp)
    part = sign * (x - column)
    # Each crossing adds its sign to all pixels on its right and a share of it to the pixel it cuts: a running sum.
    flat = line * (width + 2) + column
    total = len(lines) * (width + 2)
    steps = np.bincount(flat, sign - part, total) + np.bincount(flat + 1, part, total)
    covered = np.cumsum(steps.reshape(len(lines), width + 2), axis=1)[:, :width]
    # Clipped before the mean: parts of an outline that overlap count once.
    sampled = np.clip(covered, 0.0, 1.0).reshape(height, _SUBSAMPLES, width)
    return np.asarray(sampled.mean(axis=1), dtype=np.float32)


def inside(starts: FloatArray, ends: FloatArray, extent: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether the centre of each pixel (row, column) lies inside the contours."""
    height, width = extent
    line, x, sign = _crossings(starts, ends, np.arange(height, dtype=np.float32) + np.float32(0.5))
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.intp)
    steps = np.bincount(line * (width + 1) + column, sign, height * (width + 1)).reshape(height, width + 1)
    return np.asarray(np.cumsum(steps, axis=1)[:, :width] > 0.5)
