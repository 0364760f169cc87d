from __future__ import annotations

import hashlib

import pytest

from cachetool.store import differences, key_digest, undetermined


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


def test_differences_are_named_by_their_whole_path() -> None:
    assert differences({"a_b": {"c_d": "x"}}, {"a_b": {"c_d": ["x", {"z": 1, "y": 2}]}}) == [
        'a b, c d: x here, ["x", {"y": 2, "z": 1}] there'
    ]
    assert differences({"a": {"b": 1}}, {"a": 2}) == ['a: {"b": 1} here, 2 there']


def test_parts_that_say_nothing_are_named() -> None:
    said = {"a": 0, "b": False, "c": "x", "d": [0.0], "e": {"f": 1.5}}
    assert undetermined(said) == []
    unsaid = {"a_b": None, "c": "", "d": (), "e": [], "f": {}, "g": float("inf"), "h": [1.0, float("nan")]}
    assert undetermined(unsaid) == ["a b", "c", "d", "e", "f", "g", "h"]
    assert undetermined(said | {"x_y": {"z": {"last_one": None, "said": 1}, "w": (float("-inf"),)}}) == [
        "x y, z, last one",
        "x y, w",
    ]
