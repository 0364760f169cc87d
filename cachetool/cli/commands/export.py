"""`cachetool export`: a cache or run as one HDF5 file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import humanize
import typer

from cachetool.cli import completion
from cachetool.cli.console import JsonOption, RootOption, errors, integers, output, print_json, progress, words


def command(
    cache: Annotated[
        str, typer.Argument(help="A cache or run: a path, or DATASET/MODEL.", autocompletion=completion.stores)
    ],
    file: Annotated[Path, typer.Argument(help="The new file, such as cache.h5.")],
    layers: Annotated[str | None, typer.Option(help="States, such as 9,12 or 0-12 [all that are stored].")] = None,
    tokens: Annotated[str | None, typer.Option(help="Token types: cls,registers,patches [all].")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N images.")] = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write CACHE to one HDF5 file that h5py, xarray and MATLAB read; `cachetool import` makes the cache again.

    Examples:

    - `cachetool export shapes/tiny-reg cache.h5`

    - `cachetool export shapes/tiny-reg registers.h5 --tokens registers --layers 6-12`
    """
    from cachetool.interchange import export_file
    from cachetool.places import find_cache

    with progress() as events:
        done = export_file(
            find_cache(cache, root),
            file,
            layers=integers(layers, "--layers"),
            token_types=words(tokens),
            limit=limit,
            events=events,
        )
    if as_json:
        print_json(
            {
                "file": str(done.file),
                "images": done.images,
                "layers": list(done.layers),
                "tokens": list(done.token_types),
                "bytes": done.nbytes,
                "seconds": done.seconds,
            }
        )
        return
    errors.print(
        f"{done.images} images, {len(done.layers)} states of {', '.join(done.token_types)}: "
        f"{humanize.naturalsize(done.nbytes)} in {done.seconds:.1f} s",
        markup=False,
    )
    output.print(str(done.file), markup=False, highlight=False, soft_wrap=True)
