"""What all figures share: colours, marks for intervals and for the margin of equivalence, captions, files."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.inference import EQUIVALENCE_MARGIN
from cachetool.errors import UnknownNameError

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#767676"
"""The palette of Okabe and Ito, "Color universal design" (2008), told apart under all common colour deficiencies; its
yellow is left out, since it is faint on white, and a grey is added for what only guides the eye."""

CHANGE = "change of {metric}\n(percentage points)"
"""Label of an axis of changes."""

_METRICS = {"top1": "top-1 accuracy", "recall@1": "Recall@1", "miou": "mIoU", "pck@0.1": "PCK@0.1"}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
COLOURS = (VERMILION, BLUE, GREEN, ORANGE, PURPLE, BLACK, SKY)
_KNOWN = ("zero", "mean", "shuffle", "noise", "norm-matched", "remove", "knockout")
_METADATA: dict[str, dict[str, None]] = {
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
    ".png": {"Software": None},
}
"""What a file must not say, so that the same table gives the same bytes on any day and in any release."""


def metric_name(metric: str) -> str:
    """A metric in the words of the field."""
    return _METRICS.get(metric, metric)


def change_label(metric: str) -> str:
    """Label of an axis of changes of this metric, with its unit."""
    return CHANGE.format(metric=metric_name(metric))


def literal(text: str) -> str:
    """Text from a table, shown as it is: a dollar sign in it does not begin a formula."""
    return text.replace("$", r"\$")


def replacement_styles(replacements: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each replacement: the common ones always the same, others in the order given."""
    names = dict.fromkeys((*_KNOWN, *replacements))
    # Seven colours and eight markers repeat at different lengths, so that 56 replacements look different.
    return {
        name: (COLOURS[position % len(COLOURS)], MARKERS[position % len(MARKERS)])
        for position, name in enumerate(names)
    }


def tidy(axes: Axes) -> None:
    """Take away the frame where it carries no scale."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def spread_ticks(axes: Axes) -> None:
    """Few ticks along x, so that their numbers keep apart in narrow panels."""
    axes.locator_params(axis="x", nbins=5)


def mark_equivalence(axes: Axes, *, vertical: bool) -> None:
    """Mark no change by a line, and the margin within which changes count as equivalent by a band.

    `vertical` says that changes run along x, so that the band stands upright.
    """
    margin = 100 * EQUIVALENCE_MARGIN
    span, line = (axes.axvspan, axes.axvline) if vertical else (axes.axhspan, axes.axhline)
    span(-margin, margin, color=GREY, alpha=0.22, lw=0, zorder=0)
    line(0, color=GREY, lw=0.8, zorder=0)


def draw_intervals(
    axes: Axes,
    position: npt.ArrayLike,
    low: npt.ArrayLike,
    high: npt.ArrayLike,
    *,
    vertical: bool,
    colour: str,
) -> None:
    """Draw confidence intervals, each (arm,), from their ends; arms without an interval (NaN) get no bar.

    The ends are drawn as they are: a percentile interval need not hold the estimate, which error bars demand.
    """
    places, lower, upper = (np.asarray(values, dtype=np.float64) for values in (position, low, high))
    known = np.isfinite(lower) & np.isfinite(upper) & np.isfinite(places)
    if known.any():
        draw = axes.vlines if vertical else axes.hlines
        draw(places[known], lower[known], upper[known], colors=colour, lw=1.1, zorder=2)


def widen(axes: Axes, *, vertical: bool) -> None:
    """Show 2 percentage points on either side of none at least, so that small changes look small.

    `vertical` says that changes run along y.
    """
    low, high = axes.get_ylim() if vertical else axes.get_xlim()
    room = 2 * 100 * EQUIVALENCE_MARGIN
    (axes.set_ylim if vertical else axes.set_xlim)(min(low, -room), max(high, room))


def entitle(figure: Figure, title: str, caption: str, key: Sequence[Artist] = ()) -> None:
    """Put a title and a key above all panels and a caption below them, wrapped to the width of the figure."""
    # One legend holds title and key: a layout that makes room for both apart lets them overlap.
    columns = max(2, min(4, int(figure.get_figwidth() / 2.9)))
    legend = figure.legend(
        handles=key, loc="outside upper center", ncols=columns, frameon=False, fontsize=8, title=literal(title)
    )
    legend.get_title().set(fontsize=11, fontweight="bold", multialignment="center")
    characters = int(figure.get_figwidth() * 15.5)
    figure.supxlabel(
        literal("\n".join(textwrap.wrap(caption, characters))), x=0.012, ha="left", fontsize=8, color="#333333"
    )


def save(figure: Figure, path: Path) -> None:
    """Write a figure; its ending decides the format. The same figure gives the same bytes at any time.

    Raises
    ------
    UnknownNameError
        The ending names no format that can be written.
    """
    formats = sorted(figure.canvas.get_supported_filetypes())
    if path.suffix.lower().removeprefix(".") not in formats:
        raise UnknownNameError(
            f"a figure cannot be written as {path.name!r}: its ending must be one of "
            f"{', '.join(f'.{name}' for name in formats)}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(figure, path, path.suffix.lower())


def as_svg(figure: Figure) -> bytes:
    """The figure as the contents of an SVG file; the same figure gives the same bytes at any time."""
    buffer = io.BytesIO()
    _write(figure, buffer, ".svg")
    return buffer.getvalue()


def _write(figure: Figure, target: Path | BinaryIO, ending: str) -> None:
    with mpl.rc_context({"svg.hashsalt": "cachetool"}):
        figure.savefig(target, format=ending.removeprefix("."), dpi=150, metadata=_METADATA.get(ending))
