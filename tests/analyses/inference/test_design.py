from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyses.inference import Design
from cachetool.errors import DatasetError


def weights(design: Design, resamples: int = 7, seed: int = 0, chunk: int | None = None) -> np.ndarray:
    return np.concatenate(list(design.weights(resamples, seed, chunk)))


def test_images_are_drawn_as_often_as_a_multinomial_says() -> None:
    """Moments of multinomial counts: mean 1, variance 1 - 1/n, covariance -1/n; five standard errors of the moments."""
    n, resamples = 5, 40_000
    drawn = weights(Design.images(n), resamples)
    assert set(np.unique(drawn)) <= set(range(n + 1))
    assert drawn.mean(axis=0) == pytest.approx(np.ones(n), abs=5 / np.sqrt(resamples))
    expected = np.eye(n) - 1 / n
    assert np.cov(drawn.T) == pytest.approx(expected, abs=5 * np.sqrt(3 / resamples))


@given(st.integers(1, 40), st.integers(0, 2**64))
def test_weights_of_images_sum_to_their_number(count: int, seed: int) -> None:
    drawn = weights(Design.images(count), seed=seed)
    assert drawn.shape == (7, count)
    assert (drawn >= 0).all()
    assert (drawn.sum(axis=1) == count).all()


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=20), st.integers(0, 2**32))
def test_members_of_a_group_share_its_weight(groups: list[str], seed: int) -> None:
    """Taking one member of each group leaves the weights of the groups, whose sum is the number of groups."""
    drawn = weights(Design.images(len(groups), groups), seed=seed)
    first = {name: drawn[:, groups.index(name)] for name in groups}
    for position, name in enumerate(groups):
        assert (drawn[:, position] == first[name]).all()
    assert (sum(first.values()) == len(first)).all()


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=15),
    st.integers(0, 2**32),
)
def test_a_pair_weighs_the_product_of_its_images(pairs: list[tuple[int, int]], seed: int) -> None:
    source, target = np.array(pairs).T
    design = Design.pairs(source, target)
    images = np.unique(pairs)
    of_images = weights(Design.images(len(images)), seed=seed)
    one, other = np.searchsorted(images, source), np.searchsorted(images, target)
    expected = np.where(one == other, of_images[:, one], of_images[:, one] * of_images[:, other])
    assert (weights(design, seed=seed) == expected).all()
    assert (design.units, design.image_count, design.drawn) == (len(pairs), len(images), len(images))


def test_pairs_of_grouped_images() -> None:
    """Between two groups the product of their weights, within one its weight once."""
    groups = ["cat", "dog", "cat", "eel", "dog"]
    design = Design.pairs([0, 0, 1, 4], [2, 1, 4, 0], groups)
    cat, dog = weights(Design.images(2), seed=3).T  # no pair has the image of "eel"
    assert (weights(design, seed=3) == np.stack([cat, cat * dog, dog, cat * dog], axis=1)).all()
    assert (design.units, design.image_count, design.drawn) == (4, 4, 2)


@settings(max_examples=30)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 30), st.integers(0, 2**32))
def test_weights_do_not_depend_on_chunks_or_on_the_number_of_resamples(
    count: int, chunk: int, resamples: int, seed: int
) -> None:
    design = Design.images(count)
    whole = weights(design, resamples, seed)
    assert (weights(design, resamples, seed, chunk) == whole).all()
    assert (weights(design, resamples + 5, seed)[:resamples] == whole).all()


def test_chunks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analyses.inference.design.CHUNK_BYTES", 8 * 10 * 3)
    assert [len(part) for part in Design.images(10).weights(7, 0)] == [3, 3, 1]
    assert [len(part) for part in Design.images(1000).weights(2, 0)] == [1, 1]


def test_seeds_differ() -> None:
    assert (weights(Design.images(30), seed=0) != weights(Design.images(30), seed=1)).any(axis=1).all()


def test_independent_units() -> None:
    assert Design.images(9).independent == 9
    assert Design.images(9, list("aaabbbccc")).independent == 3
    assert Design.pairs([0, 2, 4], [1, 3, 5]).independent == 3
    assert Design.pairs([0, 0, 0], [1, 2, 3]).independent == 1  # a star: every pair has image 0
    assert Design.pairs([0, 2, 4], [1, 3, 5], list("aabbaa")).independent == 2
    assert Design.images(9).independent_units
    assert not Design.images(9, list("aaabbbccc")).independent_units
    assert not Design.pairs([0], [1]).independent_units


def test_faulty_designs() -> None:
    with pytest.raises(DatasetError, match="at least one image, found 0"):
        Design.images(0)
    with pytest.raises(DatasetError, match=r"for each of 3 images, found the shape \(2,\)"):
        Design.images(3, ["a", "b"])
    with pytest.raises(DatasetError, match="evaluate images that occur in pairs"):
        Design.pairs([], [])
    with pytest.raises(DatasetError, match=r"\(2,\) sources and \(1,\) targets"):
        Design.pairs([0, 1], [2])
    with pytest.raises(DatasetError, match="images 0 to 5, but groups are given for 3 images"):
        Design.pairs([0], [5], ["a", "b", "c"])
