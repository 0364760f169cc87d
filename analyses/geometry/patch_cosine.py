"""How far an edit moves the final patch tokens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

import cachetool
from analyses.geometry.tokens_of import over_channels


def patch_cosine(run: xr.Dataset, intact: xr.Dataset) -> xr.DataArray:
    """Cosine between the final normalised patch tokens of a run and of its intact arm.

    Parameters
    ----------
    run, intact
        Two runs of one cache that start at the same state and hold the last one.

    Returns
    -------
    (image, patch), lazy, float32; NaN where an image could not be read or a patch was removed.
    """
    edited = cachetool.normalize(run.patches.isel(layer=-1), run)
    reference = cachetool.normalize(intact.patches.isel(layer=-1), intact)
    return cosine(edited, reference)


def cosine(tokens: xr.DataArray, others: xr.DataArray) -> xr.DataArray:
    """Cosine of every token with its counterpart, over `channel`; lazy, float32, NaN where a token is zero or NaN."""
    return over_channels(_cosines, tokens, others)


def _cosines(tokens: npt.NDArray[np.floating], others: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Cosines (...) of tokens (..., channel); no array of their size is made."""
    product, square, other_square = (
        np.einsum("...c,...c->...", one, other, dtype=np.float64)
        for one, other in ((tokens, others), (tokens, tokens), (others, others))
    )
    with np.errstate(invalid="ignore"):
        return np.asarray(product / np.sqrt(square * other_square), dtype=np.float32)
