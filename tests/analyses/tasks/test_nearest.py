from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from analyses.tasks import nearest
from analyses.tasks.nearest import nearest_neighbours, vote


def ids(count: int) -> list[str]:
    return [f"image {index}" for index in range(count)]


def test_neighbours_and_cosines_against_scikit_learn() -> None:
    features = np.random.default_rng(0).standard_normal((300, 12)).astype(np.float32)
    found, cosines = nearest_neighbours(features, ids(300), 7)
    search = NearestNeighbors(n_neighbors=8, algorithm="brute", metric="cosine").fit(features.astype(np.float64))
    distances, expected = search.kneighbors(features.astype(np.float64))
    np.testing.assert_array_equal(found, expected[:, 1:])
    assert cosines == pytest.approx(1 - distances[:, 1:], abs=2e-9)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(1).integers(-1, 2, (60, 3)).astype(np.float32)  # many ties, and zero vectors
    whole = nearest_neighbours(features, ids(60), 5)
    monkeypatch.setattr(nearest, "BLOCK_BYTES", 7 * 8 * 60)
    for left, right in zip(whole, nearest_neighbours(features, ids(60), 5), strict=True):
        np.testing.assert_array_equal(left, right)


def test_order_of_images_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    features = np.repeat(rng.standard_normal((20, 6)), 4, axis=0).astype(np.float32)
    names, shuffled = ids(80), rng.permutation(80)
    plain, _ = nearest_neighbours(features, names, 2)
    moved, _ = nearest_neighbours(features[shuffled], [names[index] for index in shuffled], 2)
    np.testing.assert_array_equal(shuffled[moved], plain[shuffled])


def test_a_query_is_never_its_own_neighbour_and_its_duplicate_is() -> None:
    features = np.random.default_rng(3).standard_normal((50, 8)).astype(np.float32)
    features[41] = features[7]
    found, cosines = nearest_neighbours(features, ids(50), 49)
    for row in range(50):
        assert sorted([*found[row], row]) == list(range(50))
    assert (found[7, 0], found[41, 0]) == (41, 7)
    assert cosines[7, 0] == 1


@pytest.mark.parametrize("value", [0.0, 1.0, 0.123])
def test_neighbours_among_equal_features_are_drawn_evenly(value: float) -> None:
    """Each image is the nearest of one other on average, wherever it lies: the counts are those of a uniform draw."""
    found, cosines = nearest_neighbours(np.full((2000, 33), value, dtype=np.float32), ids(2000), 1)
    assert (cosines == (value != 0)).all()
    drawn = np.bincount(found[:, 0] // 100, minlength=20)
    assert abs(drawn - 100).max() < 5 * np.sqrt(100)
    assert np.bincount(found[:, 0]).max() < 12
    assert np.unique(found).size > 1000


def test_noise_of_rounding_makes_no_order() -> None:
    """Equal directions of different lengths differ in the last bits of their products, which must not decide."""
    rng = np.random.default_rng(4)
    features = (rng.standard_normal(384) * rng.uniform(0.5, 2, (500, 1))).astype(np.float32)
    _, cosines = nearest_neighbours(features, ids(500), 20)
    assert (cosines == 1).all()


def test_vote_against_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 6, 400)
    features = (np.eye(6, 10)[labels] + rng.standard_normal((400, 10))).astype(np.float32)
    found, cosines = nearest_neighbours(features, ids(400), 20)
    voted = vote(labels[found], cosines, 0.07)
    unit = features.astype(np.float64) / np.linalg.norm(features, axis=1, keepdims=True)
    for row in range(0, 400, 20):
        others = np.delete(np.arange(400), row)
        classifier = KNeighborsClassifier(
            20, algorithm="brute", metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.07)
        )
        assert classifier.fit(unit[others], labels[others]).predict(unit[[row]])[0] == voted[row]
    assert (voted != labels[found[:, 0]]).any()


def test_tied_votes_go_to_the_nearest() -> None:
    labels = np.array([[3, 1, 1, 3, 0], [0, 1, 1, 2, 2], [4, 4, 2, 2, 2]])
    assert vote(labels, np.full((3, 5), 0.4), 0.07).tolist() == [3, 1, 2]
    assert vote(np.array([[2, 1, 1]]), np.array([[0.9, 0.2, 0.2]]), 0.07).tolist() == [2]


def test_one_image_and_none() -> None:
    for count in (0, 1):
        found, cosines = nearest_neighbours(np.ones((count, 3), dtype=np.float32), ids(count), 0)
        assert found.shape == cosines.shape == (count, 0)
