"""A chart of the page: what Plotly draws, what controls choose among, and what the layer slider changes."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plotly.basedatatypes import BaseTraceType
from plotly.io.json import to_json_plotly

from analyses.figures.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION

LINE_COLOURS = (VERMILION, BLUE, GREEN, ORANGE, PURPLE, SKY, "#8C6D1F")
"""Of the figures' palette what is seen on a light and on a dark page, and a brown."""

DASHES = ("solid", "dash", "dot", "dashdot")

MINUS = "\u2212"


@dataclass(frozen=True)
class Control:
    """A choice above a chart."""

    label: str
    """What is chosen."""
    options: tuple[str, ...]
    """The choices; the first is shown at first."""

    @property
    def kind(self) -> str:
        """Few choices lie open, many in a list."""
        return "radio" if len(self.options) <= 3 else "select"


@dataclass(frozen=True)
class View:
    """What is drawn for one choice of all controls."""

    traces: Sequence[BaseTraceType]
    """Plotly's traces."""
    layout: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the chart's layout."""


@dataclass(frozen=True)
class Chart:
    """A chart with its controls."""

    key: str
    """Name within the page: letters, digits and dashes."""
    title: str
    """What is shown."""
    caption: str
    """How to read it."""
    views: Mapping[tuple[int, ...], View]
    """By the choice of each control, and of the layer where there are `layers`."""
    layout: Mapping[str, Any]
    """Plotly's layout, shared by all views; texts in it are escaped."""
    controls: tuple[Control, ...] = ()
    """Choices; only those that have a view can be drawn."""
    layers: tuple[int, ...] = ()
    """Layers that the slider chooses among, each with views of its own."""
    marks_layer: bool = False
    """Whether the slider's layer is marked along x."""
    height: int = 360
    """Pixels."""
    least_width: int = 0
    """Pixels below which the chart is scrolled instead of squeezed."""
    least_width_of_phone: int = 0
    """The same on a narrow screen, where labels are smaller and scales of colour are left out."""

    def to_json(self) -> str:
        """The chart for the page's script, safe inside a script element."""
        document = {
            "views": {
                ",".join(map(str, key)): {
                    "data": [trace.to_plotly_json() for trace in view.traces],
                    "layout": dict(view.layout),
                }
                for key, view in self.views.items()
            },
            "layout": dict(self.layout) | {"height": self.height},
            "layers": list(self.layers),
            "marksLayer": self.marks_layer,
        }
        return embedded(to_json_plotly(document))


def embedded(document: str) -> str:
    """JSON that can stand inside a script element whatever its texts hold."""
    return document.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def shown(text: object) -> str:
    """Text from data for Plotly, which reads a few HTML tags: none of it may act as one."""
    return html.escape(str(text), quote=False)


def signed(value: float, digits: int = 1) -> str:
    """A change with its sign; a dash where there is none."""
    if not math.isfinite(value):
        return "\u2013"
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", MINUS)


def between(low: float, high: float, digits: int = 1) -> str:
    """An interval of changes, empty where there is none."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"[{signed(low, digits)}, {signed(high, digits)}]" if known else ""


def number(value: float) -> str:
    """A quantity of any size."""
    return f"{value:.4g}".replace("-", MINUS) if math.isfinite(value) else "\u2013"
