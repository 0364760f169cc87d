"""Names beside points that overlap neither each other nor the points, with a line to the point where they stand off."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.path import Path

Floats = npt.NDArray[np.float64]

_DIRECTIONS = np.deg2rad(np.arange(90, 450, 15))
_GAPS = (3.5, 7, 11, 16, 22, 29, 37, 46, 56, 67, 80, 95, 112)
"""Distances from the point to its name that are tried, in typographic points."""

_MARKER, _THIN = 4.0, 1.0
"""Half the width that is kept free around a marker, and around a bar or line, in typographic points."""

_BESIDE = 7
"""A name farther off than this gets a line to its point, in typographic points."""

_NEAR = 0.4
"""What a place costs for each typographic point that it is farther off, in square pixels of overlap."""

_STEPS = np.linspace(0, 1, 10)[2:]
"""Where along a line to look for what it crosses; it may touch what lies beside its own point."""


def place_labels(
    axes: Axes,
    texts: Sequence[str],
    points: npt.ArrayLike,
    colours: Sequence[str],
    *,
    bars: npt.ArrayLike = (),
    size: float = 7,
) -> None:
    """Write each text near its point, where it is free; lines and texts that the axes hold already are kept clear of.

    A greedy search: points from the most crowded on, places from the nearest on; the place that covers least where
    none is free. The figure must have its final layout and limits (`Figure.draw_without_rendering`).

    Parameters
    ----------
    texts
        Names of the points, (point,).
    points
        Where they lie in data coordinates, float64 (point, xy).
    colours
        Colour of each name, (point,).
    bars
        Upright bars to keep clear of, in data coordinates, float64 (bar, x-low-high).
    size
        Font size in typographic points.
    """
    places = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    pixels = axes.transData.transform(places)
    # Pixels per typographic point: places are sought in pixels and set in points, which hold at any resolution.
    scale = axes.figure.dpi / 72
    written = [text.get_window_extent() for text in axes.texts]
    obstacles = np.vstack(
        [
            _around(pixels, _MARKER * scale),
            _bars(axes, np.asarray(bars, dtype=np.float64).reshape(-1, 3), _THIN * scale),
            np.array([box.extents for box in written]).reshape(-1, 4),
            _around(_along_lines(axes), _THIN * scale),
        ]
    )
    frame = axes.get_window_extent().extents
    for index in _most_crowded_first(pixels):
        label = axes.annotate(
            texts[index],
            xy=(places[index, 0], places[index, 1]),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            color=colours[index],
            zorder=5,
        )
        # A name lies inside its panel: it must not change the layout in which its place was found.
        label.set_in_layout(False)
        extent = label.get_window_extent()
        half = np.array([extent.width, extent.height]) / 2
        offsets, gaps = _offsets(half, scale)
        boxes = np.hstack([pixels[index] + offsets - half, pixels[index] + offsets + half])
        ends = np.clip(pixels[index], boxes[:, :2], boxes[:, 2:])
        # (step, place, xy): the line that would join point and name.
        lines = pixels[index] + _STEPS[:, None, None] * (ends - pixels[index])
        crossed = sum(_overlap(_around(step, 1), obstacles) for step in lines)
        outside = (boxes[:, :2] < frame[:2]).any(axis=1) | (boxes[:, 2:] > frame[2:]).any(axis=1)
        best = int(np.argmin(_overlap(boxes, obstacles) + crossed + 1e4 * outside + _NEAR * gaps))
        label.set_position((offsets[best, 0] / scale, offsets[best, 1] / scale))
        obstacles = np.vstack([obstacles, boxes[best]])
        if gaps[best] > _BESIDE:
            _join(axes, places[index], (ends[best] - pixels[index]) / scale, colours[index])
            obstacles = np.vstack([obstacles, _around(lines[:, best], _THIN * scale)])


def _offsets(half: Floats, scale: float) -> tuple[Floats, Floats]:
    """Middles of the places to try, in pixels from the point (place, xy), and their gaps (place,), nearest first."""
    unit = np.column_stack([np.cos(_DIRECTIONS), np.sin(_DIRECTIONS)])
    # The name's own half size is added along the direction, so that the gap is clear space.
    own = half * unit / np.abs(unit).max(axis=1, keepdims=True)
    gaps = np.repeat(np.array(_GAPS), len(unit))
    return np.tile(own, (len(_GAPS), 1)) + scale * gaps[:, None] * np.tile(unit, (len(_GAPS), 1)), gaps


def _around(middles: Floats, half: float) -> Floats:
    """Squares (point, left-bottom-right-top) around points (point, xy)."""
    return np.hstack([middles - half, middles + half])


def _bars(axes: Axes, bars: Floats, half: float) -> Floats:
    """Rectangles around upright bars."""
    low, high = (axes.transData.transform(bars[:, [0, end]]) for end in (1, 2))
    return np.hstack([low - half, high + half])


def _along_lines(axes: Axes) -> Floats:
    """Points close together on every line of the axes, in pixels (point, xy)."""
    # First to pixels: a line that is straight on the screen is not so on a logarithmic axis.
    drawn = [
        np.asarray(Path(line.get_transform().transform(line.get_xydata())).interpolated(60).vertices)
        for line in axes.get_lines()
        if line.get_linestyle() != "None"
    ]
    return np.vstack([np.empty((0, 2)), *drawn])


def _overlap(boxes: Floats, obstacles: Floats) -> Floats:
    """Area of each box, in square pixels, that obstacles cover, (box,)."""
    low = np.maximum(boxes[:, None, :2], obstacles[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], obstacles[None, :, 2:])
    area: Floats = np.maximum(high - low, 0).prod(axis=2).sum(axis=1)
    return area


def _most_crowded_first(pixels: Floats) -> list[int]:
    """Points with the nearest company first: they have the fewest places to choose from."""
    distances = np.linalg.norm(pixels[:, None] - pixels[None], axis=2)
    return [int(index) for index in np.argsort((1 / (distances + 10)).sum(axis=1) * -1, kind="stable")]


def _join(axes: Axes, place: Floats, end: Floats, colour: str) -> None:
    """A thin line from a point in data coordinates to where its name begins, in typographic points from it."""
    line = axes.annotate(
        "",
        xy=(place[0], place[1]),
        xytext=(end[0], end[1]),
        textcoords="offset points",
        arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": colour, "shrinkA": 0, "shrinkB": 3},
        zorder=1.5,
    )
    line.set_in_layout(False)
