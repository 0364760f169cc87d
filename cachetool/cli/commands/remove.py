"""`cachetool remove`: caches and runs off the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cachetool.cli.console import JsonOption, print_json


def command(
    paths: Annotated[list[Path], typer.Argument(help="Paths of caches, runs or calibrations.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove runs or calibrations, or caches together with all their runs and calibrations."""
    from cachetool.places import check_removable, remove_store

    for path in paths:
        check_removable(path)
    if not yes:
        typer.confirm("remove " + ", ".join(map(str, paths)) + "?", abort=True, err=True)
    for path in paths:
        remove_store(path)
    if as_json:
        print_json({"removed": [str(path) for path in paths]})
