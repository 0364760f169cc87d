"""Annotations with masks in memory, in the true geometry of a transform."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np

from cachetool.datasets import Affine, Transform


class MaskAnnotations:
    """What segmentation reads of annotations; `decoded` counts how often each mask was asked for."""

    def __init__(
        self,
        masks: Sequence[np.ndarray] | None,
        names: Sequence[str] | None,
        *,
        grid: int = 4,
        patch: int = 8,
        crop: Literal["center", "none"] = "none",
        name: str = "stand-in",
    ) -> None:
        self.masks = masks
        self.mask_names = None if names is None else tuple(names)
        self.rows = self.columns = grid
        self.patch_size = float(patch)
        self.transform = Transform(grid * patch, crop, 0.8, "bilinear", (0.5,) * 3, (0.5,) * 3)
        self.dataset: Any = SimpleNamespace(name=name)
        self.image_ids = tuple(f"image {index:04}" for index in range(0 if masks is None else len(masks)))
        self.decoded: Counter[int] = Counter()

    def mask(self, image: int) -> np.ndarray:
        assert self.masks is not None
        self.decoded[image] += 1
        return self.masks[image]

    def geometry(self, width: int, height: int) -> Affine:
        return self.transform.geometry(width, height)
