"""Patches nearest to registers are cut out of the right images at the right places."""

from __future__ import annotations

import numpy as np
import xarray as xr

import cachetool
from analyses.examples.nearest import nearest_cutouts
from analyses.examples.photos import photo
from analyses.geometry.nearest_patches import nearest_patches
from tests.analyses.conftest import Small


def test_cutouts_show_the_patch_in_the_middle(small: Small) -> None:
    cache, annotations = cachetool.open(small.cache), cachetool.open_annotations(small.cache)
    found = nearest_patches(cache.sel(layer=[6, 12]), count=3).compute()
    cutouts = nearest_cutouts(found, annotations, count=2)
    assert [(one.layer, one.register, one.rank) for one in cutouts] == [
        (layer, register, rank) for layer in (6, 12) for register in range(4) for rank in range(2)
    ]
    for one in cutouts:
        assert one.cutout.shape == (24, 24, 3)
        inside = photo(annotations, one.image)[8 * one.row : 8 * one.row + 8, 8 * one.col : 8 * one.col + 8]
        np.testing.assert_array_equal(one.cutout[8:16, 8:16], inside)
        assert one.image_id == annotations.image_ids[one.image]


def test_ranks_without_a_patch_are_left_out(small: Small) -> None:
    shape = (("layer", "register", "rank"), np.array([[[5, -1]]]))
    found = xr.Dataset(
        {"cosine": (shape[0], np.array([[[0.5, np.nan]]])), "nearest_image": shape,
         "nearest_row": (shape[0], np.array([[[0, -1]]])), "nearest_col": (shape[0], np.array([[[7, -1]]]))},
        {"layer": [12]},
    )  # fmt: skip
    (only,) = nearest_cutouts(found, cachetool.open_annotations(small.cache))
    assert (only.image, only.row, only.col, only.cosine) == (5, 0, 7, 0.5)
