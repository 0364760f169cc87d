from __future__ import annotations

import gc

import numpy as np
import pytest

from analyses.tasks.mask_memory import MaskMemory
from tests.analyses.tasks.mask_stand_in import MaskAnnotations


def masks(seed: int) -> MaskAnnotations:
    rng = np.random.default_rng(seed)
    return MaskAnnotations([rng.integers(0, 3, (10, 10)).astype(np.uint8) for _ in range(4)], "abc")


def test_masks_are_decoded_once() -> None:
    memory, first, second = MaskMemory(10_000), masks(0), masks(1)
    for _ in range(3):
        for stand_in in (first, second):
            for image in range(4):
                np.testing.assert_array_equal(memory.mask(stand_in, image), stand_in.masks[image])  # type: ignore[index]
    assert set(first.decoded.values()) == set(second.decoded.values()) == {1}
    assert memory.size == 800
    with pytest.raises(ValueError, match="read-only"):
        memory.mask(first, 0)[0, 0] = 1


def test_beyond_the_limit_nothing_is_kept() -> None:
    memory, annotations = MaskMemory(250), masks(0)
    for _ in range(2):
        for image in range(4):
            np.testing.assert_array_equal(memory.mask(annotations, image), annotations.masks[image])  # type: ignore[index]
    assert dict(annotations.decoded) == {0: 1, 1: 1, 2: 2, 3: 2}
    assert memory.size == 200


def test_masks_go_with_their_annotations() -> None:
    memory, annotations = MaskMemory(10_000), masks(0)
    memory.mask(annotations, 0)
    assert memory.size == 100
    del annotations
    gc.collect()
    assert memory.size == 0
