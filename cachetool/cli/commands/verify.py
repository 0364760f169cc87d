"""`cachetool verify`: is a store what it says it is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cachetool.cli import completion
from cachetool.cli.console import (
    BatchSizeOption,
    DeviceOption,
    JsonOption,
    RootOption,
    WeightsOption,
    errors,
    output,
    plain,
    print_json,
    progress,
)
from cachetool.errors import DamagedError


def command(
    store: Annotated[
        str | None,
        typer.Argument(
            help="A cache, run or calibration: a path, or DATASET/MODEL [the only cache].",
            autocompletion=completion.stores,
        ),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make what is damaged again, from the images or the cache.")
    ] = False,
    recompute: Annotated[
        int | None,
        typer.Option(min=0, help="Images to compute again and compare; 0: none [4 where all it takes is here]."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed by which these images are drawn.")] = 0,
    weights: WeightsOption = None,
    device: DeviceOption = None,
    batch_size: BatchSizeOption = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode images for --repair.")] = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every record, size and checksum of a store, and compute a few of its images again.

    `--repair` makes again what is damaged and nothing else: blocks of a cache from the images, blocks of a run from
    the cache, documents and small arrays where they follow from something else. The exit code is 0 where nothing is
    wrong (any more), else 2.

    Examples:

    - `cachetool verify shapes/tiny-reg`

    - `cachetool verify shapes/tiny-reg --repair --recompute 0`
    """
    from cachetool.places import find_cache
    from cachetool.store.mending import advice
    from cachetool.verifying import verify

    path = find_cache(store, root)
    with progress() as events:
        report = verify(
            path, repair=repair, recompute=recompute, seed=seed, weights=weights, device=device,
            batch_size=batch_size, workers=workers, events=events,
        )  # fmt: skip
    if as_json:
        print_json(report.to_json())
    for line in _lines(report):
        errors.print(plain(line), markup=False, highlight=False, soft_wrap=True)
    if not report.sound:
        raise DamagedError(
            f"{path}: {len(report.problems)} problems, {len(report.differing)} of {len(report.recomputed)} images that "
            f"were computed again differ. {'See above what could not be mended.' if repair else advice(path)}"
        )
    if not as_json:
        output.print(plain(_summary(report)), markup=False, highlight=False, soft_wrap=True)


def _lines(report: Any) -> list[str]:
    """What was found and done, one line each."""
    lines = [f"{_images(problem.images)}{problem.where}: {problem.text}" for problem in report.problems]
    lines += [f"image {one.image} ({one.image_id}): {one.problem}" for one in report.differing]
    lines += [
        f"{'mended' if repair.done else 'NOT mended'}: {_images(repair.images)}{repair.where}: {repair.text}"
        for repair in report.repairs
    ]
    return [*lines, *report.notes]


def _images(images: tuple[int, int] | None) -> str:
    return "" if images is None else f"images {images[0]} to {images[1]}, "


def _summary(report: Any) -> str:
    text = f"{report.path}: {report.blocks} blocks are sound" if report.blocks else f"{report.path} is sound"
    if report.repairs:
        text += f", {len(report.repairs)} of their parts mended now"
    if report.recomputed:
        drawn = ", ".join(one.image_id for one in report.recomputed)
        equal = min(one.bit_equal for one in report.recomputed)
        error = max(one.relative_rms for one in report.recomputed)
        exact = "bit-equal" if equal == 1.0 else f"{equal:.2%} of values bit-equal, relative error {error:.1e}"
        text += f"; computed again (seed {report.seed}): {drawn}: {exact}"
    return text
