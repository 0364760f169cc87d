"""Maps of tokens against a computation from the stored states, and against attention of the whole store."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import cachetool
from analyses.examples.token_maps import INTACT, token_maps
from analyses.geometry.patch_colours import patch_colours
from cachetool.errors import InvalidEditError, MissingDataError
from tests.analyses.conftest import EDITS, EVALUATED, Small

IMAGES = (31, 3)


@pytest.fixture(scope="module")
def maps(small: Small) -> xr.Dataset:
    runs = dict(zip((edit.replacement + str(edit.seed) for edit in EDITS), small.opened(), strict=True))
    return token_maps(cachetool.open(small.cache), {"shuffle": runs["shuffle1"]}, IMAGES)


def test_norms_and_cosines_are_those_of_the_stored_tokens(small: Small, maps: xr.Dataset) -> None:
    cache, run = cachetool.open(small.cache), small.opened()[3]
    for arm, store in ((INTACT, cache), ("shuffle", run)):
        tokens = store.patches.sel(layer=12).values[list(IMAGES)].reshape(2, 8, 8, -1)
        np.testing.assert_allclose(maps.norm.sel(arm=arm).values, np.linalg.norm(tokens, axis=-1), rtol=1e-5)
    final = [
        cachetool.normalize(store.patches.sel(layer=12), store).values[list(IMAGES)].astype(np.float64)
        for store in (cache, run)
    ]
    units = [values / np.linalg.norm(values, axis=-1, keepdims=True) for values in final]
    expected = (units[0] * units[1]).sum(axis=-1).reshape(2, 8, 8)
    np.testing.assert_allclose(maps.cosine.sel(arm="shuffle").values, expected, rtol=1e-5)
    np.testing.assert_allclose(maps.cosine.sel(arm=INTACT).values, 1, rtol=1e-6)
    assert maps.position.values.tolist() == list(IMAGES)
    assert maps.image_id.values.tolist() == cache.image_id.values[list(IMAGES)].tolist()


def test_colours_are_those_of_the_analysis(small: Small, maps: xr.Dataset) -> None:
    expected = patch_colours(small.opened()[3], cachetool.open(small.cache), images=IMAGES).colour
    np.testing.assert_allclose(maps.colour.values, expected.values, atol=1e-6)
    assert 0 < sum(maps.attrs["explained"]) < 1


def test_attention_is_that_of_the_whole_store_and_reasons_name_the_arm(small: Small, maps: xr.Dataset) -> None:
    attention = cachetool.attention(small.cache, 11).isel(image=list(IMAGES), layer=0)
    expected = attention.isel(query=0, key=slice(-64, None)).mean("head").values.reshape(2, 8, 8)
    np.testing.assert_allclose(maps.attention.sel(arm=INTACT).values, expected, rtol=1e-5)
    assert np.isnan(maps.attention.sel(arm="shuffle").values).all()
    assert list(maps.attrs["without_attention"]) == ["shuffle"]
    assert "--keep" in maps.attrs["without_attention"]["shuffle"]


def test_what_is_lacking_is_named(small: Small) -> None:
    cache = cachetool.open(small.cache)
    with pytest.raises(InvalidEditError, match=f"expected positions from 0 to {EVALUATED - 1}, found {EVALUATED}"):
        token_maps(cache, {}, [0, EVALUATED])
    with pytest.raises(MissingDataError, match="expected patches of state 12, the model's last, in intact, found cls"):
        token_maps(cache.drop_vars("patches"), {}, [0])
    with pytest.raises(MissingDataError, match="in early, found cls, registers, patches of states 3;"):
        token_maps(cache, {"early": cache.sel(layer=[3])}, [0])
