from __future__ import annotations

import hashlib

import pytest

from cachetool.store import differences, key_digest


def test_the_digest_ignores_the_order_of_parts_and_is_stable() -> None:
    assert key_digest({"b": 1, "a": [1, 2]}) == key_digest({"a": (1, 2), "b": 1})
    assert key_digest({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()
    with pytest.raises(ValueError, match="not JSON compliant"):
        key_digest({"a": float("nan")})


def test_differences_name_every_part_on_both_sides() -> None:
    here = {"transform": {"image_size": 224, "crop": "center", "mean": (0.5, 0.5)}, "dtype": "float16", "extra": None}
    there = {"transform": {"image_size": 448, "crop": "center", "mean": [0.5, 0.5]}, "dtype": "float32"}
    assert differences(here, there) == [
        "dtype: float16 here, float32 there",
        "extra: null here, absent there",
        "transform, image size: 224 here, 448 there",
    ]
    assert differences(here, here) == []
