"""`cachetool replay`: edit tokens at a state, run the blocks above."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from cachetool.cli import completion
from cachetool.cli.console import (
    BatchSizeOption,
    ClusterOption,
    DeviceOption,
    JsonOption,
    RootOption,
    WeightsOption,
    errors,
    integers,
    output,
    print_json,
    progress,
    words,
)


def command(
    cache: Annotated[
        str | None,
        typer.Argument(help="The cache: a path, or DATASET/MODEL [the only one].", autocompletion=completion.caches),
    ] = None,
    ablation: Annotated[
        list[str] | None,
        typer.Option(
            "--ablation",
            help="What to put in: none, zero, mean, ...; repeat for several.",
            autocompletion=completion.replacements,
        ),
    ] = None,
    from_layer: Annotated[str, typer.Option(help="First edited state(s), such as 6 or 1,6,9.")] = "1",
    tokens: Annotated[
        list[str] | None,
        typer.Option("--tokens", help="Target: registers, registers:2, cls, patches:random4, ...; repeat for several."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Edit the first state alone, not all later ones too.")] = False,
    until_layer: Annotated[int | None, typer.Option(help="Last edited state.")] = None,
    fresh_per_layer: Annotated[
        bool, typer.Option("--fresh-per-layer", help="Draw donors anew at each state, as in the paper.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of all draws.")] = 0,
    repeat: Annotated[int, typer.Option(help="Number of seeds, counted from --seed, for edits that draw.")] = 1,
    keep: Annotated[
        str | None, typer.Option(help="States to store: 6,12, or `all` from the first edited [the last].")
    ] = None,
    keep_tokens: Annotated[
        str | None, typer.Option(help="Token types to store: cls, registers, patches [all of the cache].")
    ] = None,
    calibration: Annotated[str | None, typer.Option(help="Calibration to draw from [the cache's own].")] = None,
    no_overlap: Annotated[
        bool, typer.Option("--no-overlap", help="Refuse a calibration that shares images with the cache.")
    ] = False,
    weights: WeightsOption = None,
    device: DeviceOption = None,
    precision: Annotated[str, typer.Option(help="Of products: float32, tf32 (CUDA) or bfloat16.")] = "float32",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the blocks first: seconds, worth it in long replays.")
    ] = False,
    batch_size: BatchSizeOption = None,
    cluster: ClusterOption = None,
    root: RootOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print bytes, memory, time and break-even; run nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Load a stored state, edit tokens, and run only the blocks above; no image is decoded.

    Targets: `registers`, `registers:2`, `registers:0-2`, `cls`, `patches`, `patches:random4`, `patches:outliers`.

    Replacements: `none`, `zero`, `mean`, `noise`, `shuffle`, `class-mean`, `same-class-shuffle`, `other-class-shuffle`,
    `norm-matched`, `interpolate:OTHER:DOSE`, `remove`, `knockout`, `patch:IMAGE`, `add:FILE`.

    Examples:

    - `cachetool replay --ablation shuffle --from-layer 6`

    - `cachetool replay --ablation none --ablation zero --ablation mean --tokens registers --tokens cls`

    - `cachetool replay --ablation zero --tokens patches:outliers --from-layer 9 --once`
    """
    from cachetool.distributing import connect, replay_on
    from cachetool.edits import Edit
    from cachetool.errors import InvalidEditError
    from cachetool.objects import place
    from cachetool.places import find_cache
    from cachetool.plan import plan_replay
    from cachetool.replaying import repeated, replay_edits, replay_here

    if not ablation:
        raise InvalidEditError("no edit was named; name at least one replacement with --ablation, such as zero")
    path = find_cache(cache, root)
    edits = [
        Edit(
            target=target,
            replacement=replacement,
            from_layer=layer,
            sustained=not once,
            until_layer=until_layer,
            seed=seed,
            fresh_per_layer=fresh_per_layer,
        )
        for layer in integers(from_layer, "--from-layer") or []
        for target in tokens or ["registers"]
        for replacement in ablation
    ]
    edits = repeated(edits, repeat)
    if dry_run:
        plan = plan_replay(
            path,
            edits,
            weights=weights,
            keep="all" if keep == "all" else integers(keep, "--keep"),
            keep_tokens=words(keep_tokens),
            calibration=None if calibration is None else place(calibration),
            device=device,
            precision=precision,
            compiled=compiled,
            batch_size=batch_size,
        )
        print_json(plan.to_json()) if as_json else output.print(plan.table())
        return
    with progress() as events, connect(cluster) as connected:
        runs = replay_edits(
            path,
            edits,
            keep="all" if keep == "all" else integers(keep, "--keep"),
            keep_tokens=words(keep_tokens),
            calibration=None if calibration is None else place(calibration),
            no_overlap=no_overlap,
            weights=weights,
            device=device,
            precision=precision,
            compiled=compiled,
            batch_size=batch_size,
            events=events,
            compute=replay_here if connected is None else replay_on(connected),
        )
    if as_json:
        print_json({"runs": [run.to_json() for run in runs]})
        return
    table = Table("target", "replacement", "from", "seed", "certificate", "run")
    for run in runs:
        certificate = run.certificate
        exact = "bit-equal" if certificate["bit_equal"] else f"error {certificate['relative_error']:.1e}"
        oracle = " (oracle)" if run.edit.build().oracle else ""
        table.add_row(
            run.edit.target,
            run.edit.replacement + oracle,
            str(run.edit.from_layer),
            str(run.edit.seed),
            exact,
            run.path.name + (" (there already)" if run.reused else ""),
        )
    errors.print(table)
    for run in runs:
        output.print(str(run.path), markup=False, highlight=False, soft_wrap=True)
