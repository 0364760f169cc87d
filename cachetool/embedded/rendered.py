"""Scenes of ``shapes``, drawn once and kept as arrays: to draw them anew in every epoch would double its time."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cachetool.datasets.scenes import draw_scene
from cachetool.embedded.architecture import IMAGE_SIZE, SCENE_SIZE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MAX_KEYPOINTS = 8
"""Keypoint arrays are padded to this many rows."""


@dataclass(frozen=True)
class Rendered:
    """Scenes 0 to n - 1 of one split, at the size the model sees."""

    images: NDArray[np.uint8]
    """(scene, row, column, rgb) at ``IMAGE_SIZE``, resampled as the package's transform does."""
    masks: NDArray[np.uint8]
    """(scene, row, column) at ``IMAGE_SIZE``, 0 for the background and class index + 1 elsewhere."""
    labels: NDArray[np.int64]
    """(scene,), class of the main object."""
    keypoints: NDArray[np.float32]
    """(scene, keypoint, xy), as shares of the image side, measured from its edge; NaN where a class has fewer."""
    visible: NDArray[np.bool_]
    """(scene, keypoint), inside the picture."""


def render(split: str, count: int, *, seed: int = 0, cache: Path | None = None, workers: int = 1) -> Rendered:
    """Draw the first ``count`` scenes of a split, or read them from the folder ``cache``, which keeps them."""
    path = None if cache is None else cache / f"shapes-{split}-{count}-{seed}-{IMAGE_SIZE}.npz"
    if path is not None and path.exists():
        with np.load(path) as stored:
            return Rendered(**{field.name: stored[field.name] for field in fields(Rendered)})
    draw = partial(_render_one, split, seed)
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            rows = list(pool.map(draw, range(count), chunksize=256))
    else:
        rows = [draw(index) for index in range(count)]
    images, masks, labels, keypoints, visible = zip(*rows, strict=True)
    rendered = Rendered(
        np.stack(images), np.stack(masks), np.array(labels, dtype=np.int64), np.stack(keypoints), np.stack(visible)
    )
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path = path.with_suffix(".partial.npz")
        np.savez(partial_path, **{field.name: getattr(rendered, field.name) for field in fields(Rendered)})
        partial_path.replace(path)
    return rendered


def _render_one(
    split: str, seed: int, index: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int, NDArray[np.float32], NDArray[np.bool_]]:
    scene = draw_scene(split, index, size=SCENE_SIZE, seed=seed)
    image = Image.fromarray(scene.image).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    step = SCENE_SIZE // IMAGE_SIZE
    keypoints = np.full((MAX_KEYPOINTS, 2), np.nan, dtype=np.float32)
    visible = np.zeros(MAX_KEYPOINTS, dtype=np.bool_)
    keypoints[: len(scene.keypoints)] = (scene.keypoints + 0.5) / SCENE_SIZE
    visible[: len(scene.visible)] = scene.visible
    return np.asarray(image), scene.mask[step // 2 :: step, step // 2 :: step], scene.label, keypoints, visible
