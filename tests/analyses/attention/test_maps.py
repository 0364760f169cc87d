"""Maps of attention: the rows of [CLS] and registers, laid over the grid of patches."""

from __future__ import annotations

import numpy as np
import pytest

import cachetool
from analyses.attention.maps import attention_maps
from cachetool.errors import InvalidEditError
from tests.analyses.conftest import EVALUATED, Small


def test_maps_are_rows_of_attention(small: Small) -> None:
    cache = cachetool.open(small.cache).sel(layer=[3, 11])
    found = attention_maps(cache, images=(7, 2)).attention.compute()
    assert found.dims == ("image", "layer", "head", "query", "row", "col")
    assert found["query"].values.tolist() == ["cls", "register 0", "register 1", "register 2", "register 3"]
    whole = cachetool.attention(small.cache, [3, 11]).values[[7, 2]]
    np.testing.assert_allclose(found.values.reshape(*found.shape[:4], 64), whole[:, :, :, :5, 5:], atol=1e-6)
    assert found.image_id.values.tolist() == cache.image_id.values[[7, 2]].tolist()


def test_images_that_are_not_there_are_named(small: Small) -> None:
    with pytest.raises(InvalidEditError, match=f"expected positions from 0 to {EVALUATED - 1}, found {EVALUATED}, 99"):
        attention_maps(cachetool.open(small.cache), images=(0, EVALUATED, 99))
