"""How similar tokens are as a whole: linear centred kernel alignment between layers, and of runs with intact."""

from __future__ import annotations

from functools import reduce

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import delayed

from analyses.geometry.moments import SLICE, Matrix, Moments, blocks_of, merged
from analyses.geometry.tokens_of import shared_layers, tokens_of

BAND_BYTES = 64 * 2**20
"""Size of one matrix of cross products: all layers at once where they fit, else as many as do, in several passes."""


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
    read after the final norm. One pass over the tokens, or several where the products of all layers exceed 64 MB.
    Memory: a block of images at all states and a few times 64 MB per dask thread, and 64 MB for every doubling of the
    number of blocks.

    Raises
    ------
    MissingDataError
        The store holds no such tokens.
    """
    values = tokens_of(store, tokens)
    layers, channels = values.layer.values.tolist(), values.sizes["channel"]
    blocks = list(zip(*(blocks_of(values.sel(layer=layer)) for layer in layers), strict=True))
    height = max(1, BAND_BYTES // (8 * channels * channels * len(layers)))
    squares = np.empty((len(layers), len(layers)))
    for first in range(0, len(layers), height):
        band = slice(first, first + height)
        products = merged([delayed(_products)(list(states), band) for states in blocks])
        # Band by band, since all of them at once would be as large as one.
        squares[band] = delayed(_squares)(products, channels).compute()
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
    `linear_cka` (layer), float64, lazy. Memory: two blocks of images at one state of both per dask thread, and a
    (2 channel, 2 channel) matrix for every doubling of the number of blocks.
    """
    first, second = (tokens_of(store, tokens) for store in shared_layers(run, intact))
    layers = first.layer.values.tolist()
    found = [_alignment(first.sel(layer=layer), second.sel(layer=layer)) for layer in layers]
    array = xr.DataArray(da.stack(found), dims=("layer",), coords={"layer": layers})  # type: ignore[no-untyped-call]
    return xr.Dataset({"linear_cka": array.assign_attrs(long_name=f"linear CKA of {tokens} with intact", units="1")})


def _alignment(one: xr.DataArray, other: xr.DataArray) -> da.Array:
    other = other.chunk(image=one.chunksizes["image"])
    pairs = zip(blocks_of(one), blocks_of(other), strict=True)
    products = merged([delayed(_products)(list(pair), slice(None)) for pair in pairs])
    value = delayed(_cka)(products, one.sizes["channel"])
    found: da.Array = da.from_delayed(value, (), np.float64)  # type: ignore[no-untyped-call]
    return found


def _products(states: list[npt.NDArray[np.floating]], band: slice) -> Moments:
    """Moments of the tokens at some of the states with those at all of them, channels of states side by side."""
    flat = [tokens.reshape(-1, tokens.shape[-1]) for tokens in states]
    whole = len(flat[band]) == len(flat)
    found: list[Moments] = []
    # Put side by side slice by slice: a copy of all states of a block would be the largest thing in memory.
    for first in range(0, len(flat[0]), SLICE):
        columns = np.concatenate([tokens[first : first + SLICE] for tokens in flat], axis=-1)
        rows = columns if whole else np.concatenate([tokens[first : first + SLICE] for tokens in flat[band]], axis=-1)
        found = [reduce(Moments.merge, [*found, Moments.of(rows, columns)])]
    return found[0]


def _squares(moments: Moments, channels: int) -> Matrix:
    """Squared Frobenius norm of the scatter of every state of the first view with every one of the second."""
    rows, columns = (length // channels for length in moments.scatter.shape)
    tiles = moments.scatter.reshape(rows, channels, columns, channels)
    found: Matrix = np.einsum("ambn,ambn->ab", tiles, tiles)
    return found


def _cka(moments: Moments, channels: int) -> Matrix:
    """CKA of two states; NaN where one of them does not vary."""
    squares = _squares(moments, channels)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(squares[0, 1] / np.sqrt(squares[0, 0] * squares[1, 1]))
