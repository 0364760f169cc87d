"""`cachetool calibrate`: means, variances and reference tokens of a cache, as an artefact of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cachetool.cli import completion
from cachetool.cli.console import (
    ClusterOption,
    JsonOption,
    RootOption,
    errors,
    integers,
    output,
    print_json,
    progress,
    words,
)
from cachetool.errors import DatasetError, MissingDataError


def command(
    cache: Annotated[
        str | None,
        typer.Argument(help="The cache: a path, or DATASET/MODEL [the only one].", autocompletion=completion.caches),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the calibration.")] = "calibration",
    layers: Annotated[str | None, typer.Option(help="States, such as 1-12 [all that are stored].")] = None,
    tokens: Annotated[str | None, typer.Option(help="Token types: cls,registers,patches [all].")] = None,
    images: Annotated[Path | None, typer.Option(help="Text file with one image id a line [all].")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N images.")] = None,
    covariance: Annotated[bool, typer.Option("--covariance", help="Store covariances too (large).")] = False,
    cluster: ClusterOption = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute a calibration from a cache; name it later with `cachetool replay --calibration PATH`.

    Example: `cachetool calibrate activations/shapes-calibration/tiny-reg.zarr`
    """
    from cachetool.api import calibrate
    from cachetool.places import find_cache

    with progress() as events:
        opened = calibrate(
            find_cache(cache, root),
            name=name,
            layers=integers(layers, "--layers"),
            tokens=words(tokens),
            images=None if images is None else _lines(images),
            limit=limit,
            covariance=covariance,
            cluster=cluster,
            events=events,
        )
    path = opened.attrs["cachetool_path"]
    if as_json:
        print_json({"calibration": path, "images": opened.sizes["image"], "layers": opened.layer.values.tolist()})
        return
    errors.print(f"calibrated on {opened.sizes['image']} images", markup=False)
    output.print(path, markup=False, highlight=False, soft_wrap=True)


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line]
    except OSError as error:
        raise MissingDataError(
            f"--images {path}: {error.strerror}; name a text file with one image id a line"
        ) from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"--images {path}: expected a text file in UTF-8 with one image id a line, found other bytes ({error})"
        ) from error
