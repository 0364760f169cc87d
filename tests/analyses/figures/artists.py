"""What has been drawn on axes, read back from the artists."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D


def markers(axes: Axes) -> list[Line2D]:
    """The lines that are drawn as markers alone."""
    return [line for line in axes.get_lines() if line.get_linestyle() == "None"]


def points(axes: Axes, marker: str | None = None) -> np.ndarray:
    """Coordinates of all markers, or of those of one shape, (point, xy)."""
    chosen = [line.get_xydata() for line in markers(axes) if marker in (None, line.get_marker())]
    return np.vstack([np.empty((0, 2)), *chosen])


def bars(axes: Axes) -> np.ndarray:
    """Ends of all interval bars, (bar, x0-y0-x1-y1)."""
    found = [
        np.asarray(segment).ravel()
        for collection in axes.collections
        if isinstance(collection, LineCollection)
        for segment in collection.get_segments()
    ]
    return np.vstack([np.empty((0, 4)), *found])


def same_points(found: np.ndarray, expected: np.ndarray) -> None:
    """Assert that two sets of points agree, in any order."""
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], rtol=1e-12)
