"""Which reference tokens a calibration keeps: an independent draw; the statistics are tested as a calibration."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cachetool.edits.statistics import choose_reference
from cachetool.randomness import generator, order_values
from cachetool.tokens import TokenLayout

SPEC = SimpleNamespace(
    layout=TokenLayout(cls=1, registers=2, rows=2, columns=3),
    images=SimpleNamespace(image_id=tuple(f"{index:03d}.png" for index in range(20))),
)
CHOSEN = np.array([1, 2, 3, 5, 8, 13, 17, 19])


def in_order(seed):
    """The chosen images in the order of their random words."""
    words = order_values(seed, [SPEC.images.image_id[image] for image in CHOSEN], None, "reference")
    return [int(CHOSEN[place]) for place in sorted(range(len(CHOSEN)), key=words.tolist().__getitem__)]


@pytest.mark.parametrize(("count", "rows"), [(5, 5), (8, 8), (100, 8)])
@pytest.mark.parametrize("token_type", ["cls", "registers"])
def test_one_token_per_image_in_random_order(token_type, count, rows):
    for seed in (0, 3):
        found = choose_reference(SPEC, token_type, CHOSEN, count, seed)
        assert found.image.tolist() == in_order(seed)[:rows]
        assert found.token.tolist() == [-1] * rows
        assert found.fit.tolist() == [row % 2 == 0 for row in range(rows)]


@pytest.mark.parametrize(("count", "per_image"), [(5, 1), (8, 1), (13, 2), (16, 2), (500, 6)])
def test_random_patches_of_each_image_until_there_are_enough(count, per_image):
    found = choose_reference(SPEC, "patches", CHOSEN, count, 3)
    images = in_order(3)[:count]
    expected = []
    for turn in range(per_image):
        for place, image in enumerate(images):
            draws = generator(3, SPEC.images.image_id[image], None, 0, "reference-patches").random(6)
            patch = sorted(range(6), key=lambda patch: draws[patch])[turn]
            expected.append((image, patch, place % 2 == 0))
    assert list(zip(found.image.tolist(), found.token.tolist(), found.fit.tolist(), strict=True)) == expected[:count]


@pytest.mark.parametrize("count", [0, -1])
def test_none_where_none_is_wanted(count):
    assert choose_reference(SPEC, "cls", CHOSEN, count, 0) is None
