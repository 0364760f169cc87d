from __future__ import annotations

import numpy as np
import pytest

from analyses.tasks.classification import Classification
from analyses.tasks.retrieval import Retrieval
from cachetool.errors import DatasetError, UnknownNameError
from tests.analyses.tasks.stand_ins import annotations, store


def test_hits_by_hand() -> None:
    """Four directions in a plane: 0, 10, 25 and 90 degrees, and one image of a class of its own at 30."""
    angles = np.deg2rad([0, 10, 25, 90, 30])
    cache = store(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    outcomes = Retrieval(neighbours=3).measure(cache, None, annotations([0, 0, 1, 1, 2]))
    assert outcomes.image_id.values.tolist() == [f"image {index:04}" for index in range(4)]
    assert outcomes.label.values.tolist() == [0, 0, 1, 1]
    assert outcomes.nearest.values.tolist() == [[1, 2, 4, 3, -1], [0, 2, 4, 3, -1], [4, 1, 0, 3, -1], [4, 2, 1, 0, -1]]
    assert outcomes.hit1.values.tolist() == [True, True, False, False]
    assert outcomes.hit5.values.tolist() == [True, True, True, True]
    # The weights exp(cosine / 0.07) of the three nearest: the close one outvotes the others, and of image 3 the
    # neighbours at 30, 25 and 10 degrees are of classes 2, 1 and 0, of which the nearest wins.
    assert outcomes.knn_hit.values.tolist() == [True, True, False, False]
    assert outcomes.attrs == {"database_images": 5, "queries_left_out": 1}
    values = {metric.name: metric.value(outcomes) for metric in Retrieval().metrics}
    assert values == {"recall@1": 0.5, "recall@5": 1.0, "knn": 0.5}


def test_unreadable_and_unlabelled_images_are_neither_query_nor_database() -> None:
    features = np.random.default_rng(0).standard_normal((30, 6))
    features[4] = np.nan
    labels = np.arange(30) % 3
    labels[11] = -1
    readable = np.arange(30) != 4
    outcomes = Retrieval().measure(store(features, readable), None, annotations(labels))
    kept = np.delete(np.arange(30), [4, 11])
    expected = Retrieval().measure(store(features[kept]), None, annotations(labels[kept]))
    assert outcomes.image_id.values.tolist() == [f"image {index:04}" for index in kept]
    np.testing.assert_array_equal(outcomes.nearest.values, kept[expected.nearest.values])
    assert outcomes.attrs["database_images"] == 28


@pytest.mark.parametrize("value", [0.0, 2.5])
@pytest.mark.parametrize("per_class", [10, 100])
def test_constant_features_are_at_chance(value: float, per_class: int) -> None:
    """As of a [CLS] token that an edit made constant; images lie class by class, as in folders of images."""
    labels = np.repeat(np.arange(10), per_class)
    images = len(labels)
    outcomes = Retrieval().measure(store(np.full((images, 24), value)), None, annotations(labels))
    metrics = {metric.name: metric.value(outcomes) for metric in Retrieval().metrics}
    chance = (per_class - 1) / (images - 1)
    error = np.sqrt(chance * (1 - chance) / images)
    assert metrics["recall@1"] == pytest.approx(chance, abs=4 * error)
    assert metrics["recall@5"] == pytest.approx(1 - (1 - chance) ** 5, abs=4 * np.sqrt(0.25 / images))
    assert metrics["knn"] == pytest.approx(chance, abs=6 * error)  # queries with neighbouring places share neighbours
    hits = outcomes.hit1.values.reshape(10, per_class).sum(axis=1)
    assert hits.max() < 0.6 * per_class  # no class is favoured


def test_classes_are_found_in_features_that_tell_them() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 5, 200)
    features = np.eye(5, 12)[labels] + 0.05 * rng.standard_normal((200, 12))
    outcomes = Retrieval().measure(store(features), None, annotations(labels))
    assert all(metric.value(outcomes) == 1.0 for metric in Retrieval().metrics)
    assert all(metric.binary for metric in Retrieval().metrics)


def test_readouts_name_the_task() -> None:
    task = Retrieval("patches")
    assert (task.name, task.tokens, Retrieval().name) == ("retrieval:patches", ("patches",), "retrieval")
    rng = np.random.default_rng(2)
    patches = rng.standard_normal((40, 4, 6))
    labels = np.arange(40) % 4
    found = task.measure(store(np.zeros((40, 6)), patches=patches), None, annotations(labels))
    expected = Retrieval().measure(store(patches.mean(axis=1)), None, annotations(labels))
    np.testing.assert_array_equal(found.nearest.values, expected.nearest.values)
    with pytest.raises(UnknownNameError):
        Retrieval("pooled")


def test_obstacles() -> None:
    cache = store(np.eye(4))
    task = Retrieval()
    assert task.obstacle(cache, annotations([0, 0, 1, 2])) is None
    assert task.obstacle(cache, annotations(None)) == "imagefolder:stand-in has no class labels"
    alone = annotations([0, 1, 2, 3])
    assert task.obstacle(cache, alone) == "no class of imagefolder:stand-in has two images that could be decoded"
    assert "needs patches" in str(Retrieval("patches").obstacle(cache, annotations([0, 0, 1, 1])))
    with pytest.raises(DatasetError, match="no class labels"):
        task.measure(cache, None, annotations(None))
    with pytest.raises(DatasetError, match="has two images"):
        task.measure(cache, None, alone)


def test_settings_that_cannot_be_measured_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"neighbours is at least 1, got 0; temperature lies above 0, got 0.0"):
        Retrieval(neighbours=0, temperature=0.0)
    with pytest.raises(UnknownNameError, match=r"strength lies above 0, got -1.0; seed is 0 or more, got -1"):
        Classification(strength=-1.0, seed=-1)
