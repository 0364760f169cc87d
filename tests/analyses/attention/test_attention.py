"""Reductions of attention against plain NumPy, and against scipy's Jensen-Shannon distance."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

import cachetool
from analyses.attention.divergence import attention_divergence, jensen_shannon
from analyses.attention.flow import attention_flow
from cachetool import Edit
from cachetool.errors import IncompleteError, InvalidEditError, MissingDataError

PLACES = {"cls": slice(0, 1), "registers": slice(1, 5), "patches": slice(5, 69)}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return cachetool.extract("tiny-reg", "shapes", limit=6, root=tmp_path_factory.mktemp("root"), workers=0)


@pytest.fixture(scope="module")
def zeroed(cache: xr.Dataset) -> xr.Dataset:
    return cachetool.replay(cache, Edit("registers", "zero", from_layer=6), keep=[6, 9, 12])


def test_flow_is_summed_over_keys_and_averaged_over_queries(cache: xr.Dataset) -> None:
    part = cache.isel(image=[0, 4]).sel(layer=[2, 11, 12])
    found = attention_flow(part).compute()
    attention = cachetool.attention(part, [2, 11]).values.astype(np.float64)
    assert found.flow.dims == ("image", "layer", "head", "query_type", "key_type")
    for query, rows in PLACES.items():
        for key, columns in PLACES.items():
            expected = attention[:, :, :, rows, columns].sum(-1).mean(-1)
            np.testing.assert_allclose(found.flow.sel(query_type=query, key_type=key), expected, atol=1e-6)
    np.testing.assert_allclose(found.flow.sum("key_type"), 1, atol=1e-5)
    np.testing.assert_allclose(found.cls_to_register, attention[:, :, :, 0, 1:5], atol=1e-6)


def test_divergence_is_that_of_scipy_row_by_row(cache: xr.Dataset, zeroed: xr.Dataset) -> None:
    found = attention_divergence(zeroed, cache).compute()
    assert found.layer.values.tolist() == [6, 9]
    one, other = (cachetool.attention(store, [6, 9]).values.astype(np.float64) for store in (zeroed, cache))
    rows = jensenshannon(one, other, axis=-1, base=2) ** 2
    np.testing.assert_allclose(found.divergence, rows.mean(-1), atol=1e-7)
    for query, places in PLACES.items():
        expected = rows[..., places].mean(-1)
        np.testing.assert_allclose(found.divergence_by_query.sel(query_type=query), expected, atol=1e-7)
    assert found.divergence.attrs["units"] == "bits"
    nats = attention_divergence(zeroed, cache, base=float(np.e))
    np.testing.assert_allclose(nats.divergence, found.divergence * np.log(2), rtol=1e-6)
    assert nats.divergence.attrs["units"] == "nats"


def test_known_divergences() -> None:
    first, second = np.array([[0.5, 0.5, 0, 0], [0.2, 0.8, 0, 0]]), np.array([[0, 0, 0.3, 0.7], [0.2, 0.8, 0, 0]])
    assert jensen_shannon(first, second) == pytest.approx([1, 0])
    assert np.isnan(jensen_shannon(first * np.nan, second)).all()


def test_removed_tokens_are_left_out(cache: xr.Dataset) -> None:
    removed = cachetool.replay(cache, Edit("registers", "remove", from_layer=6), keep=[8, 12])
    found = attention_divergence(removed, cache).compute()
    assert found.divergence_by_query.sel(query_type="registers").isnull().all()
    one, other = (cachetool.attention(store, [8]).values.astype(np.float64) for store in (removed, cache))
    kept = [0, *range(5, 69)]
    rows = jensenshannon(one[:, :, :, kept], other[:, :, :, kept], axis=-1, base=2) ** 2
    np.testing.assert_allclose(found.divergence, rows.mean(-1), atol=1e-7)


def test_what_cannot_be_compared_is_refused(cache: xr.Dataset, zeroed: xr.Dataset) -> None:
    with pytest.raises(InvalidEditError, match="base: expected a number above 1, found 1"):
        attention_divergence(zeroed, cache, base=1)
    with pytest.raises(MissingDataError, match="expected states that both stores hold"):
        attention_divergence(zeroed, cache.sel(layer=[3]))
    with pytest.raises(IncompleteError, match="as the input of a block"):
        attention_divergence(zeroed.sel(layer=[12]), cache)


@pytest.fixture(scope="module")
def whole(cache: xr.Dataset, zeroed: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Reductions of all images, in one chunk each."""
    return attention_flow(cache.sel(layer=[6])).compute(), attention_divergence(zeroed, cache).compute()


@settings(max_examples=6, deadline=None)
@given(images=st.permutations(range(6)), count=st.integers(1, 6), size=st.integers(1, 6), other_size=st.integers(1, 6))
def test_reductions_do_not_depend_on_chunks_or_on_the_order_of_images(
    cache: xr.Dataset,
    zeroed: xr.Dataset,
    whole: tuple[xr.Dataset, xr.Dataset],
    images: list[int],
    count: int,
    size: int,
    other_size: int,
) -> None:
    chosen = images[:count]
    edited, intact = (store.isel(image=chosen) for store in (zeroed, cache))
    with pytest.MonkeyPatch.context() as patch:
        # Chunks of attention follow from their size in bytes, whatever those of the store.
        patch.setattr("cachetool.attending.CHUNK_BYTES", size * 4 * 3 * 69**2)
        attention = cachetool.attention(intact, 6)
        assert max(attention.chunksizes["image"]) <= size
        found = attention_flow(intact.sel(layer=[6])), attention_divergence(edited.chunk(image=other_size), intact)
    assert attention.image_id.values.tolist() == cache.image_id.values[chosen].tolist()
    for part, all_images in zip(found, whole, strict=True):
        xr.testing.assert_allclose(part.compute(), all_images.isel(image=chosen), atol=1e-6)
