"""`cachetool evaluate`: the tasks on all finished runs of a cache, against the intact arm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cachetool.cli import completion
from cachetool.cli.console import (
    BatchSizeOption,
    ClusterOption,
    DeviceOption,
    JsonOption,
    RootOption,
    WeightsOption,
    output,
    print_json,
    progress,
)

if TYPE_CHECKING:
    from rich.table import Table

    from analyses.evaluation.rows import Row


def command(
    cache: Annotated[
        str | None,
        typer.Argument(help="The cache: a path, or DATASET/MODEL [the only one].", autocompletion=completion.caches),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            "--train",
            help="The cache that heads are fitted on: a path, or DATASET/MODEL.",
            autocompletion=completion.caches,
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", help="Task, such as classification or retrieval; repeat for several [all]."),
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Also fit heads on training features under the same edits.")
    ] = False,
    calibration: Annotated[
        str | None, typer.Option(help="Where the calibration of the runs has moved, for --refit.")
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Regular expression whose group, found in an image id, names its sequence.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples.")] = 10_000,
    confidence: Annotated[float, typer.Option(help="Coverage of the intervals.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Seed of the resamples.")] = 0,
    output_directory: Annotated[
        Path | None, typer.Option("--output", help="Directory for table.csv and table.nc [none is written].")
    ] = None,
    weights: WeightsOption = None,
    device: DeviceOption = None,
    cluster: ClusterOption = None,
    batch_size: BatchSizeOption = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure tasks on all finished runs of a cache and compare them with the unedited replay.

    Tasks: `classification` (linear probe), `retrieval`, `segmentation`, `correspondence`, `head` (the weights' own).
    `classification:cls+patches@9` reads other tokens or an earlier state, `correspondence:soft-argmax` other positions.

    Examples:

    - `cachetool evaluate shapes/tiny-reg --train shapes-train/tiny-reg`

    - `cachetool evaluate photos/dinov2-reg-s --task retrieval --group-by '(.*)_frame' --output tables`
    """
    from analyses.evaluation.evaluate import evaluate
    from analyses.evaluation.rows import write_table
    from analyses.table_files import check_directory
    from cachetool.objects import place
    from cachetool.places import find_cache

    if output_directory is not None:
        check_directory(output_directory)
    path = find_cache(cache, root)
    with progress() as events:
        rows = evaluate(
            path,
            None if train is None else find_cache(train, root),
            task,
            refit=refit,
            calibration=None if calibration is None else place(calibration),
            group_by=group_by,
            resamples=resamples,
            confidence=confidence,
            seed=seed,
            weights=weights,
            device=device,
            batch_size=batch_size,
            cluster=cluster,
            events=events,
        )
    files = [] if output_directory is None else list(write_table(rows, output_directory / "table"))
    if as_json:
        print_json({"rows": [row.to_json() for row in rows], "files": [str(file) for file in files]})
        return
    for measured in dict.fromkeys(row.task for row in rows):
        own = [row for row in rows if row.task == measured]
        output.print(_table([row for row in own if row.metric == own[0].metric], confidence))
    for file in files:
        output.print(str(file), markup=False, highlight=False, soft_wrap=True)


def _table(rows: list[Row], confidence: float) -> Table:
    """The rows of one metric for people."""
    import math

    from rich.table import Table

    first = rows[0]
    shown = Table(
        "edit", "from", "value", f"change, pp ({100 * confidence:g} %)", "within 1 pp", "p", "rank",
        title=f"{first.task}: {first.metric}, {first.units:,} {first.unit}s",
        caption="against the unedited replay from the same state; p adjusted over all edits; rank of the injected "
        "tokens' Mahalanobis distance among natural ones (50 = typical); other metrics with --json and --output",
    )  # fmt: skip
    for row in rows:
        compared = row.replacement != "none"
        change = f"{row.difference_pp:+.1f} ({row.low_pp:+.1f} to {row.high_pp:+.1f})" if compared else ""
        marks = (" (refit)" if row.head == "refit" else "") + (" (oracle)" if row.oracle else "")
        shown.add_row(
            row.edit + marks + (" (by construction)" if row.by_construction else ""),
            str(row.from_layer),
            f"{100 * row.value:.1f} %",
            change,
            ("yes" if row.equivalent_1pp else "not shown") if compared else "",
            "" if math.isnan(row.p_holm) else f"{row.p_holm:.2g}",
            "" if math.isnan(row.off_distribution) else f"{row.off_distribution:.0f}",
        )
    return shown
