"""Every stored state of the embedded model against the plain timm model: bit for bit in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import cachetool
from tests.reference.hooked_forward import hooked_forward
from tests.reference.plain_models import (
    plain_tiny_reg,
    scene_pixels,
    stored_array,
    stored_sequence,
)

IMAGES = 24


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return hooked_forward(plain_tiny_reg(), scene_pixels(IMAGES, 64))


def extracted(root: Path, dtype: str) -> str:
    opened = cachetool.extract("tiny-reg", "shapes", root=root, limit=IMAGES, dtype=dtype, workers=0)
    return str(opened.attrs["cachetool_path"])


def test_embedded_model_bit_for_bit(expected: np.ndarray, tmp_path: Path) -> None:
    path = extracted(tmp_path, "float32")
    stored = stored_sequence(path)
    assert stored.shape == (13, IMAGES, 69, 96)
    assert np.array_equal(stored, expected)
    assert stored_array(path, "layer").tolist() == list(range(13))
    assert stored_array(path, "image_id").tolist() == [f"val/{index:05d}" for index in range(IMAGES)]


def test_float16_is_rounded_to_nearest(expected: np.ndarray, tmp_path: Path) -> None:
    stored = stored_sequence(extracted(tmp_path, "float16"))
    assert stored.dtype == np.float16
    assert np.array_equal(stored, expected.astype(np.float16))


def test_bfloat16_is_rounded_to_nearest(expected: np.ndarray, tmp_path: Path) -> None:
    stored = stored_sequence(extracted(tmp_path, "bfloat16"))
    assert stored.dtype == np.uint16
    rounded = torch.from_numpy(expected).to(torch.bfloat16).view(torch.uint16).numpy()
    assert np.array_equal(stored, rounded)
