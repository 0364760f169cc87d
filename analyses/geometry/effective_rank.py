"""How many directions tokens use: effective rank, participation ratio and eigenvalue spectrum."""

from __future__ import annotations

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import delayed

from analyses.blas_threads import one_blas_thread
from analyses.geometry.moments import Matrix, Moments, blocks_of, pooled_moments
from analyses.geometry.tokens_of import tokens_of

STACK = 4
"""Images whose eigenvalues are computed at a time; their Gram matrices take 4 M at most."""


def effective_rank(store: xr.Dataset, *, tokens: str = "patches", centre: bool = True) -> xr.Dataset:
    """Effective rank and participation ratio of tokens by layer, per image and pooled over all images.

    Effective rank: exp of the entropy (natural logarithm) of the singular values divided by their sum (Roy and
    Vetterli 2007, definition 1). Participation ratio: squared sum of the covariance's eigenvalues over the sum of
    their squares (Gao et al. 2017, equation 5). Per image, the tokens of the image are the rows of the matrix; pooled,
    all tokens of all images are.

    Parameters
    ----------
    store
        A cache or run.
    tokens
        `patches` or `registers`.
    centre
        Whether the mean token is subtracted first: that of the image, or of all images where they are pooled.

    Returns
    -------
    `effective_rank` and `participation_ratio` (image, layer), `pooled_effective_rank` and
    `pooled_participation_ratio` (layer), `eigenvalue` (layer, component) of the pooled covariance in descending order.
    Lazy, float64; NaN for images that could not be read. The last state is read after the final norm. Memory:
    T x B, twice that at the last state, and P (see `analyses.analysis`).

    Raises
    ------
    MissingDataError
        The store holds no such tokens.
    """
    values = tokens_of(store, tokens)
    states = [_of_state(values.sel(layer=layer), centre) for layer in values.layer.values]
    of_images, pooled = (da.stack(arrays) for arrays in zip(*states, strict=True))  # type: ignore[no-untyped-call]
    per_image = {name: one for name, one in values.coords.items() if one.dims == ("image",)}
    ranks = xr.DataArray(
        of_images, dims=("layer", "image", "quantity"), coords={"layer": values.layer, **per_image}
    ).transpose("image", "layer", "quantity")
    stacked = xr.DataArray(pooled, dims=("layer", "value"), coords={"layer": values.layer})
    of_image, of_all = f"{tokens} of an image", f"{tokens} of all images"
    found = {
        "effective_rank": ranks.isel(quantity=0).assign_attrs(long_name=f"effective rank of {of_image}"),
        "participation_ratio": ranks.isel(quantity=1).assign_attrs(long_name=f"participation ratio of {of_image}"),
        "pooled_effective_rank": stacked.isel(value=0).assign_attrs(long_name=f"effective rank of {of_all}"),
        "pooled_participation_ratio": stacked.isel(value=1).assign_attrs(long_name=f"participation ratio of {of_all}"),
        "eigenvalue": stacked.isel(value=slice(2, None))
        .rename(value="component")
        .assign_attrs(long_name=f"eigenvalues of {of_all}"),
    }
    centring = "centred on the mean token" if centre else "not centred"
    return xr.Dataset({name: one.assign_attrs(units="1", centring=centring) for name, one in found.items()})


def rank_of_singular_values(singular: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Effective rank (...) of singular values (..., component); 0 where all are 0, NaN where one is."""
    total = singular.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = singular / total
        terms = np.where(shares > 0, shares * np.log(shares), np.where(np.isnan(shares), np.nan, 0.0))
        rank = np.exp(-terms.sum(axis=-1))
    return np.where(total[..., 0] == 0, 0.0, rank)


def participation_of_eigenvalues(eigenvalues: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Participation ratio (...) of eigenvalues (..., component); 0 where all are 0."""
    squares = (eigenvalues**2).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = eigenvalues.sum(axis=-1) ** 2 / squares
    return np.where(squares == 0, 0.0, ratio)


def _of_state(tokens: xr.DataArray, centre: bool) -> tuple[da.Array, da.Array]:
    """Quantities of every image (image, 2) and of all images (2 + component,): who asks for one pays for it alone."""
    rows = [
        da.from_delayed(delayed(_ranks_of_images)(block, centre), (images, 2), np.float64)  # type: ignore[no-untyped-call]
        for block, images in zip(blocks_of(tokens), tokens.chunksizes["image"], strict=True)
    ]
    pooled = delayed(_pooled)(pooled_moments(tokens), centre)
    return (
        da.concatenate(rows),  # type: ignore[no-untyped-call]
        da.from_delayed(pooled, (2 + tokens.sizes["channel"],), np.float64),  # type: ignore[no-untyped-call]
    )


@one_blas_thread()
def _ranks_of_images(tokens: npt.NDArray[np.floating], centre: bool) -> npt.NDArray[np.float64]:
    """Effective rank and participation ratio (..., 2) of tokens (..., token, channel)."""
    images = tokens.reshape(-1, *tokens.shape[-2:])
    size = min(tokens.shape[-2:])
    spectra = np.full((len(images), size), np.nan)
    # Few images at a time, in the same memory: float64 copies of a whole block would be the largest thing in it.
    work, grams = np.empty(tokens.shape[-2:]), np.empty((STACK, size, size))
    for first in range(0, len(images), STACK):
        chosen = images[first : first + STACK]
        told = [_write_gram(image, centre, work, gram) for image, gram in zip(chosen, grams, strict=False)]
        # NumPy holds other threads up while it decomposes a single matrix, but not a stack of them.
        eigenvalues = np.linalg.eigvalsh(grams[: len(chosen)])
        # What lies below the rounding of the largest is 0: of singular values that is 2e-7 of the largest, where tokens
        # stored in float16 are rounded to 5e-4.
        rounding = size * np.finfo(np.float64).eps * eigenvalues[:, -1:]
        spectra[first : first + STACK][told] = np.where(eigenvalues > rounding, eigenvalues, 0.0)[told]
    ranks = np.stack([rank_of_singular_values(spectra**0.5), participation_of_eigenvalues(spectra)], axis=-1)
    return ranks.reshape(*tokens.shape[:-2], 2)


def _write_gram(image: npt.NDArray[np.floating], centre: bool, work: Matrix, gram: Matrix) -> bool:
    """Write the smaller Gram matrix of an image's finite tokens (token, channel); returns whether there is any.

    Its eigenvalues are the squares of the singular values, three times as fast as these themselves at 256 x 384. `work`
    is memory of the image's shape.
    """
    np.copyto(work, image)
    with np.errstate(invalid="ignore"):
        mean = work.mean(axis=0)  # finite only if all tokens are
    finite = None
    if not np.isfinite(mean).all():
        finite = np.isfinite(work).all(axis=1)
        if not finite.any():
            gram[:] = 0
            return False
        mean = work[finite].mean(axis=0)
    if centre:
        work -= mean
    if finite is not None:
        work[~finite] = 0  # which adds nothing to the others' eigenvalues but zeros
    few, many = (work, work.T) if len(work) < work.shape[1] else (work.T, work)
    np.matmul(few, many, out=gram)
    return True


def _pooled(moments: Moments, centre: bool) -> npt.NDArray[np.float64]:
    """Effective rank, participation ratio and eigenvalues of the pooled covariance, (2 + component,)."""
    if moments.count == 0:
        return np.full(len(moments.mean) + 2, np.nan)
    eigenvalues = np.clip(np.linalg.eigvalsh(moments.covariance(centre=centre))[::-1], 0, None)
    # Singular values of the matrix of all tokens are proportional to the roots of these.
    return np.concatenate(
        [[rank_of_singular_values(eigenvalues**0.5), participation_of_eigenvalues(eigenvalues)], eigenvalues]
    )
