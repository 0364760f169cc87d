from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import top_k_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from analyses.tasks.classification import Classification
from analyses.tasks.shares import hits
from cachetool.errors import DatasetError, UnknownNameError
from tests.analyses.tasks.stand_ins import annotations, store

NAMES = tuple("abcdefgh")


def sample(images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 8, images)
    return 2 * np.eye(8, 12)[labels] + rng.standard_normal((images, 12)), labels


def test_outcomes_against_scikit_learn() -> None:
    task = Classification(strength=0.3)
    features, labels = sample(400, 0)
    tested, true = sample(150, 1)
    head = task.fit(store(features), annotations(labels, NAMES))
    outcomes = task.measure(store(tested), head, annotations(true, NAMES))
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, tol=1e-8, max_iter=10_000)).fit(features, labels)
    assert (outcomes.prediction.values == oracle.predict(tested)).mean() > 0.99
    assert outcomes.label.values.tolist() == true.tolist()
    np.testing.assert_array_equal(outcomes.hit.values, outcomes.prediction.values == true)
    top1, top5 = task.metrics
    assert top1.value(outcomes) == pytest.approx(oracle.score(tested, true), abs=1 / 150)
    expected = top_k_accuracy_score(true, oracle.decision_function(tested), k=5)
    assert top5.value(outcomes) == pytest.approx(expected, abs=1 / 150)
    assert 0.5 < top1.value(outcomes) < top5.value(outcomes) < 1
    assert (top1.name, top1.binary, top1.unit) == ("top1", True, "image")
    assert outcomes.attrs == {"strength": 0.3, "converged": 1}


def test_classes_are_matched_by_name() -> None:
    """The evaluated set numbers its classes otherwise, and has fewer of them."""
    task = Classification(strength=1.0)
    features, labels = sample(400, 0)
    tested, true = sample(150, 1)
    head = task.fit(store(features), annotations(labels, NAMES))
    plain = task.measure(store(tested), head, annotations(true, NAMES))

    chosen = true >= 3
    renamed = annotations(7 - true[chosen], tuple(reversed(NAMES))[:5])
    outcomes = task.measure(store(tested[chosen]), head, renamed)
    np.testing.assert_array_equal(outcomes.hit.values, plain.hit.values[chosen])
    np.testing.assert_array_equal(outcomes.hit5.values, plain.hit5.values[chosen])
    predicted = plain.prediction.values[chosen]
    np.testing.assert_array_equal(outcomes.prediction.values, np.where(predicted >= 3, 7 - predicted, -1))
    assert (outcomes.prediction == -1).any()

    unnamed = task.measure(store(tested), head, annotations(true))
    np.testing.assert_array_equal(unnamed.hit.values, plain.hit.values)


def test_classes_without_training_images_are_named() -> None:
    task = Classification(strength=1.0)
    features, labels = sample(200, 0)
    chosen = (labels != 2) & (labels != 5)
    head = task.fit(store(features[chosen]), annotations(labels[chosen], NAMES))
    tested, true = sample(100, 1)
    with pytest.raises(DatasetError, match=r"2 classes of imagefolder:stand-in have no training image .*: c, f;"):
        task.measure(store(tested), head, annotations(true, NAMES))
    # A class that is only listed, and has no image among the evaluated ones, stops nothing.
    kept = (true != 2) & (true != 5)
    assert task.measure(store(tested[kept]), head, annotations(true[kept], NAMES)).sizes["image"] == kept.sum()


def test_unreadable_and_unlabelled_images_are_left_out() -> None:
    task = Classification()
    features, labels = sample(200, 0)
    spoilt, partly = features.copy(), labels.copy()
    spoilt[10], partly[20] = np.nan, -1
    readable = np.arange(200) != 10
    head = task.fit(store(spoilt, readable), annotations(partly, NAMES))
    kept = np.delete(np.arange(200), [10, 20])
    expected = task.fit(store(features[kept]), annotations(labels[kept], NAMES))
    np.testing.assert_array_equal(head.probe.scores(features), expected.probe.scores(features))
    outcomes = task.measure(store(spoilt, readable), head, annotations(partly, NAMES))
    assert outcomes.image_id.values.tolist() == [f"image {index:04}" for index in kept]
    assert outcomes.attrs["strength"] == head.probe.strength
    assert dict(zip(outcomes.attrs["strengths_tried"], outcomes.attrs["held_out_accuracies"], strict=True)) == (
        head.probe.held_out_accuracy
    )


def test_readouts_name_the_task() -> None:
    assert Classification().name == "classification"
    task = Classification("registers:1@12")
    assert (task.name, task.tokens) == ("classification:registers:1@12", ("registers",))
    assert task.settings != Classification("registers:1").settings
    features, labels = sample(200, 0)
    registers = np.stack([np.zeros_like(features), features], axis=1)
    cache = store(np.zeros_like(features), registers=registers)
    outcomes = task.measure(cache, task.fit(cache, annotations(labels)), annotations(labels))
    assert outcomes.hit.values.mean() > 0.6
    with pytest.raises(UnknownNameError):
        Classification("pooled")


def test_constant_features_are_at_chance() -> None:
    """As of a [CLS] token that an edit made constant: one prediction for all."""
    task = Classification()
    features, labels = sample(400, 0)
    head = task.fit(store(features), annotations(labels))
    balanced = np.repeat(np.arange(8), 10)
    outcomes = task.measure(store(np.full((80, 12), 0.7)), head, annotations(balanced))
    assert [metric.value(outcomes) for metric in task.metrics] == [1 / 8, 5 / 8]


def test_equal_scores_count_against_the_five_best() -> None:
    scores = np.array([[5, 4, 3, 2, 1, 0], [5, 4, 3, 2, 1, 1], [0, 0, 0, 0, 0, 0.0]])
    best, among = hits(scores, np.array([0, 4, 3]))
    assert best.tolist() == [True, False, False]
    assert among.tolist() == [True, False, False]
    assert hits(scores, np.array([4, 3, 0]))[1].tolist() == [True, True, True]


def test_obstacles() -> None:
    cache, task = store(np.eye(4), np.array([True, True, False, False])), Classification()
    assert task.obstacle(cache, annotations([0, 1, 2, 3])) is None
    assert task.obstacle(cache, annotations(None)) == "imagefolder:stand-in has no class labels"
    unlabelled = annotations([-1, -1, 0, 1])
    assert "could be decoded has a class label" in str(task.obstacle(cache, unlabelled))
    assert "needs registers" in str(Classification("registers").obstacle(cache, annotations([0, 1, 2, 3])))
    with pytest.raises(DatasetError, match="no class labels"):
        task.fit(cache, annotations(None))
    with pytest.raises(DatasetError, match="could be decoded has a class label, out of 4"):
        task.fit(cache, unlabelled)
