from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import top_k_accuracy_score

import cachetool
from analyses.tasks.head import OwnHead
from cachetool.errors import DatasetError, InvalidEditError
from tests.analyses.tasks.stand_ins import annotations, store

CLASSES = 20
WORDNET = tuple(f"n{index:08}" for index in range(CLASSES))


@pytest.fixture
def logits(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Logits of 60 images that the head's stand-in gives."""
    drawn = np.random.default_rng(0).standard_normal((60, CLASSES)).astype(np.float32)

    def classify(cache: xr.Dataset, *, weights: str | None = None, limit: int | None = None) -> xr.DataArray:
        return xr.DataArray(drawn, dims=("image", "class"))

    monkeypatch.setattr(cachetool, "classify", classify)
    return drawn


def test_outcomes_of_the_heads_logits(logits: np.ndarray) -> None:
    labels = np.arange(60) % CLASSES
    labels[1] = -1
    logits[5] = np.nan
    outcomes = OwnHead().measure(store(np.zeros((60, 4)), np.arange(60) != 5), None, annotations(labels, WORDNET))
    kept = np.delete(np.arange(60), [1, 5])
    assert outcomes.image_id.values.tolist() == [f"image {index:04}" for index in kept]
    assert outcomes.prediction.values.tolist() == logits[kept].argmax(axis=1).tolist()
    for metric, count in zip(OwnHead().metrics, (1, 5), strict=True):
        expected = top_k_accuracy_score(labels[kept], logits[kept], k=count, labels=np.arange(CLASSES))
        assert metric.value(outcomes) == pytest.approx(expected)
    assert OwnHead().metrics[0].value(outcomes) < OwnHead().metrics[1].value(outcomes)


@pytest.mark.usefixtures("logits")
def test_applies_where_the_order_of_classes_is_known() -> None:
    cache, labels = store(np.zeros((60, 4))), np.zeros(60)
    task = OwnHead()
    assert task.obstacle(cache, annotations(labels, WORDNET)) is None
    assert task.obstacle(cache, annotations(labels, tuple(map(str, range(CLASSES))), "imagenet-val")) is None
    refused: dict[str, Any] = {
        "has no named classes": annotations(None, WORDNET),
        "has 19 classes, and the weights' head 20": annotations(labels, WORDNET[1:]),
        "not named by ascending WordNet ids": annotations(labels, tuple(reversed(WORDNET))),
        "are not known to be those of the weights' head": annotations(labels, tuple(map(str, range(CLASSES)))),
    }
    for reason, named in refused.items():
        assert reason in str(task.obstacle(cache, named))
        with pytest.raises(DatasetError, match=reason):
            task.measure(cache, None, named)


def test_weights_without_a_head_are_an_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    def classify(cache: xr.Dataset, *, weights: str | None = None, limit: int | None = None) -> xr.DataArray:
        raise InvalidEditError("the weights bring no classification head")

    monkeypatch.setattr(cachetool, "classify", classify)
    found = OwnHead().obstacle(store(np.zeros((60, 4))), annotations(np.zeros(60), WORDNET))
    assert found == "the weights bring no classification head"
