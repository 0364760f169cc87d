"""Small generated images for the tests of data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteImage = Callable[..., Path]


@pytest.fixture
def write_image() -> WriteImage:
    """Write a smooth random image, so that JPEG keeps it recognisable; folders are made. Returns the path."""

    def write(path: Path, width: int = 40, height: int = 30, seed: int = 0, mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(path)
        return path

    return write


@pytest.fixture
def write_mask() -> Callable[..., Path]:
    """Write class indices (row, column) as an 8-bit PNG; folders are made. Returns the path."""

    def write(path: Path, values: np.ndarray, *, palette: bool = False) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(values.astype(np.uint8))
        if palette:
            image = image.convert("P")
            image.putdata(values.ravel().tolist())
            image.putpalette([(37 * level + channel) % 256 for level in range(256) for channel in range(3)])
        image.save(path)
        return path

    return write
