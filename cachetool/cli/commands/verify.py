"""`cachetool verify`: every checksum of a cache or run."""

from __future__ import annotations

from typing import Annotated

import typer

from cachetool.cli.console import JsonOption, RootOption, errors, output, plain, print_json
from cachetool.errors import DamagedError


def command(
    cache: Annotated[
        str | None, typer.Argument(help="A cache or run: a path, or DATASET/MODEL [the only one].")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Declare damaged blocks unfinished, so that they are made again.")
    ] = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check done records, sizes and checksums of every block; `--repair` gives damaged blocks up.

    After `--repair`, the same `cachetool extract` (or `replay`) again makes just these blocks anew.
    """
    from cachetool.places import find_cache
    from cachetool.store import StoreReader, StoreWriter, check_block, check_store, lock

    path = find_cache(cache, root)
    spec = StoreReader(path).spec
    documents = check_store(path)
    found = {block: check_block(path, block) for block in range(spec.geometry.blocks)}
    damaged = {block: problems for block, problems in found.items() if problems}
    if repair and damaged:
        with lock(path, "extract" if spec.kind == "cache" else "replay"):
            writer = StoreWriter(path)
            for block in damaged:
                writer.discard(block)
    if as_json:
        print_json(
            {"path": str(path), "blocks": len(found), "damaged": damaged, "documents": documents, "repaired": repair}
        )
    for problem in documents:
        errors.print(plain(problem), markup=False, soft_wrap=True)
    for block, problems in damaged.items():
        images = spec.geometry.block_range(block)
        for problem in problems:
            errors.print(plain(f"images {images.start} to {images.stop - 1}: {problem}"), markup=False, soft_wrap=True)
    if documents or (damaged and not repair):
        raise DamagedError(
            f"{path}: {len(damaged)} of {len(found)} blocks and {len(documents)} documents are damaged; give damaged "
            "blocks up with --repair and run the same extract or replay again, or remove the store where a document is"
        )
    if not as_json:
        output.print(f"{path}: {len(found)} blocks checked, {len(damaged)} given up", markup=False, soft_wrap=True)
