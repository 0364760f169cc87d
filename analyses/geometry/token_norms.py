"""Norms of tokens by layer, and the patches whose norm is far above the others of their image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from analyses.geometry.tokens_of import over_channels, tokens_of


def token_norms(store: xr.Dataset, *, threshold: float = 5.0, maps: bool = False) -> xr.Dataset:
    """Norms of [CLS], registers and patches by layer, and the number of outlier patches.

    Outlier patches have a norm above `threshold` times the median of their image's patches (Darcet et al.,
    arXiv 2309.16588, observe them; the cut relative to the median is this project's). States are read as stored.

    Parameters
    ----------
    store
        A cache or run; whichever token types it holds are measured.
    threshold
        Multiple of the median.
    maps
        Also give the norm of every patch.

    Returns
    -------
    `cls_norm` (image, layer), `register_norm` (image, layer, register), `median_patch_norm`, `largest_patch_norm`,
    `largest_to_median` and `outlier_patches` (image, layer); with `maps` also `patch_norm` (image, layer, row, col).
    Lazy, float32; NaN for images that could not be read. Memory: T x B (see `analyses.analysis`).
    """
    found: dict[str, xr.DataArray] = {}
    if "cls" in store:
        found["cls_norm"] = _norm(store, "cls").assign_attrs(long_name="norm of [CLS]")
    if "registers" in store:
        found["register_norm"] = _norm(store, "registers").assign_attrs(long_name="norm of registers")
    if "patches" in store or not found:
        norms = _norm(store, "patches").chunk(patch=-1)
        median = norms.median("patch", skipna=False)
        outliers = (norms > threshold * median).sum("patch").astype(np.float32).where(median.notnull())
        found |= {
            "median_patch_norm": median.assign_attrs(long_name="median norm of patches"),
            "largest_patch_norm": norms.max("patch", skipna=False).assign_attrs(long_name="largest norm of a patch"),
            "largest_to_median": (norms.max("patch", skipna=False) / median).assign_attrs(
                long_name="largest norm of a patch over the median"
            ),
            "outlier_patches": outliers.assign_attrs(long_name=f"patches above {threshold:g} times the median norm"),
        }
        if maps:
            grid = norms.set_index(patch=["row", "col"]).unstack("patch")
            found["patch_norm"] = grid.assign_attrs(long_name="norm of patches")
    return xr.Dataset({name: values.assign_attrs(units="1") for name, values in found.items()})


def _norm(store: xr.Dataset, token_type: str) -> xr.DataArray:
    """Euclidean norm of every token, lazy, float32."""
    return over_channels(_norms, tokens_of(store, token_type, normalized=False))


def _norms(tokens: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Norms (...) of tokens (..., channel)."""
    # Summed in float64, so that large channels do not swallow small ones, yet without a float64 copy of the block.
    squares = np.einsum("...c,...c->...", tokens, tokens, dtype=np.float64)
    return np.asarray(np.sqrt(squares), dtype=np.float32)
