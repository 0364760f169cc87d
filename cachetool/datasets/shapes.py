"""`shapes`: the embedded data set, drawn scenes with a class, a mask and keypoints; no files."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from cachetool.datasets.base import Dataset, KeypointPair
from cachetool.datasets.decoding import encode_rgb
from cachetool.datasets.outlines import CLASS_NAMES
from cachetool.datasets.scenes import Landmarks, Scene, draw_scene, label_of_scene, landmarks_of_scene

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPES_SPLITS = {"val": 1000, "train": 2000, "calibration": 1000}
"""Number of scenes of each split; the first is the default."""

_SIDE = 128  # pixels
_PARTNERS = 2  # pairs in which each scene is the source
_FEWEST_KEYPOINTS = 3  # a pair with fewer common points says nothing about correspondence


class Shapes(Dataset):
    """Scenes of one split, 128 x 128 pixels, with labels, masks and keypoint pairs at once.

    The bytes of an image are its raw RGB values as PPM, so that its content digest does not depend on an encoder.
    Mask value 0 is the background, and class c has value c + 1.
    """

    kind = "classification"
    class_names = CLASS_NAMES
    mask_names = ("background", *CLASS_NAMES)
    decodes_in_threads = False

    def __init__(self, name: str, split: str, slug: str) -> None:
        self.name, self.split, self.family, self.slug = name, split, slug, slug
        self.image_ids = tuple(f"{split}/{index:05d}" for index in range(SHAPES_SPLITS[split]))

    @property
    def labels(self) -> tuple[int, ...]:
        """Class of each scene's main object."""
        return _labels(self.split)

    @property
    def pairs(self) -> tuple[KeypointPair, ...]:
        """Each scene as the source of two pairs with other scenes of its class; only points visible in both."""
        return _pairs(self.split)

    def scene(self, index: int) -> Scene:
        """Draw one scene with all its annotations."""
        return draw_scene(self.split, index, size=_SIDE)

    def read_bytes(self, index: int) -> bytes:
        """Return the scene's pixels as binary PPM."""
        return encode_rgb(self.scene(index).image)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the class + 1 of every pixel, (row, column), 0 for the background."""
        return self.scene(index).mask


@cache
def _labels(split: str) -> tuple[int, ...]:
    """Labels of a split; the same for all who open it."""
    return tuple(label_of_scene(split, index) for index in range(SHAPES_SPLITS[split]))


@cache
def _pairs(split: str) -> tuple[KeypointPair, ...]:
    scenes = [landmarks_of_scene(split, index, size=_SIDE) for index in range(SHAPES_SPLITS[split])]
    random = np.random.Generator(np.random.Philox(key=[0, 0]))
    labels = np.array([scene.label for scene in scenes])
    partners: list[tuple[int, int]] = []
    for label in range(len(CLASS_NAMES)):
        # A random circle through the class: everyone is source and target equally often.
        circle = random.permutation(np.flatnonzero(labels == label))
        for step in range(1, 1 + min(_PARTNERS, len(circle) - 1)):
            partners += zip(circle.tolist(), np.roll(circle, -step).tolist(), strict=True)
    pairs = (_pair(scenes, source, target) for source, target in sorted(partners))
    return tuple(pair for pair in pairs if len(pair.source_keypoints) >= _FEWEST_KEYPOINTS)


def _pair(scenes: list[Landmarks], source: int, target: int) -> KeypointPair:
    first, second = scenes[source], scenes[target]
    visible = first.visible & second.visible
    return KeypointPair(
        source=source,
        target=target,
        source_keypoints=first.keypoints[visible].astype(np.float64),
        target_keypoints=second.keypoints[visible].astype(np.float64),
        category=CLASS_NAMES[first.label],
        source_box=first.box,
        target_box=second.box,
        source_size=(_SIDE, _SIDE),
        target_size=(_SIDE, _SIDE),
    )
