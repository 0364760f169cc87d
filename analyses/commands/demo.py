"""`cachetool demo`: the main job end to end on the embedded model and data, offline."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cachetool.cli.console import JsonOption, errors, output, print_json, progress
from cachetool.packages import FIGURES, require

if TYPE_CHECKING:
    from rich.table import Table

    from analyses.demo import Row


def command(
    root: Annotated[Path, typer.Option(help="Directory for caches, runs and the figure.")] = Path("cachetool-demo"),
    from_layer: Annotated[int, typer.Option(min=1, max=12, help="First edited state.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Show on the embedded model and data what becomes of features when tokens are replaced; about two minutes.

    Extracts, calibrates on other images, replays the registers as none, zero, mean, noise and shuffle, and [CLS] and
    four random patches as zero beside them; measures, and draws one figure.
    """
    require("cachetool demo", FIGURES, "report")
    from analyses.demo import MODEL, run_demo
    from analyses.figures import register_figure

    started = time.monotonic()
    with progress() as events:
        rows = run_demo(root, from_layer, events)
    figure = root / "registers.png"
    register_figure(
        [row.name for row in rows],
        [row.difference for row in rows],
        [row.cosine for row in rows],
        figure,
        title=f"{MODEL} on shapes: tokens replaced at every state from {from_layer} on "
        f"({rows[0].difference.images} images)",
    )
    seconds = time.monotonic() - started
    if as_json:
        print_json({"rows": [row.to_json() for row in rows], "figure": str(figure), "seconds": seconds})
        return
    errors.print(_table(rows))
    errors.print(f"certificate: the unedited replay is within {rows[0].relative_error:.1e} of the stored last state")
    errors.print(f"done in {seconds:.0f} s; caches and runs are in {root}", markup=False)
    output.print(str(figure), markup=False, highlight=False, soft_wrap=True)


def _table(rows: list[Row]) -> Table:
    """The rows as a table for people."""
    import numpy as np
    from rich.table import Table

    shown = Table(
        "edit",
        "top-1",
        "change, pp (95 % interval)",
        "within 1 pp",
        "patch cosine",
        "distance rank",
        caption="top-1 of a probe fitted on intact [CLS]; median cosine of final patches with intact; "
        "rank of the injected tokens' Mahalanobis distance among natural ones (50 = typical)",
    )
    for row in rows:
        change = row.difference
        shown.add_row(
            row.name,
            f"{100 * row.accuracy:.1f} %",
            f"{100 * change.estimate:+.1f} ({100 * change.low:+.1f} to {100 * change.high:+.1f})",
            "yes" if change.equivalent else "not shown",
            f"{np.median(row.cosine):.3f}",
            "" if np.isnan(row.mahalanobis_percentile) else f"{row.mahalanobis_percentile:.0f}",
        )
    return shown
