"""Square matrices by layer: cosines between registers, attention flow between token types, similarity of layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.figures.style import entitle, save
from cachetool.errors import MissingDataError

_CAPTION = (
    "Rows: {rows}; columns: {columns}. {values}. Layer k is the input of block k. Means over images, n = {images}."
)


def matrices(values: xr.DataArray, path: Path, *, rows: str, columns: str, title: str) -> None:
    """Draw a matrix per layer on one colour scale, and save it.

    Parameters
    ----------
    values
        Any dimensions; all but `layer`, `rows` and `columns` are averaged.
    path
        File to write; its ending decides the format.
    rows, columns
        The two dimensions of a matrix.
    title
        Shown above.

    Raises
    ------
    MissingDataError
        A dimension is lacking.
    """
    save(draw(values, rows, columns, title), path)


def draw(values: xr.DataArray, rows: str, columns: str, title: str) -> Figure:
    """The figure: one panel per layer, or a single one without layers."""
    lacking = [name for name in (rows, columns) if name not in values.dims]
    if lacking:
        raise MissingDataError(
            f"expected the dimensions {', '.join(lacking)}, found {', '.join(map(str, values.dims))}"
        )
    layered = values if "layer" in values.dims else values.expand_dims("layer")
    means = layered.mean([name for name in layered.dims if name not in ("layer", rows, columns)])
    means = means.transpose("layer", rows, columns)
    panels = means.sizes["layer"]
    across = min(4, panels)
    down = -(-panels // across)
    figure = Figure(figsize=(2.1 * across + 1.4, 2.1 * down + 1.5), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    finite = means.values[np.isfinite(means.values)]
    signed = bool(finite.size) and finite.min() < -0.01
    limit = max(float(np.abs(finite).max()), 1e-6) if finite.size else 1.0
    image = None
    for position, axes in enumerate(grid.flat):
        if position >= panels:
            axes.set_axis_off()
            continue
        matrix = means.isel(layer=position)
        # Both maps are perceptually even and told apart under all common colour deficiencies.
        image = axes.imshow(
            matrix.values, vmin=-limit if signed else 0, vmax=limit, cmap="PuOr" if signed else "viridis"
        )
        if "layer" in values.dims:
            axes.set_title(f"layer {int(means.layer[position])}", fontsize=9)
        _label(axes, matrix, rows, columns, limit, signed=signed, left=position % across == 0)
    if image is not None:
        bar = figure.colorbar(image, ax=grid, shrink=0.7)
        bar.ax.tick_params(labelsize=8)
    images = f"{values.sizes['image']:,}" if "image" in values.dims else "see the table"
    caption = _CAPTION.format(
        rows=rows.replace("_", " "), columns=columns.replace("_", " "), images=images,
        values=values.attrs.get("long_name", str(values.name)).capitalize(),
    )  # fmt: skip
    entitle(figure, title, caption)
    return figure


def _label(
    axes: Axes, matrix: xr.DataArray, rows: str, columns: str, limit: float, *, signed: bool, left: bool
) -> None:
    names = [[_name(value) for value in _labels(matrix, dimension)] for dimension in (rows, columns)]
    axes.set_xticks(range(len(names[1])), names[1], fontsize=7, rotation=45 if max(map(len, names[1])) > 3 else 0)
    axes.set_yticks(range(len(names[0])), names[0] if left else [], fontsize=7)
    if matrix.size > 36:  # numbers would not be readable
        return
    for (row, column), value in np.ndenumerate(matrix.values):
        dark = abs(value) > 0.6 * limit if signed else value < 0.6 * limit
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color="white" if dark else "black")


def _labels(matrix: xr.DataArray, dimension: str) -> list[object]:
    if dimension in matrix.coords:
        return list(matrix[dimension].values.tolist())
    return list(range(matrix.sizes[dimension]))


def _name(value: object) -> str:
    return {"cls": "[CLS]"}.get(str(value), str(value))
