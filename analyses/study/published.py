"""The published numbers, and how the rows of a study are set beside them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from analyses.evaluation.rows import Row

FIRST_STATE = 1
"""The paper edits every state from this one to the last."""


@dataclass(frozen=True)
class Published:
    """What the paper reports for one model, task and condition."""

    value: float = np.nan
    """The metric as a fraction; NaN where only a drop is given."""
    drop_pp: float = np.nan
    """Loss against the paper's intact value in percentage points, positive where the metric falls; NaN for intact."""
    source: str = ""
    """Where it is from; empty where the paper has no number."""


@cache
def published_numbers() -> dict[tuple[str, str, str], Published]:
    """All numbers by model, task and condition, such as `registers zero`, or `intact`."""
    document = _document()
    found: dict[tuple[str, str, str], Published] = {}
    for entry in document["numbers"]:
        model, task, intact, source = entry["model"], entry["task"], entry.get("intact"), document["source"]
        if intact is not None:
            found[model, task, "intact"] = Published(intact / 100, source=source)
            for condition, value in entry["conditions"].items():
                found[model, task, condition] = Published(value / 100, round(intact - value, 6), source)
        for condition, drop in entry.get("drops", {}).items():
            found[model, task, condition] = Published(drop_pp=drop, source=source)
    return found


def published_note() -> str:
    """What a reader must know before comparing."""
    return str(_document()["note"])


def published_of(row: Row, headline: str, depth: int) -> Published:
    """The paper's number for a row: an empty one unless model, task and edit are the paper's.

    Parameters
    ----------
    headline
        Name of the task's first metric: the paper has one metric a task.
    depth
        Number of blocks of the model, which is its last state.
    """
    if row.metric != headline or row.head != "intact":
        return Published()
    if row.replacement == "none":
        condition = "intact"
    elif row.sustained and row.until_layer == depth:
        condition = f"{row.target} {row.replacement}"
    else:
        return Published()
    if row.from_layer != FIRST_STATE:
        return Published()
    return published_numbers().get((row.model, row.task, condition), Published())


@cache
def _document() -> dict[str, Any]:
    text = resources.files("analyses.study").joinpath("published.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
