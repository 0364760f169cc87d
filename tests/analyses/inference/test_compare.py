from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analyses.inference import Arm, Comparison, Design, bootstrap, compare
from analyses.tasks.pixel_counts import mean_intersection_over_union
from cachetool.errors import UnknownNameError


def with_ones(outcomes: np.ndarray) -> np.ndarray:
    return np.stack([outcomes.astype(float), np.ones(len(outcomes))], axis=1)


def mean_of_ratios(sums: np.ndarray) -> np.ndarray:
    return (sums[..., :2] / sums[..., 2:]).mean(axis=-1)


def compare_hits(*edited: np.ndarray, intact: np.ndarray, resamples: int = 2000) -> Comparison:
    arm = Arm([with_ones(seed) for seed in edited], with_ones(intact))
    return compare([arm], Design.images(len(intact)), binary=True, resamples=resamples)[0]


def lost(count: int, hits: int, losses: int) -> tuple[np.ndarray, np.ndarray]:
    """Edited and intact hits: `losses` of the intact ones are lost, none is gained."""
    intact = np.arange(count) < hits
    return intact & (np.arange(count) >= losses), intact


def test_interval_of_a_mean() -> None:
    """Against the normal approximation, which holds for 4,000 images, and scipy's percentile bootstrap."""
    rng = np.random.default_rng(0)
    intact = rng.random(4000) < 0.8
    edited = intact & (rng.random(4000) < 0.9)
    found = compare_hits(edited, intact=intact, resamples=4000)
    differences = edited.astype(float) - intact
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    oracle = stats.bootstrap(
        (differences,), np.mean, n_resamples=4000, method="percentile", batch=100, rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.difference == pytest.approx(differences.mean())
    for low, high in ((found.difference - 1.96 * error, found.difference + 1.96 * error), oracle):
        assert found.low == pytest.approx(low, abs=0.12 * error)
        assert found.high == pytest.approx(high, abs=0.12 * error)
    value_error = edited.std(ddof=1) / np.sqrt(4000)
    assert found.value == edited.mean()
    assert found.intact == intact.mean()
    assert found.value_low == pytest.approx(found.value - 1.96 * value_error, abs=0.12 * value_error)
    assert found.value_high == pytest.approx(found.value + 1.96 * value_error, abs=0.12 * value_error)
    assert not found.equivalent
    assert found.p_value == 2 / 4001
    assert (found.units, found.images, found.drawn, found.seeds, found.resamples) == (4000, 4000, 4000, 1, 4000)


def test_p_values_by_their_formulas() -> None:
    rng = np.random.default_rng(2)
    edited, intact = rng.random((2, 300))
    arm, design = Arm([with_ones(edited)], with_ones(intact)), Design.images(300)
    found = compare([arm], design, resamples=999, margin=0.05, confidence=0.9)[0]
    replicates = bootstrap([arm], lambda sums: sums[..., 0] / sums[..., 1], design, resamples=999)
    drawn = replicates.edited_resampled[0] - replicates.intact_resampled[0]
    assert (drawn <= 0).any()
    assert (drawn >= 0).any()
    assert found.p_value == pytest.approx(2 * (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / 1000)
    assert found.p_equivalence == pytest.approx(max(1 + (drawn <= -0.05).sum(), 1 + (drawn >= 0.05).sum()) / 1000)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.05, 0.95])))


def test_p_value_agrees_with_the_t_test() -> None:
    """For 2,000 images and an effect of about two standard errors."""
    rng = np.random.default_rng(3)
    intact = rng.random(2000)
    edited = np.clip(intact + 0.1 * rng.normal(size=2000) + 0.0045, 0, 1)
    arm = Arm([with_ones(edited)], with_ones(intact))
    found = compare([arm], Design.images(2000), resamples=10_000)[0]
    expected = stats.ttest_rel(edited, intact).pvalue
    assert 0.01 < expected < 0.2
    assert found.p_value == pytest.approx(expected, rel=0.15)


def test_seeds_are_averaged_before_images_are_resampled() -> None:
    """For a mean the same as one arm of averaged outcomes; the number of seeds is not a number of images."""
    rng = np.random.default_rng(4)
    intact, seeds = rng.random(80), rng.random((3, 80))
    design = Design.images(80)
    arms = [
        Arm([with_ones(seed) for seed in seeds], with_ones(intact)),
        Arm([with_ones(seeds.mean(0))], with_ones(intact)),
    ]
    several, averaged = compare(arms, design, resamples=500)
    assert (several.low, several.high) == pytest.approx((averaged.low, averaged.high))
    assert several.value == pytest.approx(seeds.mean())
    assert (several.p_value, several.p_equivalence) == (averaged.p_value, averaged.p_equivalence)
    assert (several.seeds, averaged.seeds) == (3, 1)


def test_mcnemar_is_exact_and_the_largest_over_seeds() -> None:
    intact = np.arange(100) < 50
    first = intact.copy()
    first[:9] = False  # 9 lost
    first[90] = True  # 1 gained
    second = intact.copy()
    second[:3] = False
    found = compare_hits(first, second, intact=intact)
    assert compare_hits(first, intact=intact).mcnemar_p == pytest.approx(2 * 11 / 2**10)
    assert found.mcnemar_p == pytest.approx(2 / 2**3)
    assert compare_hits(intact, intact=intact).mcnemar_p == 1
    arm = Arm([with_ones(first)], with_ones(intact))
    grouped = Design.images(100, np.arange(100) // 2)
    assert np.isnan(compare([arm], grouped, binary=True, resamples=50)[0].mcnemar_p)
    assert np.isnan(compare([arm], Design.images(100), resamples=50)[0].mcnemar_p)


def test_identical_arms() -> None:
    """Nothing differs: the exact bound decides, so that few images never show equivalence."""
    hits = np.random.default_rng(5).random(500) < 0.5
    found = compare_hits(hits, hits.copy(), hits.copy(), intact=hits)
    assert found.difference == 0
    assert found.high == -found.low == pytest.approx(1 - 0.05 ** (1 / 500))
    assert found.p_value == 1
    assert found.equivalent
    assert found.p_equivalence == pytest.approx(0.99**500)
    few = compare_hits(hits[:20], intact=hits[:20])
    assert not few.equivalent
    assert few.p_equivalence == pytest.approx(0.99**20)


def test_a_few_losses_do_not_pass_for_equivalence() -> None:
    """One loss in 400: its resamples end above -1 pp, yet a sample from a loss of 1 pp has one or none in 9 of 100."""
    edited, intact = lost(400, 300, 1)
    found = compare_hits(edited, intact=intact)
    replicates = bootstrap(
        [Arm([with_ones(edited)], with_ones(intact))],
        lambda sums: sums[..., 0] / 400,
        Design.images(400),
        resamples=2000,
    )
    percentile = np.quantile(replicates.edited_resampled - replicates.intact_resampled, 0.025)
    assert percentile > -0.01
    assert found.low < -0.01
    assert not found.equivalent
    assert found.p_equivalence == pytest.approx(stats.binom.cdf(1, 400, 0.01))


def test_few_losses_are_not_significant() -> None:
    """No resample of five losses and no gain gains anything, but the sign test has 2 / 2^5."""
    edited, intact = lost(400, 300, 5)
    assert compare_hits(edited, intact=intact).p_value == pytest.approx(2 / 2**5)


def test_perfect_values_are_not_certain() -> None:
    """All 60 right: up to 4.9 % wrong would go unseen; likewise all wrong."""
    right = np.ones(60, dtype=bool)
    found = compare_hits(~right, intact=right)
    assert (found.value_low, found.value_high) == pytest.approx((0, 1 - 0.05 ** (1 / 60)))
    assert (found.low, found.high) == pytest.approx((-1, -1 + 2 * (1 - 0.05 ** (1 / 60))))
    found = compare_hits(right, intact=right)
    assert (found.value_low, found.value_high) == pytest.approx((0.05 ** (1 / 60), 1))


def random_ious(units: int, differing: int) -> Arm:
    """Numerators and shared denominators of two classes; the first units lose one from the numerator."""
    rng = np.random.default_rng(6)
    sizes = rng.integers(20, 30, size=(units, 2)).astype(float)
    intact = np.concatenate([rng.integers(5, 20, size=(units, 2)), sizes], axis=1)
    edited = intact.copy()
    edited[:differing, 0] -= 1
    return Arm([edited], intact)


def test_ratios_of_sums() -> None:
    """A ratio has no exact bound: identical arms get no interval, few differing images no verdict, many an interval."""
    design = Design.images(200)
    none, few, many = compare(
        [random_ious(200, 0), random_ious(200, 4), random_ious(200, 30)], design, combine=mean_of_ratios, resamples=500
    )
    assert none.difference == 0
    assert none.p_value == 1
    assert np.isnan([none.low, none.high, none.p_equivalence]).all()
    assert not none.equivalent
    assert -0.01 < few.low < few.high < 0.01
    assert np.isnan(few.p_equivalence)
    assert few.p_value >= 2 / 2**4
    assert not few.equivalent
    assert -0.01 < many.low < many.high < 0
    assert many.p_value == 2 / 501
    assert many.equivalent
    assert many.p_equivalence == 1 / 501


def test_one_sequence_shows_nothing() -> None:
    rng = np.random.default_rng(7)
    arm = Arm([with_ones(rng.random(50) * 0.5)], with_ones(rng.random(50)))
    found = compare([arm], Design.images(50, ["walk"] * 50), resamples=100)[0]
    assert found.difference < -0.1
    assert found.low < -0.9
    assert found.high > 0.5
    assert found.p_value == 1
    assert (found.drawn, found.images) == (1, 50)


def test_undefined_resamples_are_left_out() -> None:
    """Two pairs without a common image: some resamples hold neither, and the others are counted."""
    arm, design = Arm([with_ones(np.array([0.2, 0.4]))], with_ones(np.array([0.3, 0.9]))), Design.pairs([0, 2], [1, 3])
    found = compare([arm], design, resamples=300)[0]
    empty = np.concatenate(list(design.weights(300, 0))).sum(axis=1) == 0
    assert found.resamples == 300 - empty.sum()
    assert (found.low, found.high) == pytest.approx((-0.5, -0.1))
    assert not found.equivalent
    assert np.isnan(found.p_equivalence)
    assert (found.units, found.images) == (2, 4)


def test_options_outside_their_range() -> None:
    arm, design = Arm([with_ones(np.ones(3))], with_ones(np.ones(3))), Design.images(3)
    with pytest.raises(UnknownNameError, match="--confidence 95: expected a fraction"):
        compare([arm], design, confidence=95)
    with pytest.raises(UnknownNameError, match="margin 0: expected a positive fraction"):
        compare([arm], design, margin=0)
    assert compare([], design, resamples=10) == []


def test_gains_are_no_equivalence_either() -> None:
    """One gain in 400 mirrors one loss."""
    edited, intact = lost(400, 300, 1)
    found = compare_hits(intact, intact=edited)
    assert found.high > 0.01
    assert not found.equivalent
    assert found.p_equivalence == pytest.approx(stats.binom.cdf(1, 400, 0.01))


def test_ratios_need_differing_sequences_not_images() -> None:
    """Thirty images differ, but they lie in two of forty sequences: no verdict."""
    arm, groups = random_ious(200, 30), np.concatenate([np.arange(30) // 15, 2 + np.arange(170) % 38])
    found = compare([arm], Design.images(200, groups), combine=mean_of_ratios, resamples=200)[0]
    assert found.low > -0.01
    assert not found.equivalent
    assert np.isnan(found.p_equivalence)


@pytest.mark.parametrize(
    ("edited", "intact"),
    [([1.0, 2.0], [1.0, 1.0]), ([3.0, 1.0], [3.0, 1.0])],
    ids=["other denominators", "numbers above 1"],
)
def test_exact_bounds_are_for_means_of_numbers_up_to_1(edited: list[float], intact: list[float]) -> None:
    found = compare([Arm([np.tile(edited, (30, 1))], np.tile(intact, (30, 1)))], Design.images(30), resamples=50)[0]
    assert np.isnan([found.low, found.high]).all()


def test_resamples_without_a_difference_count_on_both_sides() -> None:
    """A mean over three seeds is not exact in floating point: ties are checked against sums of integers."""
    rng = np.random.default_rng(8)
    intact, seeds = rng.random(150) < 0.5, rng.random((3, 150)) < 0.5
    design = Design.images(150)
    found = compare([Arm([with_ones(seed) for seed in seeds], with_ones(intact))], design, resamples=4000)[0]
    sums = np.concatenate(list(design.weights(4000, 0))).astype(int) @ (seeds.sum(axis=0) - 3 * intact.astype(int))
    assert (sums == 0).sum() > 10
    assert found.p_value == min(1, 2 * (1 + min((sums <= 0).sum(), (sums >= 0).sum())) / 4001)


def test_p_values_and_intervals_agree_about_zero() -> None:
    """Where the exact interval is used, the sign test says the same: 9 lost and 2 gained of 1,000 are no evidence."""
    intact, edited = np.ones(1000), np.ones(1000)
    edited[:9], intact[998:] = 0, 0
    found = compare_hits(edited, intact=intact)
    assert found.low < 0 < found.high
    assert found.p_value == pytest.approx(found.mcnemar_p)
    assert found.p_value > 0.05


def classes_in_images(count: int, common: int, rare: int, loss: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixel counts of an intact and an edited arm: common classes in all images, each rare one in a single image."""
    annotated, right = np.zeros((count, common + rare)), np.zeros((count, common + rare))
    annotated[:, :common] = 100
    annotated[np.arange(rare), common + np.arange(rare)] = 100
    right = 0.8 * annotated
    edited = right.copy()
    edited[:, common:] *= 1 - loss
    return tuple(np.concatenate([part, 0.9 * annotated, annotated], axis=1) for part in (right, edited))  # type: ignore[return-value]


def test_rare_classes_count_in_resamples_as_in_the_sample() -> None:
    """Left out of resamples that lack them, they would pull the interval away from its own estimate."""
    intact, edited = classes_in_images(300, 100, 50, 0.04)
    noise = np.random.default_rng(0).integers(0, 5, (300, 100))
    edited[:, :100] -= noise
    (found,) = compare(
        [Arm([edited], intact)],
        Design.images(300),
        combine=mean_intersection_over_union,
        keep_absent=True,
        resamples=1000,
    )
    assert found.difference < -0.01
    assert found.low < found.difference < found.high
    assert not found.equivalent
    (left_out,) = compare(
        [Arm([edited], intact)], Design.images(300), combine=mean_intersection_over_union, resamples=1000
    )
    assert left_out.low > left_out.difference  # what the trace is there for
    assert not left_out.equivalent
