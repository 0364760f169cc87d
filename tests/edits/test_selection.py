from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachetool.edits import Target
from cachetool.edits import select as choose
from cachetool.edits.selection import select_nothing
from cachetool.randomness import generator
from cachetool.tokens import TokenLayout

LAYOUT = TokenLayout(cls=1, registers=3, rows=4, columns=5)


def select(target, layout, state, image_ids, seed):
    return choose(target, layout, state, image_ids, np.ones(len(image_ids), dtype=bool), seed)


def states(images, seed=0):
    return np.random.default_rng(seed).normal(size=(images, LAYOUT.tokens, 8)).astype(np.float32)


def pairs(selection):
    return list(zip(selection.image.tolist(), selection.token.tolist(), strict=True))


@pytest.mark.parametrize(
    ("target", "tokens", "first"),
    [("cls", [0], 0), ("registers", [0, 1, 2], 1), ("registers:1-2", [1, 2], 1), ("patches:3,7", [3, 7], 4)],
)
def test_fixed_targets(target, tokens, first):
    selection = select(Target.parse(target), LAYOUT, states(2), ["a", "b"], 0)
    assert pairs(selection) == [(image, token) for image in range(2) for token in tokens]
    np.testing.assert_array_equal(selection.position, selection.token + first)
    assert selection.per_image.tolist() == [len(tokens)] * 2
    mask = selection.mask(LAYOUT.tokens)
    assert mask.sum() == len(selection) == 2 * len(tokens)
    assert mask[selection.image, selection.position].all()


def test_all_patches():
    assert len(select(Target.parse("patches"), LAYOUT, states(3), ["a", "b", "c"], 0)) == 60


@given(st.integers(1, 20), st.integers(0, 99), st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_random_patches_depend_on_image_and_seed_alone(count, seed, images):
    ids = [f"{index}.png" for index in range(images)]
    target = Target.parse(f"patches:random{count}")
    selection = select(target, LAYOUT, states(images), ids, seed)
    assert selection.per_image.tolist() == [count] * images
    assert len(set(pairs(selection))) == count * images
    for image, image_id in enumerate(ids):
        alone = select(target, LAYOUT, states(1, seed=99), [image_id], seed)
        np.testing.assert_array_equal(alone.token, selection.token[selection.image == image])
    if count < 20:
        more = select(Target.parse(f"patches:random{count + 1}"), LAYOUT, states(images), ids, seed)
        assert set(pairs(selection)) < set(pairs(more))


def test_random_patches_are_those_of_the_smallest_draws():
    ids = ["a.png", "b.png", "c.png"]
    for seed in (0, 7):
        selection = select(Target.parse("patches:random4"), LAYOUT, states(3), ids, seed)
        for image, image_id in enumerate(ids):
            draws = generator(seed, image_id, None, 0, "random-patches").random(20)
            expected = sorted(range(20), key=lambda patch: draws[patch])[:4]
            assert selection.token[selection.image == image].tolist() == sorted(expected)


def test_random_patches_are_uniform():
    ids = [f"{index}.png" for index in range(2000)]
    selection = select(Target.parse("patches:random4"), LAYOUT, np.zeros((2000, 24, 1), np.float32), ids, 1)
    counts = np.bincount(selection.token, minlength=20)
    assert abs(counts - 400).max() < 5 * np.sqrt(400 * 0.8)


@given(st.floats(0.5, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_outliers_against_numpy(factor, seed):
    random = np.random.default_rng(seed)
    state = states(5, seed) * random.lognormal(0, 1.5, (5, LAYOUT.tokens, 1)).astype(np.float32)
    selection = select(Target.parse(f"patches:outliers:{factor}"), LAYOUT, state, list("abcde"), 0)
    norms = np.linalg.norm(state[:, 4:].astype(np.float64), axis=2)
    threshold = factor * np.median(norms, axis=1, keepdims=True)
    expected = norms > threshold
    clear = np.abs(norms - threshold) > 1e-5 * norms
    found = selection.mask(LAYOUT.tokens)[:, 4:]
    np.testing.assert_array_equal(found[clear], expected[clear])


def test_images_without_outliers_are_allowed_and_counted():
    state = np.ones((3, LAYOUT.tokens, 2), dtype=np.float32)
    state[1, 9] = 100
    selection = select(Target.parse("patches:outliers"), LAYOUT, state, list("abc"), 0)
    assert pairs(selection) == [(1, 5)]
    assert selection.per_image.tolist() == [0, 1, 0]


@pytest.mark.parametrize("target", ["cls", "registers", "patches:random4", "patches:outliers:0.5", "patches"])
def test_unreadable_images_are_left_out(target):
    state = states(3)
    state[1] = np.nan
    selection = choose(Target.parse(target), LAYOUT, state, list("abc"), np.array([True, False, True]), 0)
    assert selection.per_image[1] == 0
    assert (selection.per_image[[0, 2]] > 0).all()


def test_nothing():
    selection = select_nothing(Target.parse("registers"), 3)
    assert selection.token_type == "registers"
    assert len(selection) == 0
    assert selection.per_image.tolist() == [0, 0, 0]
