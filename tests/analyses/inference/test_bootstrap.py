from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyses.inference import Arm, Design, Replicates, bootstrap
from analyses.tasks.base import ratio
from cachetool.errors import DatasetError, UnknownNameError


def with_ones(outcomes: np.ndarray) -> np.ndarray:
    return np.stack([outcomes.astype(float), np.ones(len(outcomes))], axis=1)


def mean_of_ratios(sums: np.ndarray) -> np.ndarray:
    """Two classes, four columns: numerators, then denominators (as mIoU)."""
    return (sums[..., :2] / sums[..., 2:]).mean(axis=-1)


def random_arms(rng: np.random.Generator, units: int) -> list[Arm]:
    shared = rng.integers(5, 9, size=(units, 2)).astype(float)

    def columns() -> np.ndarray:
        return np.concatenate([rng.integers(0, 5, size=(units, 2)), shared], axis=1)

    intact = columns()
    return [Arm([columns(), columns(), columns()], intact), Arm([columns()], columns())]


def test_replicates_are_those_of_explicit_resampling() -> None:
    """Against taking each unit as often as its weight says, arm by arm and seed by seed."""
    rng = np.random.default_rng(0)
    arms, design = random_arms(rng, 12), Design.images(12)
    found = bootstrap(arms, mean_of_ratios, design, resamples=6, seed=5)
    for resample, weights in enumerate(np.concatenate(list(design.weights(6, 5)))):
        rows = np.repeat(np.arange(12), weights.astype(int))
        for number, arm in enumerate(arms):
            values = [mean_of_ratios(seed[rows].sum(axis=0)) for seed in arm.edited]
            assert found.edited_resampled[number, resample] == pytest.approx(np.mean(values), rel=1e-12)
            intact = mean_of_ratios(arm.intact[rows].sum(axis=0))
            assert found.intact_resampled[number, resample] == pytest.approx(intact, rel=1e-12)
    for number, arm in enumerate(arms):
        whole = np.mean([mean_of_ratios(seed.sum(axis=0)) for seed in arm.edited])
        assert found.edited[number] == pytest.approx(whole, rel=1e-12)
        assert found.intact[number] == pytest.approx(mean_of_ratios(arm.intact.sum(axis=0)), rel=1e-12)


def test_arms_share_their_resamples() -> None:
    """An arm's replicates do not depend on which other arms are evaluated with it."""
    arms, design = random_arms(np.random.default_rng(1), 20), Design.images(20)
    together = bootstrap(arms, mean_of_ratios, design, resamples=50)
    alone = bootstrap(arms[1:], mean_of_ratios, design, resamples=50)
    assert together.edited_resampled[1] == pytest.approx(alone.edited_resampled[0], rel=1e-12)
    assert together.intact_resampled[1] == pytest.approx(alone.intact_resampled[0], rel=1e-12)


def test_shared_columns_are_multiplied_once() -> None:
    """Two arms of two seeds, one intact arm, ones throughout: 4 + 1 + 1 distinct columns."""
    rng = np.random.default_rng(2)
    multiplied = []

    class Watched(Design):
        def weights(self, resamples: int, seed: int, chunk: int | None = None):  # type: ignore[no-untyped-def]
            for part in super().weights(resamples, seed, chunk):
                yield part.view(Product)

    class Product(np.ndarray):
        def __matmul__(self, other: np.ndarray) -> np.ndarray:
            multiplied.append(other.shape)
            return np.asarray(self) @ other

    outcomes = [with_ones(rng.random(9)) for _ in range(5)]
    # Equal content in another array, as two runs of one metric give it.
    arms = [Arm(outcomes[0:2], outcomes[4]), Arm(outcomes[2:4], outcomes[4].copy())]
    bootstrap(arms, ratio, Watched(9, 9, 9, np.arange(9)), resamples=10)
    assert multiplied == [(9, 6)]


@settings(max_examples=20)
@given(st.integers(2, 20), st.integers(0, 2**32))
def test_same_seed_same_answer(units: int, seed: int) -> None:
    arms, design = random_arms(np.random.default_rng(3), units), Design.images(units)

    def replicates() -> Replicates:
        return bootstrap(arms, mean_of_ratios, design, resamples=8, seed=seed)

    assert (replicates().edited_resampled == replicates().edited_resampled).all()
    assert (replicates().intact_resampled == replicates().intact_resampled).all()


def test_the_order_of_units_does_not_matter() -> None:
    """In distribution: mean and spread agree within five standard errors of the replicates' own."""
    rng = np.random.default_rng(4)
    outcomes, resamples = with_ones(rng.random(40) < 0.7), 20_000
    found = [
        bootstrap([Arm([columns], columns)], ratio, Design.images(40), resamples=resamples).edited_resampled[0]
        for columns in (outcomes, outcomes[::-1])
    ]
    assert (found[0] != found[1]).any()
    spread = found[0].std()
    assert found[1].mean() == pytest.approx(found[0].mean(), abs=5 * spread * np.sqrt(2 / resamples))
    assert found[1].std() == pytest.approx(spread, rel=5 / np.sqrt(resamples))


def test_a_resample_without_pairs_is_undefined() -> None:
    """Of two pairs without a common image, some resamples draw neither: NaN, and no warning."""
    columns, design = with_ones(np.array([1.0, 0.0])), Design.pairs([0, 2], [1, 3])
    found = bootstrap([Arm([columns], columns)], ratio, design, resamples=300).edited_resampled[0]
    empty = np.concatenate(list(design.weights(300, 0))).sum(axis=1) == 0
    assert 0 < empty.sum() < 300
    assert (np.isnan(found) == empty).all()


def test_faulty_arms_are_all_named() -> None:
    good, gap = with_ones(np.ones(4)), with_ones(np.array([1, np.nan, 0, 1]))
    arms = [Arm([good], good), Arm([good[:3]], good), Arm([good, gap], good), Arm([], good)]
    with pytest.raises(DatasetError) as caught:
        bootstrap(arms, ratio, Design.images(4))
    message = str(caught.value)
    assert "arm 0" not in message
    assert "arm 1, seed 0 has the shape (3, 2), expected (4 units, 2 columns)" in message
    assert "arm 2, seed 1 is not finite for 1 units, first [1]" in message
    assert "arm 3 has no seed" in message


def test_no_arms_and_no_resamples() -> None:
    assert bootstrap([], ratio, Design.images(4), resamples=5).edited_resampled.shape == (0, 5)
    with pytest.raises(UnknownNameError, match="--resamples 0: expected at least 1"):
        bootstrap([], ratio, Design.images(4), resamples=0)
