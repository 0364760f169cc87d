"""How far an edit changes what tokens attend to: Jensen-Shannon divergence by layer and head."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import xarray as xr

import cachetool
from analyses.geometry.tokens_of import shared_layers
from cachetool.errors import InvalidEditError


def attention_divergence(
    run: xr.Dataset,
    intact: xr.Dataset,
    *,
    base: float = 2.0,
    weights: str | None = None,
    device: str | None = None,
) -> xr.Dataset:
    """Jensen-Shannon divergence between the attention of a run and of its intact arm.

    JS(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2 (Lin 1991, equation 4.1), for every head and query row in float64,
    averaged over rows last. It lies between 0 and 1 for base 2.

    Parameters
    ----------
    run, intact
        A run that kept states (`--keep`), and a store of intact states of the same images: an unedited replay that
        kept them, or the cache. States that both hold are compared.
    base
        Base of the logarithm: 2 gives bits, e nats.
    weights, device
        As for `cachetool.attention`.

    Returns
    -------
    `divergence` (image, layer, head) over all query rows, and `divergence_by_query` (image, layer, head, query_type).
    Lazy, float64; NaN for images that could not be read. Rows of removed queries are left out, removed keys count as
    0. Memory: 4 W + T x (A + 16 MB) (see `analyses.analysis`).

    Raises
    ------
    MissingDataError
        They share no state.
    InvalidEditError
        The base is not above 1.
    IncompleteError, UnsupportedModelError
        As `cachetool.attention`.
    """
    if not base > 1:
        raise InvalidEditError(f"base: expected a number above 1, found {base}")
    depth = int(run.attrs["depth"])
    stores = [store.sel(layer=store.layer < depth) for store in shared_layers(run, intact)]
    edited, reference = (cachetool.attention(store, weights=weights, device=device) for store in stores)
    rows = xr.apply_ufunc(
        _rows, edited, reference.drop_vars("image_id"), kwargs={"base": base}, dask="parallelized",
        input_core_dims=[["query", "key"], ["query", "key"]], output_core_dims=[["query"]], output_dtypes=[np.float64],
    )  # fmt: skip
    by_query = rows.groupby("query_type").mean("query")
    units = {2.0: "bits", math.e: "nats"}.get(base, f"log base {base:g}")
    named = {"long_name": "Jensen-Shannon divergence of attention", "units": units, "base": base}
    return xr.Dataset(
        {
            "divergence": rows.drop_vars("query_type").mean("query").assign_attrs(named),
            "divergence_by_query": by_query.assign_attrs(named),
        }
    )


def _rows(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], *, base: float) -> npt.NDArray[np.float64]:
    """Divergence (..., query) of attention (..., query, key)."""
    found = np.empty(first.shape[:-1])
    # Head by head: float64 copies of a whole chunk would be the largest thing in memory.
    for place in np.ndindex(found.shape[:-1]):
        found[place] = jensen_shannon(first[place], second[place], base=base)
    return found


def jensen_shannon(
    first: npt.NDArray[np.floating], second: npt.NDArray[np.floating], *, base: float = 2.0
) -> npt.NDArray[np.float64]:
    """Divergence (...) of distributions (..., outcome); NaN where one of them is."""
    p, q = (np.asarray(values, dtype=np.float64) for values in (first, second))
    middle = (p + q) / 2
    found = (_entropy(middle) - (_entropy(p) + _entropy(q)) / 2) / np.log(base)
    # Rounding of equal rows gives values of about -1e-16.
    return np.where(found < 0, 0.0, found)


def _entropy(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Natural entropy (...); 0 log 0 = 0."""
    logarithms = np.log(values, out=np.zeros_like(values), where=values > 0)
    found: npt.NDArray[np.float64] = -np.einsum("...k,...k->...", values, logarithms)
    return found
