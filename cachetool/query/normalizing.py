"""The model's final norm, applied to stored tokens without the model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr


def normalize(tokens: xr.DataArray, store: xr.Dataset) -> xr.DataArray:
    """Apply the model's final norm to tokens of the last state, without weights or model.

    Parameters
    ----------
    tokens
        Any shape with a `channel` dimension, such as `cache.cls.sel(layer=12)`.
    store
        The opened cache or run, which holds `norm_weight`, `norm_bias` and the norm's type and epsilon.

    Returns
    -------
    Same shape, float32, lazy as before. Layer norm: Ba, Kiros and Hinton, arXiv 1607.06450, equation 4 with learned
    scale and shift; RMS norm: Zhang and Sennrich, arXiv 1910.07467, equation 4.
    """
    weight, bias = (store[name].values if name in store else None for name in ("norm_weight", "norm_bias"))
    function = partial(_normalized, norm=store.attrs["norm"], weight=weight, bias=bias)

    def apply(values: Any) -> Any:
        if not isinstance(values, da.Array):
            return function(values)
        # `dask="parallelized"` would copy every block: it joins the chunks along `channel`, even a single one.
        return values.rechunk({-1: -1}).map_blocks(function, dtype=np.float32)  # type: ignore[no-untyped-call]

    found: xr.DataArray = xr.apply_ufunc(
        apply, tokens, input_core_dims=[["channel"]], output_core_dims=[["channel"]], dask="allowed"
    )
    return found.transpose(*tokens.dims)


def _normalized(
    tokens: npt.NDArray[Any],
    *,
    norm: Mapping[str, Any],
    weight: npt.NDArray[np.float32] | None,
    bias: npt.NDArray[np.float32] | None,
) -> npt.NDArray[np.float32]:
    """Tokens (..., channel) after the norm; one copy, changed in place, since every dask thread holds its own."""
    found = tokens.astype(np.float32)  # the squares of float16 overflow
    if norm["type"] == "layer_norm":
        found -= found.mean(axis=-1, keepdims=True)
    if norm["type"] != "none":
        squares = np.einsum("...c,...c->...", found, found, dtype=np.float64)
        found /= np.sqrt(squares / found.shape[-1] + norm["epsilon"]).astype(np.float32)[..., np.newaxis]
    if weight is not None:
        found *= weight
    if bias is not None:
        found += bias
    return found
