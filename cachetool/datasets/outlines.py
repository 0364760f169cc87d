"""Outlines of the ten objects of ``shapes``: polygons in a canonical frame, with their semantic keypoints.

In the frame, x runs to the right and y downwards, and every object lies within about the unit disc.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Edges:
    """Directed edges of closed contours; outer contours run clockwise on screen, holes the other way."""

    start: FloatArray  # (edge, xy)
    end: FloatArray  # (edge, xy)


@dataclass(frozen=True)
class Shape:
    """One object: what is drawn, and the points that correspond between its drawings."""

    name: str
    outline: Edges
    details: Edges | None  # painted in a second colour, inside the outline
    keypoint_names: tuple[str, ...]
    keypoints: FloatArray  # (keypoint, xy)
    area: float  # of the outline; overlaps of its parts counted twice


Points = Sequence[tuple[float, float]]


def _edges(contours: Sequence[Points], holes: Sequence[Points] = ()) -> tuple[Edges, float]:
    starts, ends, area = [], [], 0.0
    for contour, direction in [(c, 1.0) for c in contours] + [(h, -1.0) for h in holes]:
        points = np.asarray(contour, dtype=np.float64)
        following = np.roll(points, -1, axis=0)
        signed = 0.5 * float(np.sum(points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]))
        area += direction * abs(signed)
        if signed * direction < 0:
            points, following = following[::-1], points[::-1]
        starts.append(points)
        ends.append(following)
    return Edges(np.concatenate(starts).astype(np.float32), np.concatenate(ends).astype(np.float32)), area


def _shape(
    name: str,
    keypoints: dict[str, tuple[float, float]],
    contours: Sequence[Points],
    holes: Sequence[Points] = (),
    details: Sequence[Points] = (),
) -> Shape:
    outline, area = _edges(contours, holes)
    inner = _edges(details)[0] if details else None
    return Shape(name, outline, inner, tuple(keypoints), np.asarray(list(keypoints.values()), dtype=np.float32), area)


def _arc(
    x: float, y: float, rx: float, ry: float, first: float, last: float, steps: int = 24
) -> list[tuple[float, float]]:
    """Points of an elliptic arc; degrees, 0 to the right, 90 downwards."""
    return [
        (x + rx * math.cos(angle), y + ry * math.sin(angle))
        for angle in (math.radians(first + (last - first) * step / steps) for step in range(steps + 1))
    ]


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _arrow() -> Shape:
    points = {
        "tip": (0.0, -1.0),
        "head right": (0.75, -0.2),
        "notch right": (0.28, -0.2),
        "tail right": (0.28, 0.95),
        "tail left": (-0.28, 0.95),
        "notch left": (-0.28, -0.2),
        "head left": (-0.75, -0.2),
    }
    return _shape("arrow", points, [list(points.values())], details=[_rectangle(-0.28, 0.62, 0.28, 0.76)])


def _bottle() -> Shape:
    right = [(0.19, -1.0), (0.19, -0.55), (0.25, -0.42), (0.38, -0.27), (0.44, -0.12), (0.44, 0.9), (0.37, 1.0)]
    points = {
        "mouth left": (-0.19, -1.0),
        "mouth right": (0.19, -1.0),
        "shoulder left": (-0.44, -0.12),
        "shoulder right": (0.44, -0.12),
        "label centre": (0.0, 0.36),
        "base left": (-0.42, 0.95),
        "base right": (0.42, 0.95),
    }
    details = [_rectangle(-0.44, 0.08, 0.44, 0.64), _rectangle(-0.19, -1.0, 0.19, -0.82)]
    return _shape("bottle", points, [right + [(-x, y) for x, y in reversed(right)]], details=details)


def _crescent() -> Shape:
    outer, inner, shift = 0.95, 0.74, 0.46
    x = (outer**2 - inner**2 + shift**2) / (2.0 * shift)  # where the two circles meet
    y = math.sqrt(outer**2 - x**2)
    first, second = math.degrees(math.atan2(y, x)), math.degrees(math.atan2(y, x - shift))
    contour = _arc(0.0, 0.0, outer, outer, first, 360.0 - first, 40)
    contour += _arc(shift, 0.0, inner, inner, 360.0 - second, second, 32)
    diagonal = outer * math.sqrt(0.5)
    points = {
        "upper horn": (x, -y),
        "outer upper": (-diagonal, -diagonal),
        "outer middle": (-outer, 0.0),
        "inner middle": (shift - inner, 0.0),
        "outer lower": (-diagonal, diagonal),
        "lower horn": (x, y),
    }
    spots = [_arc(-0.62, -0.2, 0.12, 0.12, 0, 360), _arc(-0.52, 0.3, 0.09, 0.09, 0, 360)]
    return _shape("crescent", points, [contour], details=spots)


def _cross() -> Shape:
    half, arm, middle = 0.22, 0.72, -0.3
    upright, beam = _rectangle(-half, -1.0, half, 1.0), _rectangle(-arm, middle - half, arm, middle + half)
    points = {
        "top": (0.0, -1.0),
        "right end": (arm, middle),
        "bottom": (0.0, 1.0),
        "left end": (-arm, middle),
        "upper left corner": (-half, middle - half),
        "upper right corner": (half, middle - half),
        "lower right corner": (half, middle + half),
        "lower left corner": (-half, middle + half),
    }
    return _shape("cross", points, [upright, beam], details=[_arc(0.0, middle, 0.13, 0.13, 0, 360)])


def _fish() -> Shape:
    body = _arc(-0.2, 0.0, 0.78, 0.46, 0, 360, 40)
    tail = [(0.35, 0.0), (1.0, -0.5), (0.82, 0.0), (1.0, 0.5)]
    fin = [(-0.4, -0.38), (0.05, -0.78), (0.22, -0.32)]
    points = {
        "mouth": (-0.98, 0.0),
        "eye": (-0.62, -0.1),
        "dorsal fin": (0.05, -0.78),
        "belly": (-0.2, 0.46),
        "tail notch": (0.82, 0.0),
        "tail top": (1.0, -0.5),
        "tail bottom": (1.0, 0.5),
    }
    gill = _arc(-0.5, 0.0, 0.24, 0.3, -70, 70) + _arc(-0.56, 0.0, 0.24, 0.3, 70, -70)
    return _shape("fish", points, [body, tail, fin], details=[_arc(-0.62, -0.1, 0.09, 0.09, 0, 360), gill])


def _heart() -> Shape:
    def curve(t: float) -> tuple[float, float]:
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        return 16 * math.sin(t) ** 3 / 17.0, -(y + 2.5) / 15.5

    contour = [curve(2.0 * math.pi * step / 48) for step in range(48)]
    top, side = math.radians(51.0), math.radians(90.0)
    points = {
        "notch": curve(0.0),
        "lobe right": curve(top),
        "side right": curve(side),
        "tip": curve(math.pi),
        "side left": curve(-side),
        "lobe left": curve(-top),
    }
    return _shape("heart", points, [contour], details=[_arc(-0.44, -0.42, 0.2, 0.13, 0, 360)])


def _house() -> Shape:
    walls, roof = _rectangle(-0.72, -0.2, 0.72, 0.9), [(-0.95, -0.2), (0.0, -0.95), (0.95, -0.2)]
    points = {
        "ridge": (0.0, -0.95),
        "chimney": (0.53, -0.92),
        "eave right": (0.95, -0.2),
        "base right": (0.72, 0.9),
        "door": (-0.29, 0.55),
        "base left": (-0.72, 0.9),
        "eave left": (-0.95, -0.2),
    }
    details = [roof, _rectangle(-0.48, 0.2, -0.1, 0.9), _rectangle(0.12, 0.12, 0.5, 0.5)]
    return _shape("house", points, [walls, roof, _rectangle(0.4, -0.92, 0.66, -0.35)], details=details)


def _key() -> Shape:
    shaft = [(-0.15, -0.2), (0.15, -0.2), (0.15, 0.4), (0.52, 0.4), (0.52, 0.58), (0.15, 0.58)]
    shaft += [(0.15, 0.74), (0.42, 0.74), (0.42, 0.92), (0.15, 0.92), (0.15, 1.0), (-0.15, 1.0)]
    points = {
        "bow top": (0.0, -1.0),
        "bow right": (0.48, -0.52),
        "bow left": (-0.48, -0.52),
        "hole": (0.0, -0.52),
        "upper tooth": (0.52, 0.49),
        "lower tooth": (0.42, 0.83),
        "shaft end": (0.0, 1.0),
    }
    ring, hole = _arc(0.0, -0.52, 0.48, 0.48, 0, 360, 32), _arc(0.0, -0.52, 0.22, 0.22, 0, 360)
    return _shape("key", points, [ring, shaft], [hole], details=[_rectangle(-0.15, 0.05, 0.15, 0.18)])


def _mug() -> Shape:
    body = [(-0.75, -0.75), (0.45, -0.75), (0.45, 0.6), (0.3, 0.78), (-0.6, 0.78), (-0.75, 0.6)]
    handle = _arc(0.42, -0.02, 0.56, 0.5, -90, 90) + _arc(0.42, -0.02, 0.34, 0.28, 90, -90)
    points = {
        "rim left": (-0.75, -0.75),
        "rim right": (0.45, -0.75),
        "handle top": (0.45, -0.41),
        "handle middle": (0.98, -0.02),
        "handle bottom": (0.45, 0.37),
        "base right": (0.38, 0.69),
        "base left": (-0.68, 0.69),
    }
    return _shape("mug", points, [body, handle], details=[_rectangle(-0.75, -0.2, 0.45, 0.15)])


def _star() -> Shape:
    def vertex(step: int) -> tuple[float, float]:
        radius, angle = (1.0, 0.45)[step % 2], math.radians(36.0 * step - 90.0)
        return radius * math.cos(angle), radius * math.sin(angle)

    names = ("top", "upper right", "lower right", "lower left", "upper left")
    points = {name: vertex(2 * number) for number, name in enumerate(names)} | {"crotch": vertex(5)}
    return _shape("star", points, [[vertex(step) for step in range(10)]], details=[_arc(0.0, 0.0, 0.2, 0.2, 0, 360)])


_BUILDERS: Final[tuple[Callable[[], Shape], ...]] = (
    _arrow, _bottle, _crescent, _cross, _fish, _heart, _house, _key, _mug, _star,
)  # fmt: skip
SHAPES: Final[tuple[Shape, ...]] = tuple(build() for build in _BUILDERS)

CLASS_NAMES: Final[tuple[str, ...]] = tuple(shape.name for shape in SHAPES)
"""Names of the ten classes, by class index."""
