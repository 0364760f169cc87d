"""What patch tokens look like over some images, intact and under every edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

import cachetool
from analyses.geometry.patch_colours import ColourBasis, check_images
from cachetool.errors import CachetoolError, MissingDataError

INTACT = "intact"
"""Name of the arm that nothing was edited in."""

_MAP = ("arm", "image", "row", "col")


def token_maps(
    cache: xr.Dataset,
    runs: Mapping[str, xr.Dataset],
    images: Sequence[int],
    *,
    basis: ColourBasis | None = None,
    attention: bool = True,
    weights: str | Path | None = None,
    device: str | None = None,
) -> xr.Dataset:
    """Maps of the final patch tokens of some images: colours, norms, cosines with intact, attention of [CLS].

    Parameters
    ----------
    cache
        The cache: the intact arm.
    runs
        Runs of it by the name that they are shown under.
    images
        Positions of the images.
    basis
        Basis of the colours; by default that of all final patches of the cache.
    attention
        Whether to run the last block again for its attention.
    weights, device
        As for `cachetool.attention`.

    Returns
    -------
    Loaded, float32, dimensions (arm, image, row, col), the first arm `intact`: `colour` (..., rgb) in 0 to 1, of one
    basis for all arms; `norm` of the last state before the final norm; `cosine` of each patch with its intact self,
    after the final norm; `attention` of [CLS] to each patch in the last block, mean over heads. NaN where an arm does
    not hold what is needed; `attention` is absent where no arm does. The attribute `without_attention` gives the
    reason for each arm that lacks it, `explained` the shares of variance of the colours.

    Raises
    ------
    MissingDataError
        An arm lacks the patches of the last state; names it.
    InvalidEditError
        The cache lacks one of the images; names all of them.
    """
    check_images(images, min(store.sizes["image"] for store in (cache, *runs.values())))
    arms = {INTACT: cache, **runs}
    chosen = {name: _of_images(name, store, images) for name, store in arms.items()}
    palette = ColourBasis.of(cache) if basis is None else basis
    depth = int(cache.attrs["depth"])
    final = {name: _final(store, depth) for name, store in chosen.items()}
    raw = {name: store.patches.sel(layer=depth).values.astype(np.float64) for name, store in chosen.items()}
    positions = range(len(images))
    grid = (int(cache.row.values.max()) + 1, int(cache.col.values.max()) + 1)
    found: dict[str, Any] = {
        "colour": ((*_MAP, "rgb"), np.stack([palette.colours(store, positions) for store in chosen.values()])),
        "norm": (_MAP, _on_grid([np.linalg.norm(values, axis=-1) for values in raw.values()], grid)),
        "cosine": (_MAP, _on_grid([_cosine(values, final[INTACT]) for values in final.values()], grid)),
    }
    attributes: dict[str, Any] = {"explained": list(palette.explained)}
    if attention:
        attended, reasons = _attention(chosen, depth, weights, device)
        attributes["without_attention"] = reasons
        if len(reasons) < len(arms):
            found["attention"] = (_MAP, _on_grid(attended, grid))
    return xr.Dataset(
        found,
        {"arm": list(arms), "position": ("image", list(images)), "image_id": ("image", chosen[INTACT].image_id.values)},
        attributes,
    )


def _of_images(name: str, store: xr.Dataset, images: Sequence[int]) -> xr.Dataset:
    depth = int(store.attrs["depth"])
    if "patches" not in store or depth not in store.layer.values:
        raise MissingDataError(
            f"expected patches of state {depth}, the model's last, in {name}, found "
            f"{', '.join(held for held in ('cls', 'registers', 'patches') if held in store) or 'no tokens'} of states "
            f"{', '.join(map(str, store.layer.values))}; extract or keep them"
        )
    return store.isel(image=list(images))


def _final(store: xr.Dataset, depth: int) -> npt.NDArray[np.float64]:
    return np.asarray(cachetool.normalize(store.patches.sel(layer=depth), store).values, dtype=np.float64)


def _cosine(values: npt.NDArray[np.float64], intact: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Cosine (image, patch) of tokens (image, patch, channel); NaN where one is zero or absent."""
    with np.errstate(invalid="ignore", divide="ignore"):
        norms = np.linalg.norm(values, axis=-1) * np.linalg.norm(intact, axis=-1)
        return np.asarray((values * intact).sum(axis=-1) / norms)


def _on_grid(arms: Sequence[npt.NDArray[np.floating]], grid: tuple[int, int]) -> npt.NDArray[np.float32]:
    stacked = np.stack(arms).astype(np.float32)
    return stacked.reshape(*stacked.shape[:2], *grid)


def _attention(
    arms: Mapping[str, xr.Dataset], depth: int, weights: str | Path | None, device: str | None
) -> tuple[list[npt.NDArray[np.float32]], dict[str, str]]:
    """Attention of [CLS] to patches (image, patch) of each arm, NaN where there is none, and the reasons by arm."""
    attended, reasons = [], {}
    for name, store in arms.items():
        try:
            whole = cachetool.attention(store, depth - 1, weights=weights, device=device).isel(layer=0)
            if "cls" not in whole.query_type.values:
                raise MissingDataError("the model has no [CLS], whose attention is shown")
            cls_to_patches = whole.sel(query=whole.query_type == "cls", key=whole.key_type == "patches")
            values = cls_to_patches.isel(query=0).mean("head").values
            attended.append(values)
        except CachetoolError as error:
            attended.append(np.full((store.sizes["image"], store.sizes["patch"]), np.nan, dtype=np.float32))
            reasons[name] = str(error)
    return attended, reasons
