from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics.pairwise import paired_cosine_distances

from analyses.geometry.patch_cosine import patch_cosine


def store(tokens: np.ndarray) -> xr.Dataset:
    return xr.Dataset({"patches": (("image", "layer", "patch", "channel"), tokens)}, attrs={"norm": {"type": "none"}})


def test_cosine_of_each_patch_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 4, 1, 9, 16)).astype(np.float32)
    found = patch_cosine(store(first), store(second))
    assert found.dims == ("image", "patch")
    expected = 1 - paired_cosine_distances(first.reshape(-1, 16), second.reshape(-1, 16))
    assert found.values.ravel() == pytest.approx(expected, abs=1e-5)
    assert patch_cosine(store(first), store(first)).values == pytest.approx(1.0, abs=1e-6)


def test_removed_patches_stay_missing() -> None:
    tokens = np.random.default_rng(1).standard_normal((2, 1, 3, 8)).astype(np.float32)
    removed = tokens.copy()
    removed[0, 0, 1] = np.nan
    assert np.isnan(patch_cosine(store(removed), store(tokens)).values).tolist() == [
        [False, True, False],
        [False, False, False],
    ]
