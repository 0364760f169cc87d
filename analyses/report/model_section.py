"""What a page shows of one model of a table: the heat map, every number of it, and the figures of the study."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from analyses.figures.cls_dependence import dependence_on_cls
from analyses.figures.cls_dependence import draw as draw_dependence
from analyses.figures.selection import parts, select_part
from analyses.figures.style import as_svg
from analyses.figures.writing import FIGURES
from analyses.report.charts import Chart
from analyses.report.effects import Effects
from analyses.report.heat_map import heat_map, listing
from analyses.report.provenance import digest
from cachetool.errors import MissingDataError


@dataclass(frozen=True)
class StaticFigure:
    """A figure as it would be printed."""

    title: str
    """What it shows."""
    uri: str
    """Data URI of the SVG."""


@dataclass(frozen=True)
class ModelSection:
    """One model of one table."""

    model: str
    """The model."""
    key: str
    """Name within the page."""
    source: str
    """File of the table."""
    source_digest: str
    """SHA-256 of the file."""
    chart: Chart
    """Task by ablation."""
    listing: Sequence[Mapping[str, str]]
    """Every number of it."""
    figures: tuple[StaticFigure, ...]
    """Further figures of the table."""


def model_section(effects: Effects, frame: pd.DataFrame, key: str) -> ModelSection:
    """The section of one model. `frame` is the whole table that it comes from."""
    figures = []
    for model, dataset in parts(frame[frame["model"] == effects.model]):
        part = select_part(frame, model, dataset)
        for name, draw in FIGURES.items():
            if name == "heat-map":  # the page has one that can be asked
                continue
            try:
                figure = draw(part)
            except MissingDataError:
                # A table need not hold the edits that every figure shows.
                continue
            figures.append(_static(f"{name.replace('-', ' ').capitalize()}: {part.title}", figure))
    return ModelSection(
        effects.model, key, str(effects.source), digest(effects.source), heat_map(effects, key), listing(effects),
        tuple(figures),
    )  # fmt: skip


def dependence_figure(
    frames: Sequence[pd.DataFrame], similarities: Mapping[str, Sequence[xr.Dataset]], registers: Mapping[str, int]
) -> StaticFigure | None:
    """Dense features and tasks under edits of [CLS], all models side by side; None where none was measured."""
    table = dependence_on_cls(frames, similarities)
    if table.empty:
        return None
    return _static("Dependence of dense features and tasks on [CLS]", draw_dependence(table, registers))


def _static(title: str, figure: Figure) -> StaticFigure:
    return StaticFigure(title, f"data:image/svg+xml;base64,{base64.b64encode(as_svg(figure)).decode()}")
