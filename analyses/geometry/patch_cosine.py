"""How far an edit moves the final patch tokens."""

from __future__ import annotations

import xarray as xr

import cachetool


def patch_cosine(run: xr.Dataset, intact: xr.Dataset) -> xr.DataArray:
    """Cosine between the final normalised patch tokens of a run and of its intact arm.

    Parameters
    ----------
    run, intact
        Two runs of one cache that start at the same state and hold the last one.

    Returns
    -------
    (image, patch), lazy; NaN where an image could not be read or a patch was removed.
    """
    edited = cachetool.normalize(run.patches.isel(layer=-1), run)
    reference = cachetool.normalize(intact.patches.isel(layer=-1), intact)
    product = (edited * reference).sum("channel", skipna=False)
    return product / (_norm(edited) * _norm(reference))


def _norm(tokens: xr.DataArray) -> xr.DataArray:
    return (tokens**2).sum("channel", skipna=False) ** 0.5
