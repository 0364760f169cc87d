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
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cachetool.datasets.outlines import SHAPES, Edges
from cachetool.datasets.polygons import coverage, inside

FloatArray = NDArray[np.float32]
RealArray = NDArray[np.floating[Any]]

BACKGROUND: Final = 0
"""Value of the mask where no object is; class ``c`` has the value ``c + 1``."""

SPLITS: Final[dict[str, int]] = {"train": 0, "val": 1, "calibration": 2}
"""Counter word of each split. A new split gets a new number; changing one redraws its scenes."""

_MAX_ROTATION: Final = math.radians(25.0)  # beyond it "top" and "left" would become ambiguous for star and cross
_OBJECT_RADIUS: Final = (0.28, 0.40)  # of the image side
_DISTRACTOR_RATIO: Final = (0.34, 0.46)  # square root of the area, relative to the main object
_DISTRACTORS: Final = (0.3, 0.75)  # cumulative probability of none and of at most one
_SHADOW_OPACITY: Final = 0.35


@dataclass(frozen=True)
class Landmarks:
    """What is known of the main object of a scene."""

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


@dataclass(frozen=True)
class Scene(Landmarks):
    """One drawn picture with its exact annotations."""

    image: NDArray[np.uint8]
    """(row, column, rgb), sRGB values from 0 to 255."""
    mask: NDArray[np.uint8]
    """(row, column), class index + 1 of the topmost object at the pixel's centre; ``BACKGROUND`` elsewhere."""


def draw_scene(split: str, index: int, *, size: int = 128, seed: int = 0) -> Scene:
    """Draw scene ``index`` of a split at ``size`` x ``size`` pixels; the same arguments always give the same scene.

    All lengths are shares of the side, so that another ``size`` shows the same scene but for its pixel noise.
    Raises ``ValueError`` for an unknown split, a negative index or seed, or a size below 16 pixels.
    """
    random = _random(split, index, seed)
    if size < 16:
        raise ValueError(f"shapes are not recognisable below 16 pixels, got size {size}")
    canvas, backdrop = _background(random, size)
    mask = np.full((size, size), BACKGROUND, dtype=np.uint8)
    objects = _objects(random, size, backdrop)
    for one in objects:
        if (crop := _crop(one, size)) is not None:
            _paint(canvas, one, crop)
            _cover(mask, one, crop)
    canvas += np.float32(0.015) * random.standard_normal(canvas.shape, dtype=np.float32)
    image = np.clip(canvas * 255.0 + 0.5, 0.0, 255.0).astype(np.uint8)
    return Scene(**vars(_landmarks(objects[-1], mask)), image=image, mask=mask)


def landmarks_of_scene(split: str, index: int, *, size: int = 128, seed: int = 0) -> Landmarks:
    """What `draw_scene` says of the main object, without drawing the rest. Raises ``ValueError`` as it does."""
    random = _random(split, index, seed)
    _, backdrop = _background(random, 1)  # it draws as many random numbers whatever its size
    main = _objects(random, size, backdrop)[-1]
    mask = np.full((size, size), BACKGROUND, dtype=np.uint8)
    if (crop := _crop(main, size)) is not None:
        _cover(mask, main, crop)
    return _landmarks(main, mask)


def label_of_scene(split: str, index: int, *, seed: int = 0) -> int:
    """The `label` of a scene, which is drawn no further than it takes. Raises ``ValueError`` as `draw_scene` does."""
    random = _random(split, index, seed)
    _background(random, 1)  # it draws as many random numbers whatever its size
    return _label(random)


def _random(split: str, index: int, seed: int) -> np.random.Generator:
    if split not in SPLITS:
        raise ValueError(f"no split {split!r} in shapes; it has {', '.join(SPLITS)}")
    if index < 0 or seed < 0:
        raise ValueError(f"index and seed count from 0, got index {index} and seed {seed}")
    # The generator advances the lowest counter word, so scenes with another index or split can never meet.
    return np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, 0, SPLITS[split], index]))


def _label(random: np.random.Generator) -> int:
    return int(random.integers(len(SHAPES)))


@dataclass(frozen=True)
class _Pose:
    linear: FloatArray  # (xy, xy), rotation times scale, canonical frame to pixels
    centre: FloatArray  # (xy,), edge coordinates
    radius: float  # pixels of one canonical unit
    rotation: float  # radians, clockwise on screen


@dataclass(frozen=True)
class _Object:
    label: int
    pose: _Pose
    colour: FloatArray  # (rgb,), as all colours
    shade: RealArray  # of the texture
    accent: FloatArray  # of details
    kind: int  # of the texture
    frequency: float  # of the texture
    has_details: bool
    turn: float  # of the texture, radians


def _objects(random: np.random.Generator, size: int, backdrop: FloatArray) -> list[_Object]:
    """The objects of a scene in the order in which they are painted: the main object comes last."""
    label = _label(random)
    radius = _uniform(random, *_OBJECT_RADIUS) * size
    # A quarter of the radius may leave the picture, so that a few objects are cut by its border.
    slack = max(0.5 * size - 0.8 * radius, 0.0)
    centre = 0.5 * size + slack * (2.0 * random.random(2) - 1.0)

    # The smaller objects come first: whatever follows is painted over them.
    objects = []
    count = int(np.searchsorted(_DISTRACTORS, random.random()))
    for other in random.permutation([c for c in range(len(SHAPES)) if c != label])[:count]:
        ratio = _uniform(random, *_DISTRACTOR_RATIO) * math.sqrt(SHAPES[label].area / SHAPES[other].area)
        # Of a few places the one furthest from the main object, so that most stay at least half visible.
        places = (0.12 + 0.76 * random.random((4, 2))) * size
        place = places[np.argmax(np.hypot(*(places - centre).T))]
        objects.append(_object(random, int(other), _pose(random, place, ratio * radius), backdrop))
    return [*objects, _object(random, label, _pose(random, centre, radius), backdrop)]


def _object(random: np.random.Generator, label: int, pose: _Pose, backdrop: FloatArray) -> _Object:
    candidates = np.stack([_colour(random, (0.35, 0.95), (0.3, 1.0)) for _ in range(3)])
    # Of three colours the one furthest from the background: an object should be hard to name, not hard to see.
    colour = candidates[np.argmax(np.abs(candidates - backdrop).sum(axis=1))]
    shade = np.clip(colour * _uniform(random, 0.45, 0.75) + _uniform(random, 0.0, 0.35), 0.0, 1.0)
    accent = _colour(random, (0.1, 0.9), (0.15, 1.0))
    kind, frequency = int(random.integers(5)), _uniform(random, 2.0, 4.5)
    has_details, turn = random.random() < 0.75, 2.0 * math.pi * random.random()
    return _Object(label, pose, colour, shade, accent, kind, frequency, has_details, turn)


def _landmarks(main: _Object, mask: NDArray[np.uint8]) -> Landmarks:
    shape, pose, seen = SHAPES[main.label], main.pose, mask == main.label + 1
    points = shape.keypoints @ pose.linear.T + pose.centre
    visible = np.all((points >= 0.0) & (points < len(mask)), axis=1)
    rows, columns = np.any(seen, axis=1).nonzero()[0], np.any(seen, axis=0).nonzero()[0]
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Landmarks(main.label, (points - 0.5).astype(np.float32), shape.keypoint_names, visible, box)


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


@dataclass(frozen=True)
class _Crop:
    """The part of the picture that an object and its shadow may touch."""

    starts: FloatArray  # of the outline's edges, relative to the crop
    ends: FloatArray
    shift: np.float32  # of the shadow, pixels
    origin: FloatArray  # (xy,)
    rows: slice
    columns: slice

    @property
    def extent(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


def _crop(one: _Object, size: int) -> _Crop | None:
    """Where an object lies; None outside of the picture."""
    starts, ends = _place(SHAPES[one.label].outline, one.pose)
    shift = np.float32(0.07 * one.pose.radius)
    x0, y0 = (int(v) for v in np.clip(np.floor(starts.min(axis=0)), 0, size))
    x1, y1 = (int(v) for v in np.clip(np.ceil(starts.max(axis=0) + shift), 0, size))
    if x0 >= x1 or y0 >= y1:
        return None
    origin = np.array([x0, y0], dtype=np.float32)
    return _Crop(starts - origin, ends - origin, shift, origin, slice(y0, y1), slice(x0, x1))


def _paint(canvas: FloatArray, one: _Object, crop: _Crop) -> None:
    """Draw one object with its shadow."""
    shape, pose, extent = SHAPES[one.label], one.pose, crop.extent
    region = canvas[crop.rows, crop.columns]

    shadow = coverage(crop.starts + crop.shift, crop.ends + crop.shift, extent)
    region *= 1.0 - np.float32(_SHADOW_OPACITY) * shadow[:, :, None]

    across, down = (np.arange(part.start, part.stop, dtype=np.float32) for part in (crop.columns, crop.rows))
    x = (across + 0.5 - pose.centre[0]) / np.float32(pose.radius)
    y = (down + 0.5 - pose.centre[1]) / np.float32(pose.radius)
    turn = pose.rotation + one.turn
    cosine, sine = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    texture = _pattern(x * cosine + y[:, None] * sine, y[:, None] * cosine - x * sine, one.kind, one.frequency)
    paint = one.colour + texture[:, :, None] * (one.shade - one.colour)
    if shape.details is not None and one.has_details:
        inner_starts, inner_ends = _place(shape.details, pose)
        inner = coverage(inner_starts - crop.origin, inner_ends - crop.origin, extent)
        paint += inner[:, :, None] * (one.accent - paint)
    region += coverage(crop.starts, crop.ends, extent)[:, :, None] * (paint - region)


def _cover(mask: NDArray[np.uint8], one: _Object, crop: _Crop) -> None:
    """Give the pixels whose centres lie inside an object its class."""
    mask[crop.rows, crop.columns][inside(crop.starts, crop.ends, crop.extent)] = one.label + 1


def _place(edges: Edges, pose: _Pose) -> tuple[FloatArray, FloatArray]:
    return edges.start @ pose.linear.T + pose.centre, edges.end @ pose.linear.T + pose.centre
