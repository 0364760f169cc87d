"""`cachetool info`: what lies below the root, or what one cache or run is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import humanize
import typer
from rich.table import Table

from cachetool.cli.console import JsonOption, RootOption, errors, output, plain, print_json
from cachetool.errors import CachetoolError


def command(
    cache: Annotated[str | None, typer.Argument(help="A cache or run: a path, or DATASET/MODEL [list all].")] = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show key, coverage, size and provenance of a cache or run, or list the caches below the root."""
    from cachetool.places import find_cache, list_caches, list_runs, resolve_root
    from cachetool.store import StoreReader

    if cache is not None:
        description = describe(StoreReader(find_cache(cache, root)))
        if as_json:
            print_json(description)
        else:
            output.print(json.dumps(description, indent=2), markup=False, soft_wrap=True)
        return
    found = []
    for path in list_caches(resolve_root(root)):
        try:
            found.append(describe(StoreReader(path)) | {"runs": len(list_runs(path))})
        except CachetoolError as error:  # one damaged cache must not hide the others
            errors.print(plain(f"{path}: {error}"), markup=False, soft_wrap=True)
    if as_json:
        print_json({"caches": found})
        return
    table = Table("cache", "images", "states", "tokens", "dtype", "on disk", "runs")
    for entry in found:
        states = {len(layers) for layers in entry["coverage"].values()}
        table.add_row(
            entry["path"],
            f"{entry['images']:,}",
            "/".join(map(str, sorted(states))),
            ", ".join(entry["coverage"]),
            plain(entry["key"].get("dtype", "")),
            humanize.naturalsize(entry["bytes"]),
            str(entry["runs"]),
        )
    output.print(table)


def describe(reader: Any) -> dict[str, Any]:
    """What a store says about itself, with its size on disk, ready for JSON."""
    from cachetool.images import image_digest
    from cachetool.store import key_digest

    spec = reader.spec
    return {
        "path": str(reader.path),
        "kind": spec.kind,
        "key": dict(spec.key),
        "key_sha256": key_digest(spec.key),
        "images_sha256": image_digest(spec.images),
        "images": len(spec.images),
        "unreadable": int((~reader.readable).sum()),
        "coverage": {name: list(reader.coverage(name)) for name in spec.token_types},
        "block": spec.block,
        "bytes": sum(_size(file) for file in Path(reader.path).rglob("*")),
        "facts": dict(spec.facts),
    }


def _size(file: Path) -> int:
    """Bytes of a file; 0 for folders, and for files that a running extraction has just renamed."""
    try:
        return file.stat().st_size if file.is_file() else 0
    except FileNotFoundError:
        return 0
