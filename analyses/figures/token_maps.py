"""Images with maps of their tokens, intact beside every ablation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from analyses.figures.style import entitle, literal, save

Pictures = Mapping[int, npt.NDArray[np.uint8]]
"""Photographs (row, column, rgb) by the image's position in the cache."""

ATTENTION_PERCENTILE = 97
"""Where the scale of attention ends: a few outlier patches that take most of it would leave the others black."""

_CAPTION = (
    "Colours: three principal components of final patch features, one basis for all arms ({explained:.0%} of the "
    "variance). Norm: of patches in the last state, logarithmic. Cosine: of each final patch with its intact self. "
    "Attention: of [CLS] in the last block, mean over heads. Every row but the first has one scale. An empty panel: "
    "the run did not keep what it takes."
)
_ROWS = {
    "colour": "principal\ncomponents",
    "norm": "norm",
    "cosine": "cosine\nwith intact",
    "attention": "attention\nof [CLS]",
}


def token_maps(maps: xr.Dataset, photos: Pictures, path: Path, *, image: int = 0) -> None:
    """Draw the maps of one image, and save them.

    Parameters
    ----------
    maps
        What `analyses.examples.token_maps.token_maps` returned.
    photos
        Photographs; an image without one is drawn without.
    path
        File to write; its ending decides the format.
    image
        Which of the images of `maps`.
    """
    save(draw(maps, photos, image), path)


def draw(maps: xr.Dataset, photos: Pictures, image: int) -> Figure:
    """The figure: a row a map, a column an arm, the photograph before them."""
    one = maps.isel(image=image)
    arms = [str(arm) for arm in maps.arm.values]
    rows = [name for name in _ROWS if name in one and not (name == "cosine" and len(arms) == 1)]
    photo = photos.get(int(one.position))
    columns = len(arms) + (photo is not None)
    figure = Figure(figsize=(max(1.15 * columns + 0.9, 5), 1.15 * len(rows) + 1.5), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    first = columns - len(arms)
    if photo is not None:
        grid[0, 0].imshow(photo)
        grid[0, 0].set_title("input", fontsize=7)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, name in enumerate(rows):
        grid[row, first].text(
            -0.08, 0.5, _ROWS[name], transform=grid[row, first].transAxes, ha="right", va="center", fontsize=7
        )
        values = one[name].values
        drawn = None
        for column, arm in enumerate(arms):
            axes = grid[row, first + column]
            if row == 0:
                axes.set_title(literal(arm.replace(", ", ",\n")), fontsize=6)
            if not np.isfinite(values[column]).any():
                continue
            if name == "colour":
                axes.imshow(np.nan_to_num(values[column], nan=1.0))
            else:
                drawn = axes.imshow(values[column], cmap=_colours(name), norm=_scale(name, values))
        if drawn is not None:
            bar = figure.colorbar(drawn, ax=grid[row, :].tolist(), fraction=0.03, pad=0.01, aspect=12)
            bar.ax.tick_params(which="both", labelsize=6)
    entitle(figure, str(one.image_id.item()), _CAPTION.format(explained=sum(maps.attrs["explained"])))
    return figure


def _colours(name: str) -> str:
    return {"norm": "cividis", "cosine": "viridis", "attention": "magma"}[name]


def _scale(name: str, values: npt.NDArray[np.floating]) -> Normalize:
    """One scale for all arms of an image."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if name == "norm" and low > 0:
        return LogNorm(low, max(high, low * 1.001))
    if name == "cosine":
        return Normalize(low, 1.0)
    return Normalize(0.0, float(np.nanpercentile(values, ATTENTION_PERCENTILE)))
