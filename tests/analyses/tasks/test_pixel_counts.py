from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from analyses.tasks.pixel_counts import COUNTS, count_pixels, mean_intersection_over_union, per_class, pixel_metrics

NAMES = ("a", "b", "c", "d")


def outcomes(counts: np.ndarray) -> xr.Dataset:
    """From counts (image, count, class)."""
    variables = {name: (("image", "mask_class"), counts[:, index]) for index, name in enumerate(COUNTS)}
    return xr.Dataset(variables, {"mask_class": list(NAMES)})


def test_counts_by_hand() -> None:
    mask = np.array([[0, 0, 1], [1, 255, 255]], dtype=np.uint8)
    prediction = np.array([[0, 1, 1], [255, 0, 2]], dtype=np.uint8)
    counts = count_pixels(prediction, mask, 4)
    # The last two pixels are not annotated: what is predicted there never counts, not even as predicted.
    assert counts.tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [2, 2, 0, 0]]
    found = outcomes(counts[None])
    miou, accuracy = pixel_metrics()
    assert (miou.name, accuracy.name, miou.unit, miou.binary) == ("miou", "pixel_accuracy", "image", False)
    assert miou.value(found) == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert accuracy.value(found) == pytest.approx(2 / 4)
    table = per_class(found)
    assert table["class"].tolist() == list(NAMES)
    np.testing.assert_allclose(table["iou"], [1 / 2, 1 / 3, np.nan, np.nan])
    assert table["annotated_pixels"].tolist() == [2, 2, 0, 0]


def test_metrics_against_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    masks = rng.choice([0, 1, 2, 3, 255], (6, 15, 11), p=[0.4, 0.2, 0.15, 0.05, 0.2]).astype(np.uint8)
    masks[0] = 255
    right = (rng.random(masks.shape) < 0.6) & (masks != 255)
    predictions = np.where(right, masks, rng.integers(0, 4, masks.shape)).astype(np.uint8)
    found = outcomes(
        np.stack([count_pixels(prediction, mask, 4) for prediction, mask in zip(predictions, masks, strict=True)])
    )
    jaccard = MulticlassJaccardIndex(4, average="none", ignore_index=255)
    each = jaccard(torch.from_numpy(predictions.astype(int)), torch.from_numpy(masks.astype(int))).numpy()
    accuracy = MulticlassAccuracy(4, average="micro", ignore_index=255)
    share = accuracy(torch.from_numpy(predictions.astype(int)), torch.from_numpy(masks.astype(int)))
    np.testing.assert_allclose(per_class(found)["iou"], each, rtol=1e-6)
    miou, pixels = pixel_metrics()
    assert miou.value(found) == pytest.approx(float(each.mean()), rel=1e-6)
    assert pixels.value(found) == pytest.approx(float(share), rel=1e-6)
    assert 0.1 < each.min() < each.max() < 0.9


def test_only_annotated_classes_count() -> None:
    """A class that is predicted but never annotated lowers the others, and is not averaged itself."""
    counts = np.array([[[6, 0, 0, 0], [8, 0, 2, 0], [10, 0, 0, 0]], [[0, 3, 0, 0], [0, 3, 0, 0], [0, 3, 0, 0]]])
    columns = pixel_metrics()[0].columns(outcomes(counts))
    assert columns.shape == (2, 12)
    weights = np.array([[1, 1], [2, 0], [0, 2], [0, 0]])
    found = mean_intersection_over_union(weights @ columns)
    np.testing.assert_allclose(found, [(6 / 12 + 1) / 2, 12 / 24, 1, np.nan])
