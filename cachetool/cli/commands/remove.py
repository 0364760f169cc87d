"""`cachetool remove`: caches and runs off the disk, or out of an object store."""

from __future__ import annotations

from typing import Annotated

import typer

from cachetool.cli.console import JsonOption, plain, print_json


def command(
    paths: Annotated[list[str], typer.Argument(help="Paths of caches, runs or calibrations.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove runs or calibrations, or caches together with all their runs and calibrations."""
    from cachetool.objects import place
    from cachetool.removing import check_removable, remove_store

    found = [place(path) for path in paths]
    for path in found:
        check_removable(path)
    if not yes:
        typer.confirm(plain("remove " + ", ".join(map(str, found)) + "?"), abort=True, err=True)
    for path in found:
        remove_store(path)
    if as_json:
        print_json({"removed": [str(path) for path in found]})
