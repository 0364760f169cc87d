from __future__ import annotations

import numpy as np
import pytest

from analyses.tasks.soft_labels import patch_shares, soft_labels
from tests.analyses.tasks.mask_stand_in import MaskAnnotations

NAMES = ("a", "b", "c", "d", "e")


def random_mask(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice([0, 1, 2, 3, 4, 255], (height, width)).astype(np.uint8)


def test_shares_by_hand() -> None:
    mask = np.array([[0, 0, 1, 1], [0, 2, 255, 255], [255, 255, 3, 3], [255, 255, 3, 255]], dtype=np.uint8)
    shares = patch_shares(mask, MaskAnnotations(None, NAMES, grid=2))
    expected = [[0.75, 0, 0.25, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 0]]
    np.testing.assert_array_equal(shares, expected)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (37, 53), (213, 320), (5, 3)])
@pytest.mark.parametrize("crop", ["none", "center"])
def test_each_pixel_goes_to_the_patch_of_its_centre(height: int, width: int, crop: str) -> None:
    """Against a loop over pixels; without a crop the patch is found without any geometry at all."""
    annotations = MaskAnnotations(None, NAMES, crop=crop)  # type: ignore[arg-type]
    mask = random_mask(height, width)
    counts = np.zeros((4, 4, 5))
    for row, column in np.argwhere(mask != 255):
        if crop == "none":
            place = (int((row + 0.5) * 4 / height), int((column + 0.5) * 4 / width))
        else:
            x, y = annotations.geometry(width, height).forward(np.array([column, row]))
            place = (int((y + 0.5) // 8), int((x + 0.5) // 8))
        if min(place) >= 0 and max(place) < 4:
            counts[*place, mask[row, column]] += 1
    total = counts.sum(axis=2, keepdims=True)
    expected = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0).reshape(16, 5)
    np.testing.assert_allclose(patch_shares(mask, annotations), expected, rtol=1e-12)
    if crop == "center":
        assert counts.sum() < (mask != 255).sum()


def test_entries_are_the_shares_above_zero() -> None:
    masks = [random_mask(20, 30, 0), np.full((9, 9), 255, dtype=np.uint8), random_mask(16, 16, 1)]
    annotations = MaskAnnotations(masks, NAMES)
    labels = soft_labels(annotations, [0, 1, 2], annotations.mask)
    rebuilt = np.zeros((3, 16, 5))
    rebuilt[labels.image, labels.patch, labels.label] = labels.share
    np.testing.assert_array_equal(rebuilt, [patch_shares(mask, annotations) for mask in masks])
    assert (labels.share > 0).all()
    assert set(labels.image) == {0, 2}
    order = labels.image * 16 + labels.patch
    assert (np.diff(order) >= 0).all()
    assert len(soft_labels(annotations, [1], annotations.mask).share) == 0
    assert len(soft_labels(annotations, [], annotations.mask).share) == 0


def test_a_sample_keeps_whole_patches_evenly() -> None:
    annotations = MaskAnnotations([random_mask(32, 32, seed) for seed in range(40)], NAMES)
    labels = soft_labels(annotations, range(40), annotations.mask)
    sample = labels.sample(200, seed=0)
    drawn = set(zip(sample.image.tolist(), sample.patch.tolist(), strict=True))
    assert len(drawn) == 200
    assert sample.share.sum() == pytest.approx(200)
    # 5 of 16 patches are expected of each image; more than 13 or none at all would be a billion to one.
    per_image = np.bincount([image for image, _ in drawn], minlength=40)
    assert per_image.min() >= 1
    assert per_image.max() <= 13
    again, other = labels.sample(200, seed=0), labels.sample(200, seed=1)
    np.testing.assert_array_equal(sample.patch, again.patch)
    assert drawn != set(zip(other.image.tolist(), other.patch.tolist(), strict=True))
    assert labels.sample(640, seed=0) is labels
