from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from analyses.tasks import linear_probe
from analyses.tasks.linear_probe import GRID, fit_linear_probe, held_out_images
from cachetool.errors import DatasetError


def clusters(images: int, classes: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    features = 4 * np.eye(classes, 16)[labels] + noise * rng.standard_normal((images, 16))
    return features.astype(np.float32), labels


def test_probe_separates_what_is_linearly_separable_and_nothing_else() -> None:
    features, labels = clusters(600, 3, noise=1.0)
    probe = fit_linear_probe(features[:400], labels[:400])
    assert probe.converged
    assert (probe.scores(features[400:]).argmax(axis=1) == labels[400:]).mean() > 0.9
    unrelated = np.random.default_rng(1).standard_normal((200, 16)).astype(np.float32)
    assert (probe.scores(unrelated).argmax(axis=1) == labels[400:]).mean() < 0.6


def test_strength_is_the_best_on_held_out_images() -> None:
    """Against scikit-learn fitted directly: overlapping classes in few images need a strong penalty."""
    features, labels = clusters(90, 6, noise=4.0)
    probe = fit_linear_probe(features, labels)
    held_out = held_out_images(labels, seed=0)
    accuracy = {}
    for strength in probe.held_out_accuracy:
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-8, max_iter=10_000))
        pipeline.fit(features[~held_out].astype(np.float64), labels[~held_out])
        accuracy[strength] = pipeline.score(features[held_out].astype(np.float64), labels[held_out])
    assert probe.held_out_accuracy == pytest.approx(accuracy, abs=1.5 / held_out.sum())
    assert len(set(accuracy.values())) > 1
    best = max(probe.held_out_accuracy.values())
    assert probe.strength == min(tried for tried, found in probe.held_out_accuracy.items() if found == best)
    assert list(probe.held_out_accuracy) == list(GRID)

    final = make_pipeline(StandardScaler(), LogisticRegression(C=probe.strength, tol=1e-8, max_iter=10_000))
    expected = final.fit(features.astype(np.float64), labels).decision_function(features.astype(np.float64))
    assert probe.scores(features) == pytest.approx(expected, abs=1e-2)


def test_strongest_of_equal_penalties_is_taken_even_behind_a_plateau() -> None:
    features, labels = clusters(100, 2, noise=0.1)
    probe = fit_linear_probe(features, labels)
    assert probe.held_out_accuracy[GRID[0]] == probe.held_out_accuracy[GRID[1]] < 0.7
    assert probe.strength == min(tried for tried, found in probe.held_out_accuracy.items() if found == 1.0)
    assert fit_linear_probe(features, labels, strength=0.5).held_out_accuracy == {}


def test_same_input_gives_the_same_probe() -> None:
    features, labels = clusters(200, 4, noise=3.0)
    first, second = (fit_linear_probe(features, labels) for _ in range(2))
    np.testing.assert_array_equal(first.scores(features), second.scores(features))


def test_held_out_images_are_a_fifth_of_each_class_that_has_two() -> None:
    labels = np.repeat([0, 1, 2, 3, 4], [1, 2, 4, 10, 100])
    held_out = held_out_images(labels, seed=3)
    assert np.bincount(labels[held_out], minlength=5).tolist() == [0, 1, 1, 2, 20]
    assert (held_out != held_out_images(labels, seed=4)).any()


def test_classes_of_one_image_are_learnt() -> None:
    features = 5 * np.eye(16, dtype=np.float32)
    probe = fit_linear_probe(features, np.arange(16))
    assert probe.strength == linear_probe.DEFAULT
    assert probe.scores(features).argmax(axis=1).tolist() == list(range(16))
    mixed = fit_linear_probe(np.concatenate([features, features[:3]]), np.array([*range(16), 0, 1, 2]))
    assert len(mixed.classes) == 16


def test_two_classes_have_two_scores() -> None:
    features, labels = clusters(60, 2, noise=1.0)
    probe = fit_linear_probe(features, labels + 3)
    assert probe.classes.tolist() == [3, 4]
    assert probe.scores(features).shape == (60, 2)
    assert (probe.classes[probe.scores(features).argmax(axis=1)] == labels + 3).mean() > 0.9


def test_one_class_is_refused() -> None:
    with pytest.raises(DatasetError, match="found 5 images of 1"):
        fit_linear_probe(np.ones((5, 3), dtype=np.float32), np.zeros(5, dtype=np.int64))


def test_a_fit_that_does_not_converge_is_recorded_not_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_probe, "MAXIMAL_ITERATIONS", 2)
    features, labels = clusters(200, 4, noise=3.0)
    assert not fit_linear_probe(features, labels).converged


def test_constant_features_give_a_constant_prediction() -> None:
    labels = np.arange(40) % 4
    probe = fit_linear_probe(np.ones((40, 8), dtype=np.float32), labels)
    assert len(np.unique(probe.scores(np.ones((12, 8), dtype=np.float32)).argmax(axis=1))) == 1
