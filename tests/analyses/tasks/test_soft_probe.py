from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from analyses.tasks import soft_probe
from analyses.tasks.soft_labels import SoftLabels
from analyses.tasks.soft_probe import DEFAULT, GRID, MARGIN, fit_soft_probe
from cachetool.errors import DatasetError


def sample(
    images: int, classes: int = 4, noise: float = 1.0, patches: int = 16, seed: int = 0
) -> tuple[np.ndarray, SoftLabels]:
    """Features of entries and soft labels in quarters: half of the patches belong to two classes."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, classes, images * patches)
    second = np.where(rng.random(len(first)) < 0.5, first, rng.integers(0, classes, len(first)))
    quarters = rng.integers(1, 4, len(first)) / 4
    shares = np.zeros((len(first), classes))
    shares[np.arange(len(first)), first] += quarters
    shares[np.arange(len(first)), second] += 1 - quarters
    token, label = np.nonzero(shares)
    features = 2 * shares @ np.eye(classes, 8) + noise * rng.standard_normal((len(first), 8)) + 3
    labels = SoftLabels(token // patches, token % patches, label, shares[token, label])
    return features[token].astype(np.float32), labels


def distinct(features: np.ndarray, labels: SoftLabels) -> np.ndarray:
    """Features of each patch once."""
    return features[np.unique(labels.image * 1000 + labels.patch, return_index=True)[1]]


def cross_entropy(logits: np.ndarray, labels: SoftLabels) -> float:
    entry = np.arange(len(labels.label))
    return float(-(log_softmax(logits.astype(np.float64), axis=1)[entry, labels.label] * labels.share).sum())


@pytest.mark.parametrize("classes", [2, 4])
def test_soft_labels_equal_duplicated_rows(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of three quarters counts as three rows of four; each patch then weighs 4, which C undoes."""
    monkeypatch.setattr(soft_probe, "TOLERANCE", 1e-8)
    features, labels = sample(10, classes)
    probe = fit_soft_probe(features, labels, strength=0.1)
    patches = distinct(features, labels).astype(np.float64)
    scaled = (features - patches.mean(axis=0)) / patches.std(axis=0)
    copies = np.repeat(np.arange(len(labels.label)), np.round(4 * labels.share).astype(int))
    oracle = LogisticRegression(C=0.1 / 4, tol=1e-8, max_iter=10_000).fit(scaled[copies], labels.label[copies])
    found = probe.logits(features)
    expected = oracle.decision_function(scaled)
    if classes == 2:
        expected = np.stack([0 * expected, expected], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp(expected) > 1
    assert probe.patches == len(patches) == 160
    assert probe.converged
    assert probe.strength == 0.1
    assert probe.held_out_loss == {}
    assert probe.classes.tolist() == list(range(classes))


def test_fit_minimises_the_cross_entropy_of_soft_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written from the formula: no step in any direction lowers C * cross-entropy + squared weights / 2."""
    monkeypatch.setattr(soft_probe, "TOLERANCE", 1e-8)
    features, labels = sample(6)
    probe = fit_soft_probe(features, labels, strength=0.5)
    scale = distinct(features, labels).astype(np.float64).std(axis=0)

    def objective(weight: np.ndarray, bias: np.ndarray) -> float:
        return 0.5 * cross_entropy(features @ weight.T + bias, labels) + 0.5 * float(((weight * scale) ** 2).sum())

    weight, bias = probe.weight.astype(np.float64), probe.bias.astype(np.float64)
    least = objective(weight, bias)
    rng = np.random.default_rng(0)
    for _ in range(20):
        step, shift = 0.05 * rng.standard_normal(weight.shape), 0.05 * rng.standard_normal(bias.shape)
        assert objective(weight + step, bias + shift) > least


def test_held_out_images_choose_the_strength() -> None:
    features, labels = sample(40)
    probe = fit_soft_probe(features, labels)
    assert tuple(probe.held_out_loss) == GRID
    least = min(probe.held_out_loss.values())
    assert probe.strength == min(s for s, loss in probe.held_out_loss.items() if loss <= least * (1 + MARGIN))
    assert fit_soft_probe(features, labels, seed=1).held_out_loss != probe.held_out_loss

    noise = np.random.default_rng(1).standard_normal((len(features), 300)).astype(np.float32)
    useless = fit_soft_probe(noise, labels)
    assert useless.strength < probe.strength


def test_held_out_loss_by_formula() -> None:
    """The loss of one strength from its own fit on the other images; held-out entries weigh their share."""
    features, labels = sample(20)
    probe = fit_soft_probe(features, labels)
    images = np.random.Generator(np.random.Philox(key=0)).permutation(20)
    held_out = np.isin(labels.image, images[:4])
    for strength in (1e-3, 1e-1):
        part = fit_soft_probe(features[~held_out], labels.select(~held_out), strength=strength)
        tested = labels.select(held_out)
        loss = cross_entropy(part.logits(features[held_out]), tested) / tested.share.sum()
        assert probe.held_out_loss[strength] == pytest.approx(loss, rel=2e-3)


def test_the_same_input_gives_the_same_probe() -> None:
    features, labels = sample(12)
    first, second = fit_soft_probe(features, labels), fit_soft_probe(features.copy(), labels)
    np.testing.assert_array_equal(first.weight, second.weight)
    np.testing.assert_array_equal(first.bias, second.bias)


def test_one_image_takes_the_default() -> None:
    features, labels = sample(1)
    probe = fit_soft_probe(features, labels)
    assert probe.strength == DEFAULT
    assert probe.held_out_loss == {}


def test_a_class_of_one_image_is_learned() -> None:
    """Wherever that image falls, in the held-out part or not, the final fit knows its class."""
    features, labels = sample(10)
    for image in range(10):
        label = np.where(labels.image == image, 7, labels.label)
        marked = SoftLabels(labels.image, labels.patch, label, labels.share)
        probe = fit_soft_probe(features, marked)
        assert 7 in probe.classes
        assert np.isfinite(list(probe.held_out_loss.values())).all()


def test_one_class_is_refused() -> None:
    features, labels = sample(4)
    single = labels.label == 2
    with pytest.raises(DatasetError, match=r"two classes or more, found \d+ of 1; name a training set"):
        fit_soft_probe(features[single], labels.select(single))
    nothing = np.zeros(len(single), dtype=bool)
    with pytest.raises(DatasetError, match="found 0 of 0"):
        fit_soft_probe(features[nothing], labels.select(nothing))


def test_an_unfinished_fit_is_recorded_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft_probe, "MAXIMAL_ITERATIONS", 2)
    features, labels = sample(10)
    assert not fit_soft_probe(features, labels, strength=10.0).converged
