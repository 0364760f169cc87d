"""Procedural drawing behind the embedded data set ``shapes``.

A scene holds one large object of one of ten classes on a textured background, with up to two clearly smaller objects
of other classes, at times partly behind it. Because every outline is a polygon in a canonical frame, the class, the
mask and the semantic keypoints are exact rather than annotated. A scene depends on ``(seed, split, index)`` alone: each
has its own range of a Philox counter, so scenes can be drawn in any order, by any number of workers.

Two kinds of coordinates occur. Geometry is computed in *edge* coordinates, where pixel ``i`` covers ``[i, i + 1)``;
keypoints are returned in *centre* coordinates, where the centre of pixel ``i`` lies at ``i``. They differ by one half.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
RealArray = NDArray[np.floating[Any]]

BACKGROUND: Final = 0
"""Value of the mask where no object is; class ``c`` has the value ``c + 1``."""

SPLITS: Final[dict[str, int]] = {"train": 0, "val": 1, "calibration": 2}
"""Counter word of each split. A new split gets a new number; changing one redraws its scenes."""

_SUBSAMPLES: Final = 4  # scan lines a pixel row; coverage along the row is exact
_MAX_ROTATION: Final = math.radians(25.0)  # beyond it "top" and "left" would become ambiguous for star and cross
_OBJECT_RADIUS: Final = (0.28, 0.40)  # of the image side
_DISTRACTOR_RATIO: Final = (0.34, 0.46)  # square root of the area, relative to the main object
_DISTRACTORS: Final = (0.3, 0.75)  # cumulative probability of none and of at most one
_SHADOW_OPACITY: Final = 0.35


@dataclass(frozen=True)
class Scene:
    """One drawn picture with its exact annotations."""

    image: NDArray[np.uint8]
    """(row, column, rgb), sRGB values from 0 to 255."""
    mask: NDArray[np.uint8]
    """(row, column), class index + 1 of the topmost object at the pixel's centre; ``BACKGROUND`` elsewhere."""
    label: int
    """Class index of the main object, into ``CLASS_NAMES``."""
    keypoints: FloatArray
    """(keypoint, xy), points of the main object in pixels; the centre of the top left pixel is (0, 0)."""
    keypoint_names: tuple[str, ...]
    """Name of each keypoint; the same for every scene of a class."""
    visible: NDArray[np.bool_]
    """(keypoint,), whether the point lies inside the picture. The main object is never covered."""
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1 of the main object's visible pixels, half-open, in pixels."""


def draw_scene(split: str, index: int, *, size: int = 128, seed: int = 0) -> Scene:
    """Draw scene ``index`` of a split at ``size`` x ``size`` pixels; the same arguments always give the same scene.

    All lengths are shares of the side, so that another ``size`` shows the same scene but for its pixel noise.
    Raises ``ValueError`` for an unknown split, a negative index or seed, or a size below 16 pixels.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r} in shapes; it has {', '.join(SPLITS)}")
    if index < 0 or seed < 0:
        raise ValueError(f"index and seed count from 0, got index {index} and seed {seed}")
    if size < 16:
        raise ValueError(f"shapes are not recognisable below 16 pixels, got size {size}")
    # The generator advances the lowest counter word, so scenes with another index or split can never meet.
    random = np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, 0, SPLITS[split], index]))

    canvas, backdrop = _background(random, size)
    mask = np.full((size, size), BACKGROUND, dtype=np.uint8)
    label = int(random.integers(len(_SHAPES)))
    shape = _SHAPES[label]
    radius = _uniform(random, *_OBJECT_RADIUS) * size
    # A quarter of the radius may leave the picture, so that a few objects are cut by its border.
    slack = max(0.5 * size - 0.8 * radius, 0.0)
    centre = 0.5 * size + slack * (2.0 * random.random(2) - 1.0)

    # The smaller objects come first: whatever follows is painted over them.
    count = int(np.searchsorted(_DISTRACTORS, random.random()))
    for other in random.permutation([c for c in range(len(_SHAPES)) if c != label])[:count]:
        ratio = _uniform(random, *_DISTRACTOR_RATIO) * math.sqrt(shape.area / _SHAPES[other].area)
        # Of a few places the one furthest from the main object, so that most stay at least half visible.
        places = (0.12 + 0.76 * random.random((4, 2))) * size
        place = places[np.argmax(np.hypot(*(places - centre).T))]
        _paint(random, canvas, mask, int(other), _pose(random, place, ratio * radius), backdrop)

    pose = _pose(random, centre, radius)
    _paint(random, canvas, mask, label, pose, backdrop)
    canvas += np.float32(0.015) * random.standard_normal(canvas.shape, dtype=np.float32)
    image = np.clip(canvas * 255.0 + 0.5, 0.0, 255.0).astype(np.uint8)

    points = shape.keypoints @ pose.linear.T + pose.centre
    visible = np.all((points >= 0.0) & (points < size), axis=1)
    rows, columns = np.any(mask == label + 1, axis=1).nonzero()[0], np.any(mask == label + 1, axis=0).nonzero()[0]
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Scene(image, mask, label, (points - 0.5).astype(np.float32), shape.keypoint_names, visible, box)


# --- Shapes: canonical frame, x to the right, y downwards, within about the unit disc ---------------------------------


@dataclass(frozen=True)
class _Edges:
    """Directed edges of closed contours; outer contours run clockwise on screen, holes the other way."""

    start: FloatArray  # (edge, xy)
    end: FloatArray  # (edge, xy)


@dataclass(frozen=True)
class _Shape:
    name: str
    outline: _Edges
    details: _Edges | None  # painted in a second colour, inside the outline
    keypoint_names: tuple[str, ...]
    keypoints: FloatArray  # (keypoint, xy)
    area: float  # of the outline; overlaps of its parts counted twice


@dataclass(frozen=True)
class _Pose:
    linear: FloatArray  # (xy, xy), rotation times scale, canonical frame to pixels
    centre: FloatArray  # (xy,), edge coordinates
    radius: float  # pixels of one canonical unit
    rotation: float  # radians, clockwise on screen


Points = Sequence[tuple[float, float]]


def _edges(contours: Sequence[Points], holes: Sequence[Points] = ()) -> tuple[_Edges, float]:
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
    return _Edges(np.concatenate(starts).astype(np.float32), np.concatenate(ends).astype(np.float32)), area


def _shape(
    name: str,
    keypoints: dict[str, tuple[float, float]],
    contours: Sequence[Points],
    holes: Sequence[Points] = (),
    details: Sequence[Points] = (),
) -> _Shape:
    outline, area = _edges(contours, holes)
    inner = _edges(details)[0] if details else None
    return _Shape(name, outline, inner, tuple(keypoints), np.asarray(list(keypoints.values()), dtype=np.float32), area)


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


def _arrow() -> _Shape:
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


def _bottle() -> _Shape:
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


def _crescent() -> _Shape:
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


def _cross() -> _Shape:
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


def _fish() -> _Shape:
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


def _heart() -> _Shape:
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


def _house() -> _Shape:
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


def _key() -> _Shape:
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


def _mug() -> _Shape:
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


def _star() -> _Shape:
    def vertex(step: int) -> tuple[float, float]:
        radius, angle = (1.0, 0.45)[step % 2], math.radians(36.0 * step - 90.0)
        return radius * math.cos(angle), radius * math.sin(angle)

    names = ("top", "upper right", "lower right", "lower left", "upper left")
    points = {name: vertex(2 * number) for number, name in enumerate(names)} | {"crotch": vertex(5)}
    return _shape("star", points, [[vertex(step) for step in range(10)]], details=[_arc(0.0, 0.0, 0.2, 0.2, 0, 360)])


_BUILDERS: Final[tuple[Callable[[], _Shape], ...]] = (
    _arrow, _bottle, _crescent, _cross, _fish, _heart, _house, _key, _mug, _star,
)  # fmt: skip
_SHAPES: Final[tuple[_Shape, ...]] = tuple(build() for build in _BUILDERS)

CLASS_NAMES: Final[tuple[str, ...]] = tuple(shape.name for shape in _SHAPES)
"""Names of the ten classes, by class index."""


# --- Painting ---------------------------------------------------------------------------------------------------------


def _uniform(random: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * random.random()


def _pose(random: np.random.Generator, centre: NDArray[np.float64], radius: float) -> _Pose:
    rotation = _uniform(random, -_MAX_ROTATION, _MAX_ROTATION)
    cosine, sine = radius * math.cos(rotation), radius * math.sin(rotation)
    linear = np.array([[cosine, -sine], [sine, cosine]], dtype=np.float32)
    return _Pose(linear, centre.astype(np.float32), radius, rotation)


def _colour(random: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> FloatArray:
    """One colour (rgb,) from 0 to 1 of any hue, with saturation and value in the given ranges."""
    hue, chroma, brightness = random.random(), _uniform(random, *saturation), _uniform(random, *value)
    sector = (hue * 6.0 + np.array([5.0, 3.0, 1.0])) % 6.0
    return (brightness * (1.0 - chroma * np.clip(np.minimum(sector, 4.0 - sector), 0.0, 1.0))).astype(np.float32)


def _background(random: np.random.Generator, size: int) -> tuple[FloatArray, FloatArray]:
    """Draw a gradient with clouds and, at times, a faint pattern: (row, column, rgb) and its mean (rgb,)."""
    first, second = (_colour(random, (0.05, 0.5), (0.25, 0.95)) for _ in range(2))
    angle = 2.0 * math.pi * random.random()
    place = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    across = np.float32(math.cos(angle)) * place[None, :] + np.float32(math.sin(angle)) * place[:, None]
    canvas = first + np.clip(across * 0.75 + 0.5, 0.0, 1.0)[:, :, None] * (second - first)

    clouds = np.zeros((size, size), dtype=np.float32)
    for cells, strength in ((4, 0.14), (11, 0.09)):
        knots = np.linspace(-0.5, 0.5, cells)
        weights = np.maximum(1.0 - np.abs(place[:, None] - knots) * (cells - 1), 0.0).astype(np.float32)
        clouds += weights @ (strength * (2.0 * random.random((cells, cells), dtype=np.float32) - 1.0)) @ weights.T
    kind, frequency = int(random.integers(5)), _uniform(random, 4.0, 14.0)
    if kind < 2:
        along = np.float32(math.sin(angle)) * place[None, :] - np.float32(math.cos(angle)) * place[:, None]
        clouds += _pattern(along, across, 2 + kind, frequency) * np.float32(_uniform(random, 0.04, 0.14))
    canvas += clouds[:, :, None]
    return canvas, canvas.mean(axis=(0, 1))


def _pattern(u: RealArray, v: RealArray, kind: int, frequency: float) -> RealArray:
    """Brightness of a texture, 0 to 1, at object coordinates u, v: plain, gradient, stripes, checks or dots."""
    if kind == 0:
        return np.zeros_like(u)
    if kind == 1:
        return np.asarray(np.clip(0.5 + 0.5 * v, 0.0, 1.0))
    wave = np.sin(np.float32(math.pi * frequency) * u)
    if kind > 2:
        wave = wave * np.sin(np.float32(math.pi * frequency) * v)
    # The slope keeps edges about a pixel wide, which stands in for supersampling.
    return np.asarray(np.clip((wave - (0.45 if kind == 4 else 0.0)) * 4.0 + 0.5, 0.0, 1.0))


def _paint(
    random: np.random.Generator,
    canvas: FloatArray,
    mask: NDArray[np.uint8],
    label: int,
    pose: _Pose,
    backdrop: FloatArray,
) -> None:
    """Draw one object with its shadow into ``canvas`` and ``mask``."""
    shape, size = _SHAPES[label], len(mask)
    candidates = np.stack([_colour(random, (0.35, 0.95), (0.3, 1.0)) for _ in range(3)])
    # Of three colours the one furthest from the background: an object should be hard to name, not hard to see.
    colour = candidates[np.argmax(np.abs(candidates - backdrop).sum(axis=1))]
    shade = np.clip(colour * _uniform(random, 0.45, 0.75) + _uniform(random, 0.0, 0.35), 0.0, 1.0)
    accent = _colour(random, (0.1, 0.9), (0.15, 1.0))
    kind, frequency = int(random.integers(5)), _uniform(random, 2.0, 4.5)
    has_details, turn = random.random() < 0.75, 2.0 * math.pi * random.random()

    starts, ends = _place(shape.outline, pose)
    shift = np.float32(0.07 * pose.radius)
    x0, y0 = (int(v) for v in np.clip(np.floor(starts.min(axis=0)), 0, size))
    x1, y1 = (int(v) for v in np.clip(np.ceil(starts.max(axis=0) + shift), 0, size))
    if x0 >= x1 or y0 >= y1:
        return
    origin, extent = np.array([x0, y0], dtype=np.float32), (y1 - y0, x1 - x0)
    region = canvas[y0:y1, x0:x1]

    shadow = _coverage(starts - origin + shift, ends - origin + shift, extent)
    region *= 1.0 - np.float32(_SHADOW_OPACITY) * shadow[:, :, None]

    x = (np.arange(x0, x1, dtype=np.float32) + 0.5 - pose.centre[0]) / np.float32(pose.radius)
    y = (np.arange(y0, y1, dtype=np.float32) + 0.5 - pose.centre[1]) / np.float32(pose.radius)
    cosine, sine = np.float32(math.cos(pose.rotation + turn)), np.float32(math.sin(pose.rotation + turn))
    texture = _pattern(x * cosine + y[:, None] * sine, y[:, None] * cosine - x * sine, kind, frequency)
    paint = colour + texture[:, :, None] * (shade - colour)
    if shape.details is not None and has_details:
        inner_starts, inner_ends = _place(shape.details, pose)
        paint += _coverage(inner_starts - origin, inner_ends - origin, extent)[:, :, None] * (accent - paint)
    region += _coverage(starts - origin, ends - origin, extent)[:, :, None] * (paint - region)
    mask[y0:y1, x0:x1][_inside(starts - origin, ends - origin, extent)] = label + 1


def _place(edges: _Edges, pose: _Pose) -> tuple[FloatArray, FloatArray]:
    return edges.start @ pose.linear.T + pose.centre, edges.end @ pose.linear.T + pose.centre


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


def _coverage(starts: FloatArray, ends: FloatArray, extent: tuple[int, int]) -> FloatArray:
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


def _inside(starts: FloatArray, ends: FloatArray, extent: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether the centre of each pixel (row, column) lies inside the contours."""
    height, width = extent
    line, x, sign = _crossings(starts, ends, np.arange(height, dtype=np.float32) + np.float32(0.5))
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.intp)
    steps = np.bincount(line * (width + 1) + column, sign, height * (width + 1)).reshape(height, width + 1)
    return np.asarray(np.cumsum(steps, axis=1)[:, :width] > 0.5)
