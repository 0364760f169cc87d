"""Geometry of tokens against NumPy on the whole array, under any chunking, and on cases whose answer is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import cachetool
from analyses.geometry.effective_rank import effective_rank
from analyses.geometry.linear_cka import cka_between_layers, cka_between_runs
from analyses.geometry.moments import SLICE, Moments, pooled_moments
from analyses.geometry.nearest_patches import nearest_patches
from analyses.geometry.patch_similarity import patch_similarity
from analyses.geometry.register_cosine import register_cosine
from analyses.geometry.token_norms import token_norms
from analyses.geometry.tokens_of import tokens_of
from cachetool.errors import InvalidEditError, MissingDataError
from tests.analyses.conftest import Small
from tests.analyses.geometry.stand_in import CHANNELS, COLUMNS, REGISTERS, ROWS, store, tokens

READABLE = [0, 1, 2, 4, 5, 6, 7, 8]

chunks = st.integers(1, 9)


def entropy_rank(matrix: npt.NDArray[np.floating]) -> float:
    singular = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    shares = singular / singular.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


@settings(max_examples=10, deadline=None)
@given(chunks, st.integers(0, 5))
def test_moments_of_any_chunking_are_those_of_the_whole(chunk: int, seed: int) -> None:
    values = tokens(seed=seed)
    found = pooled_moments(store(values, chunk).patches.isel(layer=1)).compute()
    rows = values["patches"][READABLE, 1].reshape(-1, CHANNELS).astype(np.float64)
    assert found.count == len(rows)
    np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance(centre=True), np.cov(rows.T, bias=True), rtol=1e-10)
    np.testing.assert_allclose(found.covariance(centre=False), rows.T @ rows / len(rows), rtol=1e-10)


def test_moments_far_from_zero_do_not_cancel() -> None:
    rows = np.random.default_rng(0).normal(1e6, 1, (400, 3))
    whole = Moments.of(rows[:150]).merge(Moments.of(rows[150:]))
    np.testing.assert_allclose(whole.covariance(centre=True), np.cov(rows.T, bias=True), rtol=1e-6)


def test_moments_of_two_views_over_several_slices() -> None:
    generator = np.random.default_rng(2)
    # The first slice lies far from the others, so that its mean says little about theirs.
    one = generator.normal(3, 1, (2 * SLICE + 100, 4)) + 50 * (np.arange(2 * SLICE + 100) < SLICE)[:, None]
    other = one[:, :3] ** 2 + generator.normal(size=(len(one), 3))
    one[7, 1], other[SLICE + 5, 0], other[SLICE + 6, 2] = np.nan, np.inf, -np.inf
    kept = np.isfinite(one).all(1) & np.isfinite(other).all(1)
    found = Moments.of(one, other)
    assert found.count == len(one) - 3
    np.testing.assert_allclose(found.mean, one[kept].mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.other_mean, other[kept].mean(0), rtol=1e-12)
    expected = (one[kept] - one[kept].mean(0)).T @ (other[kept] - other[kept].mean(0))
    np.testing.assert_allclose(found.scatter, expected, rtol=1e-9)


@settings(max_examples=8, deadline=None)
@given(chunks, st.booleans())
def test_effective_rank_is_that_of_singular_values(chunk: int, centre: bool) -> None:
    values = tokens()
    found = effective_rank(store(values, chunk), centre=centre).compute()
    assert found.effective_rank.dims == ("image", "layer")
    for image in READABLE:
        matrix = values["patches"][image, 1].astype(np.float64)
        matrix = matrix - matrix.mean(0) * centre
        assert found.effective_rank.values[image, 1] == pytest.approx(entropy_rank(matrix))
        eigenvalues = np.linalg.eigvalsh(matrix.T @ matrix)
        expected = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
        assert found.participation_ratio.values[image, 1] == pytest.approx(expected)
    assert np.isnan(found.effective_rank.values[3]).all()
    rows = values["patches"][READABLE, 0].reshape(-1, CHANNELS).astype(np.float64)
    rows = rows - rows.mean(0) * centre
    assert float(found.pooled_effective_rank[0]) == pytest.approx(entropy_rank(rows))
    spectrum = np.linalg.eigvalsh(rows.T @ rows / len(rows))[::-1]
    np.testing.assert_allclose(found.eigenvalue.values[0], spectrum, rtol=1e-9)


def test_who_asks_for_pooled_or_per_image_ranks_pays_for_these_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nobody asked for this")

    with monkeypatch.context() as patch:
        patch.setattr("analyses.geometry.effective_rank._ranks_of_images", refuse)
        found = effective_rank(store(tokens(), 2))
    assert np.isfinite(found.pooled_effective_rank.compute()).all()
    assert np.isfinite(found.eigenvalue.compute()).all()
    with pytest.raises(AssertionError, match="nobody asked"):
        found.effective_rank.compute()
    with monkeypatch.context() as patch:
        patch.setattr("analyses.geometry.effective_rank._pooled", refuse)
        found = effective_rank(store(tokens(), 2))
    assert np.isfinite(found.participation_ratio.compute()[READABLE]).all()
    with pytest.raises(AssertionError, match="nobody asked"):
        found.pooled_participation_ratio.compute()


def test_tokens_that_are_not_finite_are_left_out_of_an_image_and_the_others_count() -> None:
    values = tokens()
    values["patches"][1, 0, 2, 3], values["patches"][1, 0, 4, 0] = np.inf, np.nan
    found = effective_rank(store(values, 4)).compute()
    matrix = np.delete(values["patches"][1, 0].astype(np.float64), [2, 4], axis=0)
    assert found.effective_rank.values[1, 0] == pytest.approx(entropy_rank(matrix - matrix.mean(0)))
    assert found.effective_rank.values[2, 0] == pytest.approx(
        entropy_rank(values["patches"][2, 0] - values["patches"][2, 0].mean(0))
    )


def test_effective_rank_of_known_cases() -> None:
    generator = np.random.default_rng(1)
    line = generator.normal(size=(4, 1, ROWS * COLUMNS, 1)) * np.arange(1, CHANNELS + 1)
    isotropic = np.tile(np.concatenate([np.eye(CHANNELS), np.zeros((1, CHANNELS))]), (4, 1, 1, 1))
    same = np.ones((4, 1, ROWS * COLUMNS, CHANNELS))
    one, equal, none = (
        effective_rank(store({"patches": values.astype(np.float32)}, layers=(1,)), centre=centre).compute()
        for values, centre in ((line, True), (isotropic, False), (same, True))
    )
    assert one.effective_rank.values == pytest.approx(1, abs=1e-6)
    assert one.pooled_effective_rank.values == pytest.approx(1, abs=1e-6)
    assert equal.effective_rank.values == pytest.approx(CHANNELS)
    assert equal.pooled_participation_ratio.values == pytest.approx(CHANNELS)
    assert none.effective_rank.values.tolist() == [[0.0]] * 4


def cka_of_kernels(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """The same in sample space: HSIC of centred linear kernels."""
    centring = np.eye(len(one)) - 1 / len(one)
    first, second = (centring @ rows @ rows.T @ centring for rows in (one, other))
    return float(np.trace(first @ second) / np.sqrt(np.trace(first @ first) * np.trace(second @ second)))


@settings(max_examples=6, deadline=None)
@given(chunks)
def test_cka_is_that_of_kernels(chunk: int) -> None:
    values = tokens(layers=3)
    found = cka_between_layers(store(values, chunk, (0, 1, 2))).linear_cka.compute()
    rows = values["cls"][READABLE].astype(np.float64)
    expected = [[cka_of_kernels(rows[:, one], rows[:, other]) for other in range(3)] for one in range(3)]
    np.testing.assert_allclose(found.values, expected, rtol=1e-9)
    np.testing.assert_allclose(np.diag(found.values), 1)


def test_cka_of_a_run_does_not_see_rotations_and_scales() -> None:
    values = tokens()
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(CHANNELS, CHANNELS)))[0]
    rotated = {"patches": (3 * values["patches"] @ turned).astype(np.float32)}
    found = cka_between_runs(store(rotated), store({"patches": values["patches"]})).linear_cka
    np.testing.assert_allclose(found.values, 1, rtol=1e-6)
    other = cka_between_runs(store({"patches": tokens(seed=5)["patches"]}), store({"patches": values["patches"]}))
    assert float(other.linear_cka[0]) < 0.3


def test_norms_and_outlier_patches() -> None:
    values = tokens()
    values["patches"][2, 1, 4] *= 100
    found = token_norms(store(values, 2), maps=True).compute()
    norms = np.linalg.norm(values["patches"].astype(np.float64), axis=-1)
    np.testing.assert_allclose(found.median_patch_norm, np.median(norms, axis=-1), rtol=1e-6)
    assert found.outlier_patches.values[2].tolist() == [0, 1]
    assert np.isnan(found.outlier_patches.values[3]).all()
    assert np.nansum(found.outlier_patches.values) == 1
    np.testing.assert_allclose(found.patch_norm.values.reshape(9, 2, -1), norms, rtol=1e-6)
    assert found.patch_norm.dims == ("image", "layer", "row", "col")
    np.testing.assert_allclose(found.register_norm, np.linalg.norm(values["registers"], axis=-1), rtol=1e-6)
    np.testing.assert_allclose(
        found.largest_to_median.values[2, 1], norms[2, 1].max() / np.median(norms[2, 1]), rtol=1e-6
    )
    assert set(token_norms(store({"cls": values["cls"]})).data_vars) == {"cls_norm"}


def test_register_cosines() -> None:
    values = tokens()
    found = register_cosine(store(values, 4)).compute()
    registers = values["registers"] / np.linalg.norm(values["registers"], axis=-1, keepdims=True)
    cls = values["cls"] / np.linalg.norm(values["cls"], axis=-1, keepdims=True)
    np.testing.assert_allclose(found.register_cosine, registers @ registers.transpose(0, 1, 3, 2), atol=1e-6)
    np.testing.assert_allclose(found.cls_cosine, np.einsum("ilrc,ilc->ilr", registers, cls), atol=1e-6)


def test_similarity_of_patches_by_layer_and_place() -> None:
    one, other = tokens(), tokens(seed=4)
    other["patches"][5, 0, 2] = np.nan  # removed
    found = patch_similarity(store(other, 2), store(one, 3), maps=True).compute()
    product = (one["patches"] * other["patches"]).sum(-1)
    cosine = product / np.linalg.norm(one["patches"], axis=-1) / np.linalg.norm(other["patches"], axis=-1)
    np.testing.assert_allclose(found.patch_cosine.values.reshape(9, 2, -1), cosine, atol=1e-6)
    np.testing.assert_allclose(found.cosine.values[READABLE], np.nanmean(cosine[READABLE], axis=-1), atol=1e-6)
    expected = np.nanmean(cosine[READABLE], axis=0).reshape(2, ROWS, COLUMNS)
    np.testing.assert_allclose(found.cosine_map, expected, atol=1e-6)
    same = patch_similarity(store(one), store(one)).cosine.values[READABLE]
    assert same == pytest.approx(1, abs=1e-6)
    with pytest.raises(MissingDataError, match=r"found \[1, 3\] and \[0, 2\]; replay with `--keep`"):
        patch_similarity(store(one), store(one, layers=(0, 2)))


@settings(max_examples=8, deadline=None)
@given(chunks, st.integers(1, 60))
def test_nearest_patches_are_those_of_a_full_sort(chunk: int, count: int) -> None:
    values = tokens()
    found = nearest_patches(store(values, chunk), count=count).compute()
    for layer in range(2):
        mean = np.nanmean(values["registers"][:, layer].astype(np.float64), axis=0)
        rows = values["patches"][:, layer].reshape(-1, CHANNELS).astype(np.float64)
        for register in range(REGISTERS):
            cosine = rows @ mean[register] / np.linalg.norm(rows, axis=1) / np.linalg.norm(mean[register])
            order = np.argsort(-np.nan_to_num(cosine, nan=-np.inf), kind="stable")[: min(count, 48)]
            near = found.isel(layer=layer, register=register, rank=slice(len(order)))
            np.testing.assert_allclose(near.cosine, cosine[order], atol=1e-6)
            assert near.nearest_image.values.tolist() == (order // 6).tolist()
            assert near.nearest_row.values.tolist() == (order % 6 // COLUMNS).tolist()
            assert near.nearest_col.values.tolist() == (order % COLUMNS).tolist()
    assert (found.nearest_image.values[..., 48:] == -1).all()


def test_the_last_state_is_read_after_the_norm(small: Small) -> None:
    cache = cachetool.open(small.cache)
    found = tokens_of(cache, "cls")
    expected = cachetool.normalize(cache.cls.sel(layer=12), cache)
    np.testing.assert_allclose(found.sel(layer=12), expected, rtol=1e-6)
    np.testing.assert_array_equal(found.sel(layer=7), cache.cls.sel(layer=7))
    only = tokens_of(cache.sel(layer=[12]), "cls")
    np.testing.assert_allclose(only.isel(layer=0), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("analysis", "lacking"),
    [
        (effective_rank, "patches"),
        (register_cosine, "registers"),
        (nearest_patches, "registers"),
        (cka_between_layers, "cls"),
    ],
)
def test_lacking_tokens_are_named(analysis: Callable[[xr.Dataset], xr.Dataset], lacking: str) -> None:
    other = "cls" if lacking != "cls" else "patches"
    with pytest.raises(MissingDataError, match=f"expected {lacking} in the store, found {other}; extract or keep them"):
        analysis(store({other: tokens()[other]}))


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(InvalidEditError, match="count: expected 1 or more, found 0"):
        nearest_patches(store(tokens()), count=0)
