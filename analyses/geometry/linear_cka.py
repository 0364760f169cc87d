"""How similar tokens are as a whole: linear centred kernel alignment between layers, and of runs with intact."""

from __future__ import annotations

from functools import reduce
from itertools import combinations_with_replacement
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import delayed

from analyses.geometry.moments import SLICE, Matrix, Moments, blocks_of, merged
from analyses.geometry.tokens_of import shared_layers, tokens_of


def cka_between_layers(store: xr.Dataset, *, tokens: str = "cls") -> xr.Dataset:
    """Linear CKA between the tokens of every two layers.

    CKA = ||cov(Y, X)||^2 / (||cov(X, X)|| ||cov(Y, Y)||), Frobenius norms, features centred over all tokens (Kornblith
    et al., arXiv 1905.00414, equation 3 with linear kernels, in feature space).

    Parameters
    ----------
    store
        A cache or run.
    tokens
        `cls`, `registers` or `patches`; all tokens of all images are the samples.

    Returns
    -------
    `linear_cka` (layer, other_layer), float64, loaded. Images that could not be read are left out. The last state is
    read after the final norm. States are read pair by pair, each about as often as there are states. Memory:
    T x 2 B, T x 3 B with the last state, and P (see `analyses.analysis`).

    Raises
    ------
    MissingDataError
        The store holds no such tokens.
    """
    values = tokens_of(store, tokens)
    layers = values.layer.values.tolist()
    states = [blocks_of(values.sel(layer=layer)) for layer in layers]
    squares = np.empty((len(layers), len(layers)))
    # One pair after the other: all at once would hold a block at all states, and a matrix for every pair.
    for one, other in combinations_with_replacement(range(len(layers)), 2):
        squares[one, other] = squares[other, one] = _squared_scatter(states[one], states[other]).compute()
    own = np.sqrt(np.diag(squares))
    with np.errstate(invalid="ignore", divide="ignore"):
        aligned = squares / np.outer(own, own)
    array = xr.DataArray(aligned, dims=("layer", "other_layer"), coords={"layer": layers, "other_layer": layers})
    return xr.Dataset({"linear_cka": array.assign_attrs(long_name=f"linear CKA of {tokens}", units="1")})


def cka_between_runs(run: xr.Dataset, intact: xr.Dataset, *, tokens: str = "patches") -> xr.Dataset:
    """Linear CKA between the tokens of a run and of its intact arm, by layer.

    Parameters
    ----------
    run, intact
        A run and its intact arm, of the same images in the same order; states that both hold are compared.
    tokens
        As for `cka_between_layers`, where the formula is stated. Raises as that does.

    Returns
    -------
    `linear_cka` (layer), float64, lazy. Memory: T x 2 B, twice that at the last state, and P for twice the channels
    (see `analyses.analysis`).
    """
    first, second = (tokens_of(store, tokens) for store in shared_layers(run, intact))
    layers = first.layer.values.tolist()
    found = [_alignment(first.sel(layer=layer), second.sel(layer=layer)) for layer in layers]
    array = xr.DataArray(da.stack(found), dims=("layer",), coords={"layer": layers})  # type: ignore[no-untyped-call]
    return xr.Dataset({"linear_cka": array.assign_attrs(long_name=f"linear CKA of {tokens} with intact", units="1")})


def _squared_scatter(one: list[Any], other: list[Any]) -> Any:
    """Squared Frobenius norm of the scatter between two states, each given block by block: a dask value."""
    return delayed(_square)(merged([delayed(Moments.of)(*pair) for pair in zip(one, other, strict=True)]))


def _square(moments: Moments) -> float:
    return float(np.vdot(moments.scatter, moments.scatter))


def _alignment(one: xr.DataArray, other: xr.DataArray) -> da.Array:
    other = other.chunk(image=one.chunksizes["image"])
    pairs = zip(blocks_of(one), blocks_of(other), strict=True)
    products = merged([delayed(_products)(*pair) for pair in pairs])
    found: da.Array = da.from_delayed(delayed(_cka)(products), (), np.float64)  # type: ignore[no-untyped-call]
    return found


def _products(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> Moments:
    """Moments of the tokens of both stores, channels side by side, so that a token that one lacks counts in neither."""
    flat = [tokens.reshape(-1, tokens.shape[-1]) for tokens in (one, other)]
    # Put side by side slice by slice: a copy of both blocks would be the largest thing in memory.
    return reduce(
        Moments.merge,
        (
            Moments.of(np.concatenate([tokens[first : first + SLICE] for tokens in flat], axis=-1))
            for first in range(0, len(flat[0]), SLICE)
        ),
    )


def _cka(moments: Moments) -> Matrix:
    """CKA of the two halves of the channels; NaN where one of them does not vary."""
    channels = len(moments.mean) // 2
    tiles = moments.scatter.reshape(2, channels, 2, channels)
    squares = np.einsum("ambn,ambn->ab", tiles, tiles)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(squares[0, 1] / np.sqrt(squares[0, 0] * squares[1, 1]))
