"""`cachetool report`: one self-contained page of what was found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import humanize
import typer

from cachetool.cli import completion
from cachetool.cli.console import (
    DeviceOption,
    JsonOption,
    RootOption,
    WeightsOption,
    errors,
    integers,
    output,
    print_json,
    progress,
)
from cachetool.packages import PAGES, require

if TYPE_CHECKING:
    import pandas as pd

    from cachetool.events import Events
    from cachetool.objects import Place

IMAGES = 4
"""Example images of every cache."""


def command(
    cache: Annotated[
        list[str] | None,
        typer.Argument(
            help="Caches: paths, or DATASET/MODEL [those of the tables, else all with runs].",
            autocompletion=completion.caches,
        ),
    ] = None,
    table: Annotated[
        list[Path] | None,
        typer.Option("--table", help="table.csv of a study or evaluation; repeat for several [studies/*/table.csv]."),
    ] = None,
    output_file: Annotated[Path, typer.Option("--output", help="File of the page.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Title of the page.")] = "What tokens do",
    images: Annotated[
        str | None, typer.Option(help=f"Positions of example images, such as 0,7,20-22 [{IMAGES}, evenly spread].")
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option("--run", help="Run to show on example images; repeat for several [one of each common edit]."),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Directory for the galleries as SVG and PNG [none are written].")
    ] = None,
    weights: WeightsOption = None,
    device: DeviceOption = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page of everything that was measured: it needs no network, and can be mailed or printed.

    Tables of studies, results of `cachetool analyze`, and example images with their tokens. What is absent is listed on
    the page with the command that measures it.

    Examples:

    - `cachetool report`

    - `cachetool report photos/dinov2-reg-s --table tables/table.csv --images 0,40,80 --output photos.html`
    """
    require("cachetool report", PAGES, "report")
    from analyses.report.effects import read_table
    from analyses.report.page import write_report
    from analyses.report.report import build_report
    from cachetool.objects import place
    from cachetool.places import find_cache, resolve_root

    tables = table or sorted(Path("studies").glob("*/table.csv"))
    chosen = integers(images, "--images")
    runs = [place(one) for one in run or []]
    if cache:
        caches = [find_cache(one, root) for one in cache]
    else:
        caches = _caches(resolve_root(root), [read_table(path) for path in tables])
    with progress() as events:
        report = build_report(
            caches,
            tables,
            title=title,
            images=IMAGES if chosen is None else chosen,
            runs=runs,
            weights=weights,
            device=device,
            events=events,
        )
        write_report(report, output_file)
        drawn = [] if figures is None else _draw(caches, chosen, figures, runs, weights, device, events)
    size = output_file.stat().st_size
    if as_json:
        print_json(
            {
                "report": str(output_file),
                "bytes": size,
                "figures": [str(path) for path in drawn],
                "findings": [{"model": one.model, "target": one.target, "verdict": one.verdict,
                              "headline": one.headline, "sentence": one.sentence} for one in report.findings],
                "missing": [{"of": of, "what": one.what, "why": one.why, "command": one.command}
                            for of, one in report.missing],
            }
        )  # fmt: skip
        return
    for finding in report.findings:
        errors.print(f"{finding.model}: {finding.headline}. {finding.sentence}", markup=False)
    if report.missing:
        errors.print(f"not shown, listed on the page with how to get it: {len(report.missing)}", markup=False)
    for path in drawn:
        output.print(str(path), markup=False, highlight=False, soft_wrap=True)
    output.print(f"{output_file} ({humanize.naturalsize(size)})", markup=False, highlight=False, soft_wrap=True)


def _draw(
    caches: list[Place],
    images: list[int] | None,
    directory: Path,
    runs: list[Place],
    weights: Path | None,
    device: str | None,
    events: Events,
) -> list[Path]:
    """The galleries of every cache, each in a directory of its own."""
    from analyses.report.cache_section import example_images
    from analyses.report.gallery_figures import write_gallery_figures
    from analyses.report.subject import gallery_runs, open_subject

    drawn = []
    for path in caches:
        subject = open_subject(path)
        chosen = example_images(subject, gallery_runs(subject, runs), IMAGES if images is None else images)
        folder = directory / f"{path.parent.name}-{path.stem}"
        drawn += write_gallery_figures(
            subject, chosen, folder, runs=runs, weights=weights, device=device, events=events
        )
    return drawn


def _caches(root: Place, tables: list[pd.DataFrame]) -> list[Place]:
    """Caches that the tables name; without tables, or where none of theirs is here, those that have runs."""
    import cachetool
    from analyses.evaluation.describing import dataset_label
    from cachetool.errors import CachetoolError
    from cachetool.places import list_caches, list_runs

    named = {
        pair for table in tables for pair in zip(table["model"].astype(str), table["dataset"].astype(str), strict=True)
    }
    found = []
    for path in list_caches(root):
        try:
            cache = cachetool.open(path)
        except CachetoolError as error:  # one damaged cache must not hide the others
            errors.print(f"{path}: {error}", markup=False, soft_wrap=True)
            continue
        found.append((path, (str(cache.attrs["facts"]["model"]), dataset_label(cache))))
    chosen = [path for path, pair in found if pair in named]
    return chosen or [path for path, _ in found if list_runs(path)]
