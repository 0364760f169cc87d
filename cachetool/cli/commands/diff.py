"""`cachetool diff`: what distinguishes two stores."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from cachetool.cli import completion
from cachetool.cli.console import JsonOption, RootOption, output, print_json, progress

EXIT_DIFFERS = 1
SHOWN = 5


def command(
    a: Annotated[
        str, typer.Argument(help="A cache or run: a path, or DATASET/MODEL.", autocompletion=completion.stores)
    ],
    b: Annotated[str, typer.Argument(help="Another one.", autocompletion=completion.stores)],
    values: Annotated[
        bool, typer.Option("--values", help="Compare stored values too, over the images that both hold.")
    ] = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Name what distinguishes two caches or runs: key, images, labels, coverage; and, apart, what is recorded.

    The exit code is 0 where they are the same (whatever is recorded: versions, device, batch size), 1 where they
    differ, 2 where one cannot be read.

    Examples:

    - `cachetool diff shapes/tiny-reg shapes/tiny-reg-2`

    - `cachetool diff shapes/tiny-reg other/tiny-reg.zarr --values`
    """
    from cachetool.differing import diff
    from cachetool.places import find_cache

    with progress() as events:
        found = diff(find_cache(a, root), find_cache(b, root), values=values, events=events)
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
    if not found.same:
        raise typer.Exit(EXIT_DIFFERS)


def _print(found: Any) -> None:
    lines = [f"key, {line}" for line in found.key]
    words = {
        "missing": "only here",
        "added": "only there",
        "other_content": "of other content",
        "other_label": "of another label",
        "other_readable": "readable in one alone",
    }
    for name, word in words.items():
        ids = getattr(found.images, name)
        if ids:
            more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
            lines.append(f"images: {len(ids)} {word}: {', '.join(ids[:SHOWN])}{more}")
    if found.images.other_order:
        lines.append("images: shared ones come in another order")
    lines += [f"coverage, {line}" for line in found.coverage]
    output.print(f"here = {found.a}, there = {found.b}", markup=False, highlight=False, soft_wrap=True)
    for line in lines or ["same key, images, labels and coverage"]:
        output.print(line, markup=False, highlight=False, soft_wrap=True)
    for line in found.facts:
        output.print(f"recorded only, {line}", markup=False, highlight=False, soft_wrap=True)
    if found.values is not None:
        table = Table("tokens", "state", "images", "relative RMS", "largest", "bit-equal", "in one alone")
        for one in found.values:
            table.add_row(
                one.token_type, str(one.layer), str(one.images), f"{one.relative_rms:.2e}", f"{one.largest:.3g}",
                f"{one.bit_equal:.4%}", str(one.unmatched),
            )  # fmt: skip
        output.print(table)
