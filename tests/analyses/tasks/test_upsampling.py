from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from analyses.tasks.upsampling import NO_CLASS, upsampled_argmax


def bilinear(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map (row, column) at other sizes: linear between centres, constant beyond the outermost ones."""
    rows = (np.arange(height) + 0.5) * grid.shape[0] / height - 0.5
    columns = (np.arange(width) + 0.5) * grid.shape[1] / width - 0.5
    positions = np.meshgrid(rows, columns, indexing="ij")
    return map_coordinates(grid.astype(np.float64), positions, order=1, mode="nearest")


@pytest.mark.parametrize(("classes", "height", "width"), [(3, 32, 48), (16, 23, 31), (40, 21, 17), (2, 3, 2)])
def test_classes_against_scipy(classes: int, height: int, width: int) -> None:
    logits = np.random.default_rng(classes).standard_normal((2, classes, 4, 6)).astype(np.float32)
    expected = np.stack([np.stack([bilinear(grid, height, width) for grid in image]) for image in logits])
    found = upsampled_argmax(logits, height, width)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected.argmax(axis=1))
    assert len(np.unique(found)) > 1


def test_logits_are_upsampled_rather_than_classes() -> None:
    """Between a weak 0 and a strong 1 the border lies where the lines cross, nearer to the weak one."""
    logits = np.array([[[[1.0, 0.0]], [[0.0, 3.0]]]], dtype=np.float32)
    found = upsampled_argmax(logits, 1, 80)[0, 0]
    # Centres at 19.5 and 59.5; 1 - t = 3 t at t = 1/4, thus at 29.5.
    assert found.tolist() == [0] * 30 + [1] * 50


def test_pixels_without_logits_have_no_class() -> None:
    logits = np.random.default_rng(0).standard_normal((1, 20, 4, 4)).astype(np.float32)
    whole = upsampled_argmax(logits, 32, 32)[0]
    logits[0, :, 0, 0] = np.nan
    found = upsampled_argmax(logits, 32, 32)[0]
    assert (found[:12, :12] == NO_CLASS).all()  # up to the centre of the next patch
    beyond = np.ones((32, 32), dtype=bool)
    beyond[:13, :13] = False
    np.testing.assert_array_equal(found[beyond], whole[beyond])
    logits[0, :, 0, 0] = 0
    logits[0, 18, 0, 0] = np.nan  # one class of the second group is enough
    assert (upsampled_argmax(logits, 32, 32)[0, :12, :12] == NO_CLASS).all()


def test_the_first_of_equal_classes_wins() -> None:
    logits = np.zeros((1, 40, 2, 2), dtype=np.float32)
    logits[0, [5, 9, 20, 39]] = 1
    assert (upsampled_argmax(logits, 4, 4) == 5).all()
    logits[0, [5, 9]] = 0
    assert (upsampled_argmax(logits, 4, 4) == 20).all()


@pytest.mark.parametrize("classes", [0, 256])
def test_more_classes_than_masks_can_hold_are_refused(classes: int) -> None:
    with pytest.raises(ValueError, match=f"expected 1 to 255 classes, found logits of {classes}"):
        upsampled_argmax(np.zeros((1, classes, 2, 2), dtype=np.float32), 4, 4)
