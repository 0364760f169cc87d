"""Patch features as colours: three principal components, one basis for intact and edited images."""

from __future__ import annotations

import numpy as np
import xarray as xr

import cachetool
from analyses.geometry.moments import Moments, pooled_moments
from cachetool.errors import InvalidEditError, MissingDataError

SPREAD = 2.5
"""Standard deviations of a component that span the range of a colour on either side of its mean."""


def patch_colours(run: xr.Dataset, intact: xr.Dataset, *, images: tuple[int, ...] = (0, 1, 2, 3)) -> xr.Dataset:
    """Colour of every final patch, of a run and of its intact arm, from principal components of the intact arm.

    Mean, components and scale come from all patches of the intact arm after the final norm, and are used for both, so
    that a change of colour is a change of features. The sign of a component, which nothing determines, is such that its
    largest entry is positive.

    Parameters
    ----------
    run, intact
        A run and its intact arm, of the same images in the same order.
    images
        Positions of the images to colour.

    Returns
    -------
    `colour` (arm, image, row, col, channel_of_colour), 0 to 1, red, green and blue; arms are `intact` and `edited`.
    Float32, loaded, with the share of variance of the three components in its attributes. NaN for images that could
    not be read. Memory: two blocks of images per dask thread.

    Raises
    ------
    MissingDataError
        A store lacks the patches of the last state.
    InvalidEditError
        An image is asked for that the stores lack; names all of them.
    """
    count = min(run.sizes["image"], intact.sizes["image"])
    beyond = [image for image in images if not 0 <= image < count]
    if beyond:
        raise InvalidEditError(f"images: expected positions from 0 to {count - 1}, found {', '.join(map(str, beyond))}")
    reference, edited = _final(intact), _final(run)
    moments: Moments = pooled_moments(reference).compute()
    eigenvalues, vectors = np.linalg.eigh(moments.covariance(centre=True))
    basis = vectors[:, ::-1][:, :3]
    basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(3)])
    scale = SPREAD * np.sqrt(np.maximum(eigenvalues[::-1][:3], np.finfo(np.float32).tiny))
    arms = []
    for tokens in (reference, edited):
        values = tokens.isel(image=list(images)).values.astype(np.float64)
        arms.append(np.clip((values - moments.mean) @ basis / scale, -1, 1) / 2 + 0.5)
    grid = (intact.row.values.max() + 1, intact.col.values.max() + 1)
    array = np.stack(arms).astype(np.float32).reshape(2, len(images), *grid, 3)
    explained = (eigenvalues[::-1][:3] / max(float(eigenvalues.sum()), np.finfo(np.float64).tiny)).tolist()
    attributes = {"long_name": "principal components as colours", "identifier": "colour", "explained": explained}
    return xr.Dataset(
        {"colour": (("arm", "image", "row", "col", "channel_of_colour"), array, attributes)},
        {"arm": ["intact", "edited"], "image_id": ("image", intact.image_id.values[list(images)])},
    )


def _final(store: xr.Dataset) -> xr.DataArray:
    depth = int(store.attrs["depth"])
    if "patches" not in store or depth not in store.layer.values:
        raise MissingDataError(
            f"expected patches of state {depth}, the model's last, found {', '.join(map(str, store.data_vars))} of "
            f"states {store.layer.values.tolist()}; extract or keep them"
        )
    return cachetool.normalize(store.patches.sel(layer=depth), store).transpose("image", "patch", "channel")
