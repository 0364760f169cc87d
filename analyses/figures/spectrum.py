"""Eigenvalue spectra of tokens by layer, on a logarithmic scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure

from analyses.figures.style import entitle, save, tidy
from cachetool.errors import MissingDataError

_CAPTION = "Eigenvalues of the covariance, each divided by their sum. Dark to light: layers from the first to the last."


def spectrum(values: xr.DataArray, path: Path, *, title: str) -> None:
    """Draw the share of variance of each component, one line per layer, and save it.

    Parameters
    ----------
    values
        Eigenvalues (layer, component), in descending order.
    path
        File to write; its ending decides the format.
    title
        Shown above.

    Raises
    ------
    MissingDataError
        There is no dimension `component`.
    """
    save(draw(values, title), path)


def draw(values: xr.DataArray, title: str) -> Figure:
    """The figure."""
    if "component" not in values.dims:
        raise MissingDataError(f"expected a dimension component, found {', '.join(map(str, values.dims))}")
    layered = values if "layer" in values.dims else values.expand_dims("layer")
    figure = Figure(figsize=(6.2, 4.4), layout="constrained")
    axes = figure.subplots()
    count = layered.sizes["layer"]
    for position in range(count):
        eigenvalues = layered.isel(layer=position).values
        shares = eigenvalues / eigenvalues.sum()
        shown = shares > 0
        axes.plot(
            np.arange(1, len(shares) + 1)[shown],
            shares[shown],
            color=colormaps["viridis"](0.95 * position / max(count - 1, 1)),
            lw=1.3,
            label=f"layer {int(layered.layer[position])}" if "layer" in layered.coords else None,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("component", fontsize=9)
    axes.set_ylabel("share of variance", fontsize=9)
    if "layer" in layered.coords:
        axes.legend(fontsize=7, frameon=False, ncols=2)
    tidy(axes)
    entitle(figure, title, _CAPTION)
    return figure
