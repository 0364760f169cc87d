"""`cachetool analyze`: one analysis of a cache, of its runs, or of its runs against their intact arms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cachetool.cli import completion
from cachetool.cli.console import (
    ClusterOption,
    DeviceOption,
    JsonOption,
    RootOption,
    WeightsOption,
    integers,
    output,
    plain,
    print_json,
    progress,
)
from cachetool.packages import FIGURES, require

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 60
"""Rows that are printed; all are in the files."""


def command(
    name: Annotated[
        str | None, typer.Argument(help="The analysis; without it they are listed.", autocompletion=completion.analyses)
    ] = None,
    cache: Annotated[
        str | None,
        typer.Argument(help="The cache: a path, or DATASET/MODEL [the only one].", autocompletion=completion.caches),
    ] = None,
    runs: Annotated[bool, typer.Option("--runs", help="Analyse the runs of the cache instead of itself.")] = False,
    train: Annotated[
        str | None,
        typer.Option(
            "--train",
            help="The cache that heads are fitted on: a path, or DATASET/MODEL.",
            autocompletion=completion.caches,
        ),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="NAME=VALUE of an option; repeat for several.")
    ] = None,
    layers: Annotated[str | None, typer.Option(help="States, such as 0,6,12 or 0-12 [all that are held].")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first N images.")] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Coverage of the intervals.")] = 0.95,
    output_file: Annotated[
        Path | None, typer.Option("--output", help="File (.nc) for the result [MODEL.analyses/NAME.nc by the cache].")
    ] = None,
    draw: Annotated[bool, typer.Option("--figures", help="Draw what can be drawn, beside the file.")] = False,
    weights: WeightsOption = None,
    device: DeviceOption = None,
    cluster: ClusterOption = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure where tokens lie, what they attend to, or how far runs move them; out of core.

    The result is written as netCDF, and its means over images are printed with bootstrap intervals.

    Examples:

    - `cachetool analyze`

    - `cachetool analyze token-norms photos/dinov2-reg-s -o threshold=3`

    - `cachetool analyze attention-divergence --layers 9-11`
    """
    from analyses.analysis import analyses, find_analysis
    from analyses.analyze import analyze
    from analyses.netcdf import write_netcdf
    from analyses.summary import summarize
    from analyses.table_files import check_file
    from cachetool.objects import check_writable, on_disk
    from cachetool.places import analyses_directory, find_cache

    if draw:
        require("cachetool analyze --figures", FIGURES, "report", "leave --figures out")
    if name is None:
        _list(analyses().values(), as_json)
        return
    analysis = find_analysis(name)
    options = analysis.parse_options(_pairs(option or []))
    path = find_cache(cache, root)
    if output_file is None:
        check_writable(path, "name a file of a local disk with --output")
    else:
        check_file(output_file)
    file = output_file or analyses_directory(path) / f"{name}.nc"
    if draw:
        folder = on_disk(file.parent / "figures", "--figures beside")
    with progress() as events:
        found = analyze(
            analysis,
            path,
            runs=runs,
            train=None if train is None else find_cache(train, root),
            limit=limit,
            layers=integers(layers, "--layers"),
            options=options,
            weights=weights,
            device=device,
            cluster=cluster,
            events=events,
        )
    write_netcdf(found, file)
    drawn: list[Path] = []
    if draw:
        from analyses.figures.of_analysis import write_analysis_figures

        drawn = write_analysis_figures(found, folder, confidence=confidence)
    table = summarize(found, confidence=confidence)
    if as_json:
        records = table.astype(object).where(table.notna(), None).to_dict("records")
        print_json({"analysis": name, "file": str(file), "figures": [str(path) for path in drawn], "rows": records})
        return
    _print(table, confidence)
    for path in (file, *drawn):
        output.print(str(path), markup=False, highlight=False, soft_wrap=True)


def _list(found: object, as_json: bool) -> None:
    """The analyses that can be named."""
    from collections.abc import Iterable
    from typing import cast

    from rich.table import Table

    from analyses.analysis import Analysis

    known = list(cast(Iterable[Analysis], found))
    if as_json:
        print_json(
            {
                "analyses": [
                    {"name": one.name, "description": one.description, "compares": one.compares} for one in known
                ]
            }
        )
        return
    shown = Table("analysis", "what it measures", "of", "options")
    for one in known:
        subject = "runs against intact" if one.compares else "a cache or run"
        options = ", ".join(f"{option}={default}" for option, default in one.options.items())
        shown.add_row(one.name, one.description, subject + (", --train" if one.needs_train else ""), options)
    output.print(shown)


def _pairs(options: list[str]) -> dict[str, str]:
    """Split NAME=VALUE. Raises `UnknownNameError`, naming all that are no such pair."""
    from cachetool.errors import UnknownNameError

    wrong = [text for text in options if "=" not in text]
    if wrong:
        raise UnknownNameError(f"--option: expected NAME=VALUE, found {', '.join(map(repr, wrong))}")
    return dict(text.split("=", 1) for text in options)


def _print(table: pd.DataFrame, confidence: float) -> None:
    from rich.table import Table

    statistics = ("value", "low", "high", "images", "units")
    for variable, rows in table.groupby("variable", sort=False):
        labels = [
            column
            for column in rows.columns
            if column not in ("variable", *statistics) and bool(rows[column].notna().any())
        ]
        units = rows["units"].iloc[0]
        caption = f"and {len(rows) - SHOWN:,} rows more: --json" if len(rows) > SHOWN else None
        mean = "mean" if units in ("", "1") else f"mean, {units}"
        interval = f"{100 * confidence:g} % interval"
        shown = Table(*labels, mean, interval, "images", title=str(variable), caption=caption)
        for _, row in rows.head(SHOWN).iterrows():
            bounds = f"{row['low']:.4g} to {row['high']:.4g}" if row["images"] else ""
            shown.add_row(*(_text(row[label]) for label in labels), f"{row['value']:.4g}", bounds, str(row["images"]))
        output.print(shown)


def _text(label: object) -> str:
    return f"{label:g}" if isinstance(label, float) else plain(label)
