"""Every figure that a table allows, for every model and data set in it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analyses.figures.cls_dependence import cls_dependence, dependence_on_cls
from analyses.figures.dose_and_plausibility import draw as draw_dose_and_plausibility
from analyses.figures.heat_map import draw as draw_heat_map
from analyses.figures.layer_sweep import draw as draw_layer_sweep
from analyses.figures.lesions import draw as draw_lesions
from analyses.figures.refit import draw as draw_refit
from analyses.figures.selection import Part, parts, select_part
from analyses.figures.style import save
from cachetool.errors import MissingDataError

FIGURES: dict[str, Callable[[Part], Figure]] = {
    "dose-and-plausibility": draw_dose_and_plausibility,
    "layer-sweep": draw_layer_sweep,
    "lesions": draw_lesions,
    "heat-map": draw_heat_map,
    "refit": draw_refit,
}
"""The figures of a study by the name that their files begin with."""

FORMATS = (".svg", ".png")
"""Formats that each figure is written in."""


def write_figures(frame: pd.DataFrame, directory: Path) -> list[Path]:
    """Write every figure whose rows are there, as SVG and PNG, for every model and data set of a table.

    Dependence on [CLS] is one figure of all of them.

    Parameters
    ----------
    frame
        The tidy table (`analyses.evaluation.rows.as_frame`, or a study's table.csv).
    directory
        Where `FIGURE-MODEL-DATASET.svg` and `.png` go, and `cls-dependence`; made where it is absent.

    Returns
    -------
    The files, in the order of the table and of `FIGURES`; none for a table without rows.

    Raises
    ------
    DatasetError
        The table lacks columns, or has several rows for the same arm.
    """
    written = []
    for (model, dataset), name in file_names(parts(frame)).items():
        part = select_part(frame, model, dataset)
        for figure_name, draw in FIGURES.items():
            try:
                figure = draw(part)
            except MissingDataError:
                # A study need not hold the edits that every figure shows.
                continue
            for ending in FORMATS:
                path = directory / f"{figure_name}-{name}{ending}"
                save(figure, path)
                written.append(path)
    dependence = dependence_on_cls([frame], {})
    for ending in FORMATS if len(dependence) else ():
        cls_dependence(dependence, directory / f"cls-dependence{ending}")
        written.append(directory / f"cls-dependence{ending}")
    return written


def file_names(pairs: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """`MODEL-DATASET` for each pair, safe as a part of a file name and different for different pairs."""
    plain = {pair: "-".join(_safe(text) for text in pair) for pair in pairs}
    # Some file systems do not tell upper from lower case.
    counts = Counter(name.casefold() for name in plain.values())
    return {pair: name if counts[name.casefold()] == 1 else f"{name}-{_digest(pair)}" for pair, name in plain.items()}


def _safe(text: str) -> str:
    """Letters, digits, points, dashes and underscores as they are, all else as a dash."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII).strip("-.") or "unnamed"


def _digest(pair: tuple[str, str]) -> str:
    return hashlib.sha256("\0".join(pair).encode()).hexdigest()[:8]
