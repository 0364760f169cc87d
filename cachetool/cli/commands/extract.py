"""`cachetool extract`: images to cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import humanize
import typer

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
from cachetool.errors import UnknownNameError

if TYPE_CHECKING:
    from cachetool.extraction import Request


def command(
    model: Annotated[
        str,
        typer.Argument(
            help="Name of a model, see `cachetool models`; `timm:NAME` or `hf:REPO` for others.",
            autocompletion=completion.models,
        ),
    ],
    dataset: Annotated[
        str, typer.Argument(help="Name of a data set, see `cachetool datasets`.", autocompletion=completion.datasets)
    ],
    root: RootOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the cache [the model's], to keep two keys.")] = None,
    layers: Annotated[str | None, typer.Option(help="States to store, such as 9,12 or 0-12 [all].")] = None,
    tokens: Annotated[str | None, typer.Option(help="Token types: cls,registers,patches [all].")] = None,
    dtype: Annotated[str, typer.Option(help="float16, bfloat16 or float32.")] = "float16",
    image_size: Annotated[int | None, typer.Option(min=1, help="Side of the input in pixels [the model's].")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N images.")] = None,
    weights: WeightsOption = None,
    device: DeviceOption = None,
    batch_size: BatchSizeOption = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that decode images [on the CPU 0: this one decodes].")
    ] = None,
    part: Annotated[str, typer.Option(help="i/n: fill the i-th of n shares of the cache, for job arrays.")] = "1/1",
    cluster: ClusterOption = None,
    on_error: Annotated[str, typer.Option(help="An unreadable image: `stop`, or `continue` with NaN.")] = "stop",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print bytes, memory and time; write nothing.")] = False,
    images: Annotated[int | None, typer.Option(min=1, help="With --dry-run: plan for N images like these.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Store the token activations of MODEL on DATASET, all states by default.

    Interrupted, it resumes where it stopped; asked again, it does nothing; asked for more, it extends the cache.

    Examples:

    - `cachetool extract tiny-reg shapes`

    - `cachetool extract dinov2-reg-b imagenet-val --layers 6,12 --dtype bfloat16`

    - `cachetool extract dinov2-b imagenet-train --cluster tcp://HOST:8786`

    - `cachetool extract timm:vit_tiny_patch16_224 imagefolder:photos --weights vit_tiny.safetensors`
    """
    from cachetool.distributing import compute_on, connect
    from cachetool.extraction import check_options, compute_here, extract, prepare
    from cachetool.plan import plan_extraction

    share = _part(part)
    check_options(batch_size, share, on_error)
    if images is not None and not dry_run:
        raise UnknownNameError(f"--images {images} only plans: add --dry-run, or take the first N images with --limit")
    with progress() as events, connect(None if dry_run else cluster) as connected:
        request = prepare(
            model,
            dataset,
            root=root,
            name=name,
            layers=integers(layers, "--layers"),
            tokens=words(tokens),
            dtype=dtype,
            image_size=image_size,
            limit=limit,
            weights=weights,
            device=device if connected is None else "cpu",
            events=events,
        )
        if not dry_run:
            done = extract(
                request,
                batch_size=batch_size,
                workers=workers,
                part=share,
                on_error=on_error,
                events=events,
                compute=compute_here if connected is None else compute_on(connected, device),
            )
    if dry_run:
        plan = plan_extraction(request, batch_size=batch_size, images=images)
        print_json(plan.to_json()) if as_json else output.print(plan.table())
        return
    if as_json:
        print_json(
            {
                "cache": str(done.path),
                "images": done.images,
                "blocks": done.blocks,
                "blocks_written": done.blocks_written,
                "bytes_written": done.bytes_written,
                "seconds": done.seconds,
                "failed": done.failed,
            }
        )
        return
    asked = len(request.spec.images)
    if done.blocks == 0:
        errors.print(f"nothing to do: none of these images of {done.path} falls to --part {part}", markup=False)
    elif done.blocks_written == 0:
        these = f"{done.images} images" if asked >= done.images else f"the first {asked} of its {done.images} images"
        errors.print(f"nothing to do: {done.path} holds all that was asked for ({these})", markup=False)
    else:
        errors.print(
            f"{done.blocks_written} of {done.blocks} blocks written, {humanize.naturalsize(done.bytes_written)} in "
            f"{done.seconds:.1f} s; {len(done.failed)} unreadable images",
            markup=False,
        )
    if asked < done.images and not _covered(request):
        errors.print(
            f"the cache has {done.images} images, and a state can be read once all of them have it: what the first "
            f"{asked} have now waits for the same command without --limit {asked}",
            markup=False,
        )
    output.print(str(done.path), markup=False, highlight=False, soft_wrap=True)


def _covered(request: Request) -> bool:
    """Whether all images of the cache have the states and tokens of a request, be it for fewer images."""
    from cachetool.store import StoreReader

    reader = StoreReader(request.path)
    return all(set(request.layers) <= set(reader.coverage(name)) for name in request.token_types)


def _part(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal()):
        raise UnknownNameError(f"--part {text}: expected i/n, such as 2/8")
    return int(index), int(count)
