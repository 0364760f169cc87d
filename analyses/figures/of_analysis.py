"""The figures of an analysis, chosen by the dimensions of what it found."""

from __future__ import annotations

from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from analyses.figures.by_layer import draw as draw_by_layer
from analyses.figures.matrices import draw as draw_matrices
from analyses.figures.spectrum import draw as draw_spectrum
from analyses.figures.style import save
from analyses.summary import summarize

SQUARE = (("register", "other_register"), ("layer", "other_layer"), ("query_type", "key_type"))
"""Pairs of dimensions that are drawn as a matrix: rows, columns."""


def figures(found: xr.Dataset, *, confidence: float = 0.95) -> dict[str, Figure]:
    """A figure per variable that can be drawn, by the variable's name.

    Parameters
    ----------
    found
        What `analyses.analyze.analyze` returned.
    confidence
        Coverage of the bands.
    """
    table = summarize(found, confidence=confidence)
    drawn: dict[str, Figure] = {}
    for name in map(str, found.data_vars):
        values = found[name]
        if values.dtype.kind not in "biuf" or values.attrs.get("identifier"):
            continue
        title = str(values.attrs.get("long_name", name.replace("_", " "))).capitalize()
        square = [pair for pair in SQUARE if set(pair) <= set(values.dims)]
        if square:
            if "run" not in values.dims:
                drawn[name] = draw_matrices(values, *square[0], title)
        elif "component" in values.dims:
            if "run" not in values.dims:
                drawn[name] = draw_spectrum(values, title)
        elif "layer" in values.dims and values.sizes["layer"] > 1:
            drawn[name] = draw_by_layer(table, name, title)
    return drawn


def write_analysis_figures(found: xr.Dataset, directory: Path, *, confidence: float = 0.95) -> list[Path]:
    """Write `ANALYSIS-VARIABLE.svg` and `.png` for every variable that can be drawn; returns the files."""
    written = []
    for name, figure in figures(found, confidence=confidence).items():
        for ending in (".svg", ".png"):
            path = directory / f"{found.attrs['analysis']}-{name.replace('_', '-')}{ending}"
            save(figure, path)
            written.append(path)
    return written
