"""`cachetool info`: what lies below the root, or what one cache or run is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import humanize
import typer
from rich.table import Table
from rich.text import Text

from cachetool.cli import completion
from cachetool.cli.console import JsonOption, RootOption, errors, output, plain, print_json
from cachetool.errors import CachetoolError, StoreError

if TYPE_CHECKING:
    from cachetool.store import Part, Progress, StoreReader


def command(
    cache: Annotated[
        str | None,
        typer.Argument(help="A cache or run: a path, or DATASET/MODEL [list all].", autocompletion=completion.stores),
    ] = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show key, coverage, size, progress and provenance of a cache or run, or list the caches below the root.

    Of work that is not finished: how far it is, which jobs are at work on which part, how fast they are and how long
    they still take, and what to do for a part that nobody works on.
    """
    from cachetool.places import find_cache, list_caches, list_runs, resolve_root
    from cachetool.store import StoreReader

    if cache is not None:
        reader = StoreReader(find_cache(cache, root))
        description, done = describe(reader), _progress(reader)
        if as_json:
            print_json(description | {"progress": None if done is None else done.to_json()})
            return
        output.print(json.dumps(description, indent=2), markup=False, soft_wrap=True)
        if done is not None and (done.jobs or done.blocks_done < done.blocks):
            _show(done, reader.spec.kind)
        return
    found = []
    for path in list_caches(resolve_root(root)):
        try:
            reader = StoreReader(path)
            found.append((describe(reader) | {"runs": len(list_runs(path))}, _progress(reader)))
        except CachetoolError as error:  # one damaged cache must not hide the others
            errors.print(plain(f"{path}: {error}"), markup=False, soft_wrap=True)
    if as_json:
        listed = [entry | {"progress": None if done is None else done.to_json()} for entry, done in found]
        print_json({"caches": listed})
        return
    if not list_caches(resolve_root(root)):
        advice = "make one with `cachetool extract MODEL DATASET`, or name its root with --root"
        errors.print(plain(f"no cache below {resolve_root(root)}; {advice}"), markup=False, soft_wrap=True)
        return
    table = Table("cache", "images", "finished", "states", "tokens", "dtype", "on disk", "runs")
    for entry, done in found:
        states = {len(layers) for layers in entry["coverage"].values()}
        table.add_row(
            plain(entry["path"]),
            f"{entry['images']:,}",
            "" if done is None else _share(done),
            "/".join(map(str, sorted(states))),
            ", ".join(entry["coverage"]),
            plain(entry["key"].get("dtype", "")),
            humanize.naturalsize(entry["bytes"]),
            str(entry["runs"]),
        )
    output.print(table)


def _progress(reader: StoreReader) -> Progress | None:
    """How far the work has come; None, with a message, where a lock cannot be read: the rest is worth showing."""
    from cachetool.store import progress

    try:
        return progress(reader)
    except StoreError as error:
        errors.print(plain(f"no progress: {error}"), markup=False, soft_wrap=True)
        return None


def _share(done: Progress) -> str:
    """The finished share, never rounded up to all of it, and who is at work."""
    share = f"{100 * done.images_done // max(done.images, 1)} %"
    return share + (f", {done.jobs} at work" if done.jobs else "")


def _show(done: Progress, kind: str) -> None:
    """A table of parts on standard error: what is on standard output stays one document."""
    rate, left = _rate(done.images_per_second), _duration(done.seconds_left)
    table = Table(
        "part",
        "images",
        "finished",
        "blocks",
        "at work",
        "last block",
        "rate",
        "time left",
        title=f"{done.images_done:,} of {done.images:,} images, {done.blocks_done:,} of {done.blocks:,} blocks",
        caption="rate and time left are estimates by the times of files, of the parts at work",
    )
    for part in done.parts:
        job = part.job
        ago = None if job is None else job.seconds_since_block
        table.add_row(
            f"{part.index}/{part.count}",
            f"{part.images.start:,} to {part.images.stop - 1:,}" if part.images else "none",
            f"{part.images_done:,}",
            f"{part.blocks_done:,} of {part.blocks:,}",
            _who(part),
            "" if ago is None else f"{_duration(ago)} ago",
            "" if job is None else _rate(job.images_per_second),
            "" if job is None else _duration(part.seconds_left),
        )
    if done.jobs:
        table.add_row("all", "", "", "", str(done.jobs), "", rate, left)
    errors.print(table)
    for line in _advice(done, kind):
        errors.print(plain(line), markup=False, highlight=False, soft_wrap=True)


def _who(part: Part) -> Text:
    if part.job is None:
        return Text("done" if part.blocks_done == part.blocks else "nobody")
    owner = part.job.owner
    return Text(plain(f"process {owner.process} on {owner.host}{owner.age}"))


def _advice(done: Progress, kind: str) -> list[str]:
    """What to do for parts that nobody works on, and for jobs that may be dead."""
    command = "cachetool extract" if kind == "cache" else "cachetool replay"
    left = [part for part in done.parts if part.job is None and part.blocks_done < part.blocks]
    lines = []
    if left and left[0].count > 1:
        shares = ", ".join(f"--part {part.index}/{part.count}" for part in left)
        lines.append(
            f"nobody works on {len(left)} of {left[0].count} parts: run the same `{command}` again with {shares}"
        )
    elif left:
        parts = ", also in parts (--part i/n)" if kind == "cache" else ""
        every = f", for all {done.images:,} images," if kind == "cache" else ""
        lines.append(f"nobody works on it: the same `{command}` again{every} goes on{parts}")
    jobs = [part.job for part in done.parts if part.job is not None]
    lines += [
        f"process {owner.process} on {owner.host} was asked for the first {owner.images:,} images alone (--limit)"
        for owner in (job.owner for job in jobs)
        if owner.images is not None
    ]
    unknown = [job for job in jobs if not job.known]
    if unknown:
        files = "\n".join(f"  {job.lock}" for job in unknown)
        lines.append(f"jobs of other hosts are known by their locks alone; if one is dead, remove its file:\n{files}")
    return lines


def _rate(images_per_second: float | None) -> str:
    return "not known yet" if images_per_second is None else f"{images_per_second:,.3g} images/s"


def _duration(seconds: float | None) -> str:
    return "not known yet" if seconds is None else humanize.naturaldelta(seconds)


def describe(reader: Any) -> dict[str, Any]:
    """What a store says about itself, with its size on disk, ready for JSON."""
    from cachetool.images import image_digest
    from cachetool.objects import tree_bytes
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
        "bytes": tree_bytes(reader.path),
        "facts": dict(spec.facts),
    }
