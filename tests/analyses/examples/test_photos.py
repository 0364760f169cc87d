"""Photographs as the model saw them, and which images are shown."""

from __future__ import annotations

import numpy as np
from PIL import Image

import cachetool
from analyses.examples.photos import photo, spread_images
from tests.analyses.conftest import Small


def test_a_photo_is_the_image_as_it_was_resized_for_the_model(small: Small) -> None:
    annotations = cachetool.open_annotations(small.cache)
    expected = annotations.dataset.decode(7).resize((64, 64), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(photo(annotations, 7), np.asarray(expected))


def test_images_are_spread_over_the_readable_ones() -> None:
    readable = np.ones(10, dtype=np.bool_)
    readable[[0, 9]] = False
    assert spread_images(readable, 3) == [1, 5, 8]
    assert spread_images(readable, 20) == list(range(1, 9))
    assert spread_images(np.zeros(3, dtype=np.bool_), 2) == []
