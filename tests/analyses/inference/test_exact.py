from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest, poisson

from analyses.inference import Design
from analyses.inference.exact import FEW, RARE, FewDeviations


def few(outcomes: np.ndarray, design: Design | None = None, sizes: np.ndarray | None = None) -> FewDeviations | None:
    sizes = np.ones(len(outcomes)) if sizes is None else sizes
    return FewDeviations.find(outcomes * sizes, sizes, design or Design.images(len(outcomes)), -1.0, 1.0)


def changed(count: int, rises: int, falls: int) -> np.ndarray:
    return np.concatenate([np.ones(rises), -np.ones(falls), np.zeros(count - rises - falls)])


def described(outcomes: np.ndarray, design: Design | None = None, sizes: np.ndarray | None = None) -> FewDeviations:
    found = few(outcomes, design, sizes)
    assert found is not None
    return found


def test_nothing_deviates() -> None:
    """The rule of three, and what it leaves open above outcomes that are all at their lowest."""
    assert described(changed(300, 0, 0)).interval(0.95) == pytest.approx((-0.00994, 0.00994), abs=1e-5)
    assert described(-np.ones(100)).interval(0.95) == pytest.approx((-1, -1 + 2 * (1 - 0.05**0.01)))
    assert described(np.full(100, 0.5)).interval(0.95) == pytest.approx(
        (0.5 - 1.5 * (1 - 0.05**0.01), 0.5 + 0.5 * (1 - 0.05**0.01))
    )


def test_a_few_deviate() -> None:
    """Clopper-Pearson limits as scipy computes them, squared and added by hand."""
    outcomes, count = changed(1000, 1, 4), 1000

    def limits(seen: int) -> tuple[float, float]:
        return tuple(binomtest(seen, count).proportion_ci(0.95, method="exact"))

    low = -0.003 - np.sqrt((0.001 - limits(1)[0]) ** 2 + (limits(4)[1] - 0.004) ** 2)
    high = -0.003 + np.sqrt((limits(1)[1] - 0.001) ** 2 + (0.004 - limits(4)[0]) ** 2)
    assert described(outcomes).interval(0.95) == pytest.approx((low, high), rel=1e-9)


def test_deviations_count_by_their_size() -> None:
    """Twenty images that change in one seed of two move the bounds half as far as twenty that change in both."""
    whole, half = (described(size * changed(5000, 0, 20)).interval(0.95) for size in (1.0, 0.5))
    assert half == pytest.approx((whole[0] / 2, whole[1] / 2), rel=1e-9)


def test_small_deviations_say_nothing_about_larger_ones() -> None:
    """An image that is lost in one seed of ten must not narrow what the other images leave open."""
    none = described(np.zeros(200)).interval(0.95)
    outcomes = np.zeros(200)
    outcomes[0] = -0.1
    low, high = described(outcomes).interval(0.95)
    unseen = 1 - 0.05 ** (1 / 200)
    assert (low, high) == pytest.approx((-0.0005 - unseen, -0.0005 + unseen), rel=1e-9)
    assert high - low == pytest.approx(none[1] - none[0])
    assert described(outcomes).p_at_most(-0.01) == pytest.approx((1 - 0.0095) ** 200)


def test_the_size_of_deviations_is_their_root_mean_square() -> None:
    """One image lost in all of four seeds, three in one seed each: the bound follows from counts and squares."""
    outcomes = np.zeros(500)
    outcomes[:4] = -1, -0.25, -0.25, -0.25
    exact, size = binomtest(4, 500).proportion_ci(0.95), np.sqrt((1 + 3 / 16) / 4)
    low = -1.75 / 500 - (exact.high - 4 / 500) * size  # no rise was seen, so none can be missing
    none_seen = binomtest(0, 500).proportion_ci(0.95).high * size
    high = -1.75 / 500 + np.hypot(none_seen, (4 / 500 - exact.low) * size)
    unseen = -1.75 / 500 + 1 - 0.05 ** (1 / 500)  # an image that gains in all seeds
    assert described(outcomes).interval(0.95) == pytest.approx((low, max(high, unseen)), rel=1e-9)


def test_from_fifty_on_the_bootstrap_is_trusted() -> None:
    assert few(changed(200, 4, RARE - 5)) is not None
    assert few(changed(200, 4, RARE - 4)) is None
    assert described(changed(200, 4, RARE - 5)).p_sign == pytest.approx(binomtest(4, RARE - 1).pvalue)
    unlike = changed(200, 4, FEW - 4)
    unlike[0] = 0.5
    assert described(unlike).p_sign == 0
    assert described(unlike[1:]).p_sign > 0.5


def test_rounding_is_no_deviation() -> None:
    """A mean over three seeds differs from the number itself in the last place."""
    outcomes = np.full(50, 0.1)
    outcomes[::2] = (0.1 + 0.1 + 0.1) / 3
    assert len(np.unique(outcomes)) == 2
    assert described(outcomes).falls == described(outcomes).rises == 0


@pytest.mark.parametrize(("rises", "falls"), [(0.5, 0), (2, 0), (3, 0), (1, 1), (2, 1)])
def test_coverage_by_enumeration(rises: float, falls: float) -> None:
    """Exact, for rare changes among 500 images: all samples of notable (Poisson) probability."""
    count, missed = 500, 0.0
    truth = (rises - falls) / count
    for up in range(20):
        for down in range(20):
            low, high = described(changed(count, up, down)).interval(0.95)
            if not low <= truth <= high:
                missed += poisson.pmf(up, rises) * poisson.pmf(down, falls)
    assert missed < 0.055


def test_one_sided_tests() -> None:
    """Binomial tails: the chance of so few falls, were the mean at the margin."""
    none = described(changed(300, 0, 0))
    assert none.p_at_most(-0.01) == none.p_at_least(0.01) == pytest.approx(0.99**300)
    falls = described(changed(1000, 0, 3))
    assert falls.p_at_most(-0.01) == pytest.approx(binom.cdf(3, 1000, 0.01))
    assert falls.p_at_least(0.01) == pytest.approx(binom.cdf(0, 1000, 0.013))  # 0.3 pp of falls are to be made up for
    below = described(-np.ones(20))
    assert below.p_at_most(-0.01) == 1
    assert below.p_at_least(0.01) == pytest.approx((0.99 / 2) ** 20)


def test_sign_test() -> None:
    assert described(changed(100, 0, 0)).p_sign == 1
    assert described(changed(100, 0, 5)).p_sign == pytest.approx(2 / 2**5)
    assert described(changed(100, 1, 3)).p_sign == pytest.approx(2 * (1 + 4) / 2**4)
    assert described(-np.ones(4)).p_sign == pytest.approx(2 / 2**4)
    assert described(np.array([0.5])).p_sign == 1  # one image shows nothing


def test_groups_are_what_is_counted() -> None:
    """Thirty images in three sequences: only three things were seen to agree."""
    groups = np.repeat([0, 1, 2], 10)
    found = described(np.zeros(30), Design.images(30, groups))
    assert found.interval(0.95)[1] == pytest.approx(1 - 0.05 ** (1 / 3))
    one = np.zeros(30)
    one[:10] = -1
    found = described(one, Design.images(30, groups))
    assert (found.count, found.rises, found.falls, found.fall) == (3, 0, 1, pytest.approx(1 / 3))


def test_large_groups_weigh_more() -> None:
    """Nothing differs in 60 groups, one of which holds 1.967 times the mean: an unseen one could be as large."""
    groups = np.concatenate([np.arange(60), [0]])
    found = described(np.zeros(61), Design.images(61, groups))
    assert found.interval(0.95)[1] == pytest.approx((1 - 0.05 ** (1 / 60)) * 2 / (61 / 60))


def test_units_of_several_sizes() -> None:
    """A mean over pixels: images weigh by their annotated pixels, those without any not at all."""
    sizes = np.array([100.0, 300, 0, 200])
    found = described(np.array([0, -0.5, 0, 0]), sizes=sizes)
    assert found.count == 3
    assert found.fall == pytest.approx(0.5 * 300 / 600)


def test_pairs_are_described_only_where_none_deviates() -> None:
    design = Design.pairs([0, 2, 4, 0], [1, 3, 5, 3])
    assert described(np.zeros(4), design).interval(0.95)[1] == pytest.approx(1 - 0.05 ** (1 / 3))
    assert few(np.array([0, 0, 0, -1.0]), design) is None


def test_the_other_side_enters_the_tests() -> None:
    """Three rises are to be made up for before the mean can be a loss of 1 pp, and falls likewise."""
    mixed = described(changed(1000, 3, 2))
    assert mixed.p_at_most(-0.01) == pytest.approx(binom.cdf(2, 1000, 0.013))
    assert mixed.p_at_least(0.01) == pytest.approx(binom.cdf(3, 1000, 0.012))


def test_of_equally_common_outcomes_no_change_is_the_base() -> None:
    assert described(np.array([-1.0, 0, -1, 0])).base == 0
    assert described(np.array([-1.0, 0, -1])).base == -1


def test_bounds_stay_within_what_is_possible() -> None:
    low, high = described(np.array([-1.0, 0, -1])).interval(0.95)
    assert low == -1
    assert -1 < high < 1
