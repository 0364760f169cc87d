"""Where caches, runs and calibrations lie below the root: the names of design section 3, in one place."""

from __future__ import annotations

import os
import re

from cachetool.errors import MissingDataError, UnknownNameError
from cachetool.files import expanded
from cachetool.objects import SCHEMES, WEB, AnyPlace, Place, is_url, listed, place, worked_on

DEFAULT_ROOT = "activations"

_ALMOST_URLS = tuple(f"{scheme}:/" for scheme in (*SCHEMES, *WEB))


def resolve_root(root: AnyPlace | None) -> Place:
    """What all caches lie below: the argument, else `CACHETOOL_ROOT`, else `activations`.

    A directory, or a URL. Raises `UnknownNameError` for a URL that nothing here reads or with a slash too few, for a
    file, and for an empty name, which is most often that of a variable that is not set.
    """
    named = root if root is not None else os.environ.get("CACHETOOL_ROOT") or DEFAULT_ROOT
    if not isinstance(named, str) or is_url(named):
        return place(named)
    if not named or named.startswith(_ALMOST_URLS):
        raise UnknownNameError(
            f"--root {named!r}: expected s3://BUCKET/PREFIX or a directory, such as . or activations"
        )
    path = expanded(named)
    if path.is_file():
        raise UnknownNameError(f"--root {named}: expected a directory, found a file")
    return path


def model_slug(model: str) -> str:
    """Name of a model as one path component, for example `timm-vit_tiny_patch16_224`."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", model)


def cache_path(root: Place, dataset_slug: str, model: str, name: str | None = None) -> Place:
    """Path of the cache of a model on a data set; `name` replaces the model's name, to keep two keys side by side.

    Raises
    ------
    UnknownNameError
        `name` is not a plain file name.
    """
    if name is not None:
        check_name(name)
    return root / dataset_slug / f"{name or model_slug(model)}.zarr"


def check_name(name: str) -> None:
    """Raise `UnknownNameError` unless a name that the user chose is a plain file name."""
    if not name or model_slug(name).strip(".") != name:
        raise UnknownNameError(
            f"--name {name!r}: expected letters, digits and any of '_ . + -' with no dot at an end; choose such a name"
        )


def _beside(cache: Place, ending: str) -> Place:
    return cache.with_name(cache.name.removesuffix(".zarr") + ending)


def runs_directory(cache: Place) -> Place:
    """Directory of the runs that were replayed from a cache."""
    return _beside(cache, ".runs")


def cache_of_run(run: Place) -> Place:
    """Path of the cache that a run lies beside."""
    return run.parent.with_name(run.parent.name.removesuffix(".runs") + ".zarr")


def calibrations_directory(cache: Place) -> Place:
    """Directory of the calibrations that were computed from a cache."""
    return _beside(cache, ".calibrations")


def outcomes_directory(cache: Place) -> Place:
    """Directory of what tasks measured on a cache and its runs."""
    return _beside(cache, ".outcomes")


def analyses_directory(cache: Place) -> Place:
    """Directory of what analyses found on a cache and its runs."""
    return _beside(cache, ".analyses")


def list_caches(root: Place) -> list[Place]:
    """Paths of all caches below the root, sorted."""
    return _stores(root, "*/*.zarr")


def list_runs(cache: Place) -> list[Place]:
    """Paths of all runs of a cache, sorted."""
    return _stores(runs_directory(cache), "*.zarr")


def _stores(folder: Place, pattern: str) -> list[Place]:
    found: list[Place] = sorted(folder.glob(pattern))
    there = worked_on(lambda path: (path / "zarr.json").is_file(), found, folder)
    return [path for path, is_store in zip(found, there, strict=True) if is_store]


def find_cache(cache: AnyPlace | None, root: AnyPlace | None = None) -> Place:
    """Path of the cache that was named, or of the only one below the root.

    `cache` is a path, or `DATASET/MODEL` below the root, with or without `.zarr`.

    Raises
    ------
    MissingDataError
        There is no such cache, or none at all.
    UnknownNameError
        No cache was named and there are several; the text lists them.
    """
    base = resolve_root(root)
    if cache is None:
        found = list_caches(base)
        if not found:
            raise MissingDataError(
                f"no cache below {base}\nmake one with `cachetool extract MODEL DATASET`, or name its root with --root"
            )
        if len(found) > 1:
            listing = "\n".join(f"  {path}" for path in found)
            raise UnknownNameError(f"{len(found)} caches below {base}; name one of them:\n{listing}")
        return found[0]
    named = place(cache)
    if is_url(cache):
        tried = [named, named.with_name(f"{named.name}.zarr")]
    else:
        tried = [named, base / str(cache), base / f"{cache}.zarr"]
    for path in tried:
        if (path / "zarr.json").is_file():
            return path
    absent = f"no cache at {' or '.join(str(path) for path in dict.fromkeys(tried))}"
    if not listed(base):
        raise MissingDataError(f"{absent}; name one by its own URL")
    listing = "\n".join(f"  {path}" for path in list_caches(base)) or "  (none)"
    raise MissingDataError(f"{absent}\ncaches below {base}:\n{listing}")
