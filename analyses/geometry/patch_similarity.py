"""How far an edit moves patch tokens, by layer and over the image."""

from __future__ import annotations

import xarray as xr

from analyses.geometry.patch_cosine import cosine
from analyses.geometry.tokens_of import shared_layers, tokens_of


def patch_similarity(run: xr.Dataset, intact: xr.Dataset, *, maps: bool = False) -> xr.Dataset:
    """Cosine of every patch with its intact self: mean per image, and mean map over images.

    Parameters
    ----------
    run, intact
        A run and its intact arm, of the same images in the same order; states that both hold are compared.
    maps
        Also give the cosine of every patch of every image.

    Returns
    -------
    `cosine` (image, layer) and `cosine_map` (layer, row, col), with `maps` also `patch_cosine` (image, layer, row,
    col). Lazy, float32; NaN for images that could not be read, and for removed patches, which means leave out. The
    last state is read after the final norm. Memory: T x 2 B, twice that at the last state (see `analyses.analysis`).

    Raises
    ------
    MissingDataError
        One of them lacks patches, or they share no state.
    """
    first, second = shared_layers(run, intact)
    edited, reference = (tokens_of(store, "patches") for store in (first, second))
    similarity = cosine(edited, reference.drop_vars("image_id"))
    grid = similarity.set_index(patch=["row", "col"]).unstack("patch")
    found = {
        "cosine": similarity.mean("patch").assign_attrs(long_name="cosine of patches with their intact selves"),
        "cosine_map": grid.mean("image").assign_attrs(long_name="cosine of patches with their intact selves"),
    }
    if maps:
        found["patch_cosine"] = grid.assign_attrs(long_name="cosine of a patch with its intact self")
    return xr.Dataset({name: values.assign_attrs(units="1") for name, values in found.items()})
