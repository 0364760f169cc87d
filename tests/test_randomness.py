"""Draws are functions of what they are for: checked against NumPy's Philox, one generator per token."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cachetool.randomness import generator, normals, order_values, random_order, uniforms

IMAGE_IDS = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=12, unique=True)
SEEDS = st.integers(-(2**40), 2**70)


@given(IMAGE_IDS, SEEDS, st.one_of(st.none(), st.integers(0, 40)), st.data())
@settings(max_examples=40, deadline=None)
def test_batched_draws_equal_one_generator_per_token(image_ids, seed, layer, data):
    tokens = np.array(data.draw(st.lists(st.integers(0, 300), min_size=len(image_ids), max_size=len(image_ids))))
    drawn = normals(seed, image_ids, layer, tokens, 33, "noise")
    for image_id, token, row in zip(image_ids, tokens, drawn, strict=True):
        alone = generator(seed, image_id, layer, int(token), "noise").standard_normal(33, dtype=np.float32)
        np.testing.assert_array_equal(row, alone)


@given(IMAGE_IDS, SEEDS, st.integers(0, 40), st.randoms())
@settings(max_examples=40, deadline=None)
def test_draws_do_not_depend_on_batch_or_order(image_ids, seed, layer, random):
    order = list(range(len(image_ids)))
    random.shuffle(order)
    permuted = [image_ids[row] for row in order]
    cut = len(order) // 2
    whole = uniforms(seed, image_ids, layer, 5, "test")
    parts = np.concatenate([uniforms(seed, part, layer, 5, "test") for part in (permuted[:cut], permuted[cut:])])
    np.testing.assert_array_equal(parts, whole[order])
    np.testing.assert_array_equal(
        order_values(seed, permuted, layer, "test"), order_values(seed, image_ids, layer, "test")[order]
    )
    in_order = [image_ids[row] for row in random_order(seed, image_ids, layer, "test")]
    assert in_order == [permuted[row] for row in random_order(seed, permuted, layer, "test")]
    assert sorted(in_order) == sorted(image_ids)


def test_streams_differ_by_every_part_of_their_name():
    streams = [
        (0, "a.png", 1, 0, "noise"),
        (1, "a.png", 1, 0, "noise"),
        (0, "b.png", 1, 0, "noise"),
        (0, "a.png", 2, 0, "noise"),
        (0, "a.png", None, 0, "noise"),
        (0, "a.png", 1, 1, "noise"),
        (0, "a.png", 1, 0, "donor"),
    ]
    drawn = np.array([generator(*stream).random(8) for stream in streams])
    assert len(np.unique(drawn)) == drawn.size


def test_draws_are_the_same_for_ever():
    words = order_values(0, ["a.png", "b.png"], 3, "donor")
    assert words.tolist() == [10681640906842112973, 6099606755081268510]


def test_draws_have_their_distributions():
    image_ids = [f"{index}.png" for index in range(400)]
    gaussian = normals(7, image_ids, 2, np.zeros(400, dtype=np.int64), 50, "noise")
    assert stats.kstest(gaussian.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(gaussian[:-1].ravel(), gaussian[1:].ravel())[0, 1]) < 0.03
    assert stats.kstest(uniforms(7, image_ids, 2, 50, "test").ravel(), "uniform").pvalue > 1e-3
    words = order_values(7, image_ids, None, "donor")
    assert stats.kstest(words.astype(np.float64) / 2**64, "uniform").pvalue > 1e-3


def test_ties_are_ordered_by_image_id(monkeypatch):
    monkeypatch.setattr("cachetool.randomness.order_values", lambda *_: np.array([5, 1, 5, 5], dtype=np.uint64))
    assert random_order(0, ["c", "z", "a", "b"], None, "test").tolist() == [1, 2, 3, 0]
