"""`cachetool import`: a cache or run from an HDF5 file."""  # noqa: N999 - its name is the command

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import humanize
import typer

from cachetool.cli.console import JsonOption, RootOption, errors, output, print_json, progress


def command(
    file: Annotated[Path, typer.Argument(help="A file that `cachetool export` wrote.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the cache [the file's]; for a run, the cache that it is put beside.")
    ] = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the cache or run in FILE below the root, with the same key and the same values.

    Everything in the file is checked first; one from somebody else is data, never code.

    Example: `cachetool import cache.h5`
    """
    from cachetool.interchange import import_file

    with progress() as events:
        done = import_file(file, root=root, name=name, events=events)
    if as_json:
        print_json(
            {
                "cache": str(done.path),
                "kind": done.kind,
                "images": done.images,
                "bytes_written": done.nbytes,
                "seconds": done.seconds,
            }
        )
        return
    errors.print(
        f"{done.kind} of {done.images} images, {humanize.naturalsize(done.nbytes)} in {done.seconds:.1f} s",
        markup=False,
    )
    output.print(str(done.path), markup=False, highlight=False, soft_wrap=True)
