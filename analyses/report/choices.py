"""Which rows of a summary a chart shows for each choice of its controls, and how they are named."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.report.charts import Control, number

STATISTICS = ("variable", "units", "value", "low", "high", "images")
"""Columns of a summary that tell no rows apart."""

Choice = tuple[tuple[int, ...], pd.DataFrame]
"""Position of the choice in each control, and its rows."""


def labels_of(rows: pd.DataFrame, without: Sequence[str]) -> list[str]:
    """Columns that tell rows of one variable apart."""
    return [name for name in rows.columns if name not in (*STATISTICS, *without) and rows[name].nunique() > 1]


def choices_of(rows: pd.DataFrame, labels: Sequence[str]) -> tuple[tuple[Control, ...], list[Choice]]:
    """A control for each label, and the rows of each choice that has some."""
    options = [list(rows[label].unique()) for label in labels]
    controls = tuple(
        Control(label.replace("_", " "), tuple(named(label, value) for value in values))
        for label, values in zip(labels, options, strict=True)
    )
    choices = []
    for place in itertools.product(*(range(len(values)) for values in options)):
        wanted = [rows[label] == values[one] for label, values, one in zip(labels, options, place, strict=True)]
        chosen = rows[np.logical_and.reduce(wanted)] if wanted else rows
        if len(chosen):
            choices.append((place, chosen))
    return controls, choices


def layers_of(rows: pd.DataFrame) -> tuple[int, ...]:
    """Layers of the rows in ascending order; none where they are not known by layer."""
    return tuple(sorted(int(layer) for layer in rows["layer"].unique())) if "layer" in rows else ()


def named(label: str, value: object) -> str:
    """Numbers need their dimension's name, words speak for themselves."""
    return plain(value) if isinstance(value, str) else f"{label.replace('_', ' ')} {plain(value)}"


def plain(value: object) -> str:
    """A coordinate as text; tables that lack it in some rows hold whole numbers as fractions."""
    if isinstance(value, str):
        return "[CLS]" if value == "cls" else value
    return f"{value:g}"


def about_intervals(rows: pd.DataFrame) -> str:
    """What the intervals of a chart are, in words."""
    images = sorted(set(rows["images"]))
    if images == [0]:
        return "Pooled over images, without an interval."
    counted = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
    return f"Mean over images with its 95 % bootstrap interval, n = {counted}."


def quoted(value: float, low: float, high: float, images: int) -> str:
    """A number with its interval where it has one."""
    text = number(value)
    return f"{text} [{number(low)}, {number(high)}], n = {images:,}" if math.isfinite(low) else text


def quoted_row(row: Any) -> str:
    """`quoted` of a row of a summary."""
    return quoted(float(row.value), float(row.low), float(row.high), int(row.images))
