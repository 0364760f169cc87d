"""What a shell may offer for a word that is being typed: called between two keys, so nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator

import typer

COMPLETING = "_CACHETOOL_COMPLETE"
"""The environment variable by which a shell asks for completions (Typer's name for a program `cachetool`)."""

Offers = Iterator[tuple[str, str]]
"""Words with what they mean; Typer leaves those out that do not begin as what was typed."""


def models() -> Offers:
    """Names of models."""
    from cachetool.named_models import NAMED_MODELS

    for entry in NAMED_MODELS:
        yield entry.name, entry.description
    yield "timm:", "any other vision transformer of timm"


def datasets() -> Offers:
    """Names of data sets with their splits, and prefixes of those that are named by a path."""
    from cachetool.datasets import catalogue

    for entry in catalogue():
        name, colon, _ = entry.name.partition(":")
        yield name + colon, entry.description
        for split in entry.splits[1:]:  # the first is the default
            yield f"{name}#{split}", entry.description


def caches(context: typer.Context) -> Offers:
    """Caches below the root, as DATASET/MODEL."""
    from cachetool.objects import ObjectPath
    from cachetool.places import list_caches, list_runs, resolve_root

    root = resolve_root(context.params.get("root"))
    if isinstance(root, ObjectPath):  # a server may let the shell wait for a minute
        return
    for cache in list_caches(root):
        runs = len(list_runs(cache))
        yield f"{cache.parent.name}/{cache.stem}", f"{runs} {'run' if runs == 1 else 'runs'}"


def stores(context: typer.Context, incomplete: str) -> Offers:
    """Caches below the root, and the runs of one whose name is typed with a dot after it."""
    from cachetool.objects import ObjectPath
    from cachetool.places import list_caches, list_runs, resolve_root

    root = resolve_root(context.params.get("root"))
    if isinstance(root, ObjectPath):
        return
    yield from caches(context)
    for cache in list_caches(root):
        if incomplete.startswith(f"{cache.parent.name}/{cache.stem}."):
            for run in list_runs(cache):
                yield f"{cache.parent.name}/{run.parent.name}/{run.name}", "a run"


def replacements() -> Offers:
    """Names of replacements, those of other packages too."""
    from cachetool.edits import replacements

    for name, one in replacements().items():
        yield name, one.description


def analyses() -> Offers:
    """Names of announced analyses."""
    from cachetool.plugins import announced

    for name, point in announced("cachetool.analyses").items():
        yield name, f"of the package {point.dist.name}" if point.dist is not None else "an analysis"
