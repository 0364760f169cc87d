from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf

from cachetool.edits import Calibration, Selection
from cachetool.edits.calibration import Reference
from cachetool.edits.meter import Distances, FittedReference, Meter, own_images, per_image, percentile, two_sided
from cachetool.errors import InvalidEditError

RANDOM = np.random.default_rng(0)
MIXING = RANDOM.normal(size=(12, 12))


def natural(count, seed=0):
    return (np.random.default_rng(seed).normal(size=(count, 12)) @ MIXING + 3).astype(np.float32)


def reference(fit=60, held_out=50, images=None):
    names = [f"{row}.png" for row in range(fit)] if images is None else images
    return Reference(natural(fit, 1), natural(held_out, 2), np.array(names, dtype=object))


def exclude(*rows):
    return np.array(rows, dtype=object).reshape(len(rows), -1)


NOBODY = exclude(*["nobody"] * 40)


def test_mahalanobis_is_that_of_scikit_learn():
    given_reference, injected = reference(), natural(40, 3) * 2
    found = FittedReference(given_reference).measure(injected, NOBODY)
    model = LedoitWolf().fit(given_reference.fit.astype(np.float64))
    np.testing.assert_allclose(found.mahalanobis, np.sqrt(model.mahalanobis(injected)), rtol=1e-6)
    held_out = np.sqrt(model.mahalanobis(given_reference.held_out))
    expected = [stats.percentileofscore(held_out, value, kind="mean") for value in found.mahalanobis]
    np.testing.assert_allclose(found.mahalanobis_percentile, expected)


def test_norms_and_their_percentiles():
    given_reference, injected = reference(), natural(40, 3)
    found = FittedReference(given_reference).measure(injected, NOBODY)
    norms = np.linalg.norm(injected.astype(np.float64), axis=1)
    held_out = np.linalg.norm(given_reference.held_out.astype(np.float64), axis=1)
    np.testing.assert_allclose(found.norm, norms, rtol=1e-12)
    expected = np.array([stats.percentileofscore(held_out, value, kind="mean") for value in norms])
    np.testing.assert_allclose(found.norm_percentile, expected)
    np.testing.assert_allclose(found.norm_two_sided, 2 * np.minimum(expected, 100 - expected))


def test_nearest_neighbours_and_their_percentiles():
    given_reference, injected = reference(), natural(40, 3)
    found = FittedReference(given_reference).measure(injected, NOBODY)
    np.testing.assert_allclose(found.neighbour, cdist(injected, given_reference.fit).min(axis=1), rtol=1e-5)
    held_out = cdist(given_reference.held_out, given_reference.fit).min(axis=1)
    expected = [stats.percentileofscore(held_out, value, kind="mean") for value in found.neighbour]
    np.testing.assert_allclose(found.neighbour_percentile, expected)


@pytest.mark.parametrize("same", [False, True])
def test_own_image_and_donor_are_no_neighbours(same):
    images = [f"{row // 3}.png" for row in range(60)]
    given_reference = reference(images=images)
    injected = np.repeat(given_reference.fit[:1], 40, axis=0) if same else given_reference.fit[:40].copy()
    excluded = exclude(*[(images[row], f"{(row + 4) % 20}.png") for row in range(40)])
    found = FittedReference(given_reference).measure(injected, excluded)
    distances = cdist(injected, given_reference.fit)
    for row in range(40):
        distances[row, np.isin(images, excluded[row])] = np.inf
    np.testing.assert_allclose(found.neighbour, distances.min(axis=1), rtol=1e-5)


def test_a_natural_token_has_no_distance_from_itself():
    far = reference()
    far.fit[:] += 1e4
    found = FittedReference(far).measure(far.fit[:40].copy(), NOBODY)
    assert (found.neighbour == 0).all()


def test_many_tokens_of_the_own_image_are_passed_over():
    images = ["own.png"] * 20 + [f"{row}.png" for row in range(40)]
    given_reference = reference(images=images)
    injected = given_reference.fit[20:21].copy()
    given_reference.fit[:20] = injected + 1e-3
    found = FittedReference(given_reference).measure(injected, exclude(("own.png", "0.png")))
    assert found.neighbour[0] == pytest.approx(cdist(injected, given_reference.fit[21:]).min(), rel=1e-5)


@pytest.mark.parametrize("same", [False, True])
def test_where_no_token_of_another_image_is_left_the_distance_is_infinite(same):
    given_reference = reference(images=["own.png"] * 40 + ["donor.png"] * 20)
    injected = np.repeat(natural(1, 3), 2, axis=0) if same else natural(2, 3)
    found = FittedReference(given_reference).measure(injected, exclude(("own.png", "donor.png"), ("x.png", "own.png")))
    assert found.neighbour[0] == np.inf
    assert (found.neighbour_percentile[0], found.neighbour_two_sided[0]) == (100, 0)
    assert found.neighbour[1] == pytest.approx(cdist(injected[1:], given_reference.fit[40:]).min(), rel=1e-5)


@pytest.mark.parametrize(("compared", "asked_for"), [(7 * 60 + 59, [7, 7, 7, 7, 7, 5]), (59, [1] * 40)])
@pytest.mark.parametrize("same", [False, True])
def test_tokens_are_measured_some_at_a_time_and_once_where_they_are_the_same(monkeypatch, same, compared, asked_for):
    monkeypatch.setattr("cachetool.edits.meter.CHUNK", 7)
    monkeypatch.setattr("cachetool.edits.meter.COMPARED", compared)
    given_reference = reference()
    injected = np.repeat(natural(1, 3), 40, axis=0) if same else natural(40, 3)
    fitted, asked = FittedReference(given_reference), []
    compare = fitted._compare

    def counted(tokens):
        asked.append(len(tokens))
        return compare(tokens)

    fitted._compare = counted
    found = fitted.measure(injected, NOBODY)
    assert asked == ([1] if same else asked_for)
    model = LedoitWolf().fit(given_reference.fit.astype(np.float64))
    np.testing.assert_allclose(found.mahalanobis, np.sqrt(model.mahalanobis(injected)), rtol=1e-6)
    np.testing.assert_allclose(found.neighbour, cdist(injected, given_reference.fit).min(axis=1), rtol=1e-5)


def test_the_mean_is_suspiciously_central():
    given_reference = reference(400, 400)
    mean = given_reference.fit.mean(axis=0, dtype=np.float64).astype(np.float32)[None]
    found = FittedReference(given_reference).measure(mean, exclude("nobody"))
    assert found.mahalanobis[0] < 1e-3
    assert found.mahalanobis_percentile[0] == 0
    assert found.mahalanobis_two_sided[0] == 0
    far = FittedReference(given_reference).measure(mean + 1000, exclude("nobody"))
    assert far.mahalanobis_percentile[0] == far.neighbour_percentile[0] == 100
    assert far.mahalanobis_two_sided[0] == 0


def test_natural_tokens_are_unremarkable():
    found = FittedReference(reference(500, 500)).measure(natural(500, 9), exclude(*["nobody"] * 500))
    critical = 1.95 * np.sqrt(1 / 500 + 1 / 500)  # two-sample Kolmogorov-Smirnov at 0.001: ranks in a finite sample
    for name in ("mahalanobis", "norm", "neighbour"):
        assert stats.kstest(getattr(found, f"{name}_percentile") / 100, "uniform").statistic < critical, name
        assert abs(getattr(found, f"{name}_two_sided").mean() - 50) < 6


def test_fewer_tokens_than_channels():
    few = Reference(natural(6, 1), natural(5, 2), np.array(list("abcdef"), dtype=object))
    assert np.isfinite(FittedReference(few).measure(natural(3, 3), exclude("x", "y", "z")).mahalanobis).all()


def test_tokens_that_are_the_same_for_every_image():
    constant = np.repeat(natural(1), 8, axis=0)
    fitted = FittedReference(Reference(constant, constant, np.array(list("abcdefgh"), dtype=object)))
    found = fitted.measure(np.stack([constant[0], constant[0] + 1]), exclude("x", "x"))
    assert found.mahalanobis.tolist() == [0, np.inf]
    assert found.mahalanobis_percentile.tolist() == [50, 100]


def test_too_few_natural_tokens_are_refused():
    with pytest.raises(InvalidEditError, match="holds 3 to fit and 50 held out"):
        FittedReference(reference(fit=3))
    assert np.isfinite(FittedReference(reference(fit=4, held_out=4)).measure(natural(1, 3), exclude("x")).mahalanobis)


@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(-1, 10), min_size=1))
@settings(deadline=None)
def test_percentiles_are_those_of_scipy(sample, values):
    found = percentile(np.sort(np.array(sample, dtype=float)), np.array(values, dtype=float))
    np.testing.assert_allclose(found, [stats.percentileofscore(sample, value, kind="mean") for value in values])
    assert ((two_sided(found) >= 0) & (two_sided(found) <= 100)).all()


def registers_calibration(rows=40):
    tokens = np.stack([natural(rows, 1), natural(rows, 2) * 3])[None]
    return Calibration(
        {
            "layer": np.array([5]),
            "registers_mean": tokens.mean(axis=2),
            "registers_reference": tokens,
            "registers_reference_image": np.array([f"{row}.png" for row in range(rows)], dtype=object),
            "registers_reference_fit": np.arange(rows) % 2 == 0,
        },
        {},
        {},
    )


def test_each_register_is_measured_against_its_own_kind():
    calibration = registers_calibration()
    selection = Selection("registers", np.array([0, 0, 2]), np.array([1, 2, 2]), np.array([0, 1, 1]), 3)
    injected = natural(3, 8)
    found = Meter(calibration).measure(5, selection, injected, exclude("x", "x", "z"))
    for pair, slot in enumerate([0, 1, 1]):
        alone = FittedReference(calibration.reference(5, "registers", slot))
        expected = alone.measure(injected[pair : pair + 1], exclude("x"))
        assert found.mahalanobis[pair] == pytest.approx(expected.mahalanobis[0])
        assert found.neighbour_percentile[pair] == expected.neighbour_percentile[0]


@pytest.mark.parametrize(("rows", "layer", "token_type"), [(6, 5, "registers"), (40, 4, "registers"), (40, 5, "cls")])
def test_without_natural_tokens_there_is_no_distance(rows, layer, token_type):
    selection = Selection(token_type, np.array([0]), np.array([0]), np.array([0]), 1)
    found = Meter(registers_calibration(rows)).measure(layer, selection, natural(1), exclude("x"))
    assert np.isnan(found.mahalanobis).all()


def test_averages_per_image():
    columns = np.array([1.0, 3.0, 7.0])
    found = per_image(Distances(*[columns] * 9), np.array([0, 0, 2]), 4)
    np.testing.assert_array_equal(found.norm, [2, np.nan, 7, np.nan])


def test_own_images_are_the_edited_one_and_its_donor(make_sources):
    images = make_sources(images=4).images
    ids = images.image_id
    assert own_images(images, np.array([1, 1, 3])).tolist() == [[ids[1]], [ids[1]], [ids[3]]]
    found = own_images(images, np.array([1, 3]), np.array([1, 2, 3, 0]))
    assert found.tolist() == [[ids[1], ids[2]], [ids[3], ids[0]]]
    assert found.dtype == object
