"""Patch features as colours: three principal components, one basis for intact and edited images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

import cachetool
from analyses.geometry.moments import Moments, pooled_moments
from cachetool.errors import InvalidEditError, MissingDataError

SPREAD = 2.5
"""Standard deviations of a component that span the range of a colour on either side of its mean."""


@dataclass(frozen=True)
class ColourBasis:
    """Three principal components of final patch features, scaled to colours."""

    mean: npt.NDArray[np.float64]
    """Mean feature (channel,)."""
    components: npt.NDArray[np.float64]
    """Orthonormal directions (channel, component); the largest entry of each is positive, since nothing determines
    its sign."""
    scale: npt.NDArray[np.float64]
    """Distance from the mean that saturates a colour (component,)."""
    explained: tuple[float, ...]
    """Share of the variance along each component."""

    @classmethod
    def of(cls, store: xr.Dataset) -> ColourBasis:
        """The basis of all final patches of a store, after the final norm, in one pass.

        Memory: T x 2 B and P (see `analyses.analysis`). Raises `MissingDataError` where the store lacks these patches.
        """
        moments: Moments = pooled_moments(_final(store)).compute()
        eigenvalues, vectors = np.linalg.eigh(moments.covariance(centre=True))
        components = vectors[:, ::-1][:, :3]
        components = components * np.sign(components[np.abs(components).argmax(axis=0), np.arange(components.shape[1])])
        leading = np.maximum(eigenvalues[::-1][:3], np.finfo(np.float32).tiny)
        explained = eigenvalues[::-1][:3] / max(float(eigenvalues.sum()), np.finfo(np.float64).tiny)
        return cls(moments.mean, components, SPREAD * np.sqrt(leading), tuple(explained.tolist()))

    def colours(self, store: xr.Dataset, images: Sequence[int]) -> npt.NDArray[np.float32]:
        """Colour of every final patch of some images, float32 (image, row, col, rgb), 0 to 1; NaN where there is none.

        Raises `MissingDataError` where the store lacks the patches of the last state.
        """
        values = _final(store).isel(image=list(images)).values.astype(np.float64)
        colours = np.clip((values - self.mean) @ self.components / self.scale, -1, 1) / 2 + 0.5
        grid = (int(store.row.values.max()) + 1, int(store.col.values.max()) + 1)
        return colours.astype(np.float32).reshape(len(images), *grid, 3)


def patch_colours(run: xr.Dataset, intact: xr.Dataset, *, images: tuple[int, ...] = (0, 1, 2, 3)) -> xr.Dataset:
    """Colour of every final patch, of a run and of its intact arm, from principal components of the intact arm.

    Mean, components and scale come from all patches of the intact arm after the final norm, and are used for both, so
    that a change of colour is a change of features.

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
    not be read. Memory: T x 2 B and P (see `analyses.analysis`).

    Raises
    ------
    MissingDataError
        A store lacks the patches of the last state.
    InvalidEditError
        An image is asked for that the stores lack; names all of them.
    """
    count = min(run.sizes["image"], intact.sizes["image"])
    check_images(images, count)
    basis = ColourBasis.of(intact)
    array = np.stack([basis.colours(store, images) for store in (intact, run)])
    attributes = {
        "long_name": "principal components as colours",
        "identifier": "colour",
        "explained": list(basis.explained),
    }
    return xr.Dataset(
        {"colour": (("arm", "image", "row", "col", "channel_of_colour"), array, attributes)},
        {"arm": ["intact", "edited"], "image_id": ("image", intact.image_id.values[list(images)])},
    )


def check_images(images: Sequence[int], count: int) -> None:
    """Raise `InvalidEditError`, naming all, where positions of images lie outside a store of `count` images."""
    beyond = [image for image in images if not 0 <= image < count]
    if beyond:
        raise InvalidEditError(f"images: expected positions from 0 to {count - 1}, found {', '.join(map(str, beyond))}")


def _final(store: xr.Dataset) -> xr.DataArray:
    depth = int(store.attrs["depth"])
    if "patches" not in store or depth not in store.layer.values:
        raise MissingDataError(
            f"expected patches of state {depth}, the model's last, found {', '.join(map(str, store.data_vars))} of "
            f"states {store.layer.values.tolist()}; extract or keep them"
        )
    return cachetool.normalize(store.patches.sel(layer=depth), store).transpose("image", "patch", "channel")
