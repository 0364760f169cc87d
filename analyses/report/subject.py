"""What a report shows of one cache: the cache, its runs, what analyses found, and the data set if it is at hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr

import cachetool
from analyses.evaluation.arms import edit_label, is_unedited
from analyses.evaluation.describing import dataset_label
from analyses.netcdf import read_netcdf
from cachetool.annotations import Annotations
from cachetool.errors import CachetoolError, MissingDataError
from cachetool.objects import Place
from cachetool.places import analyses_directory
from cachetool.provenance import IMAGES, MODEL, check_provenance
from cachetool.query import store_path

MOST_REPLACEMENTS = 4
"""Runs of each target shown in galleries where none are named."""

_TARGETS = ("registers", "cls", "patches:outliers")
_REPLACEMENTS = ("zero", "mean", "noise", "shuffle", "norm-matched", "remove", "knockout")


@dataclass(frozen=True)
class Subject:
    """One cache of a report."""

    path: Place
    """Its path."""
    cache: xr.Dataset
    """The cache, opened."""
    runs: tuple[xr.Dataset, ...]
    """All its finished runs, opened."""
    results: dict[str, xr.Dataset]
    """What analyses found on this very cache, by their names."""
    stale: tuple[str, ...]
    """Files of results that belong to another cache or cannot be read, each with the reason."""
    annotations: Annotations | None
    """The data set; None where its files are not at hand."""
    without_images: str
    """Why the data set is not at hand; empty where it is."""

    @property
    def name(self) -> str:
        """Model and data set, for headings."""
        return f"{self.model} on {self.dataset}"

    @property
    def model(self) -> str:
        """The model."""
        return str(self.cache.attrs["facts"]["model"])

    @property
    def dataset(self) -> str:
        """The data set, as tables name it."""
        return dataset_label(self.cache)

    @property
    def edited(self) -> tuple[xr.Dataset, ...]:
        """Runs that edit something."""
        return tuple(run for run in self.runs if not is_unedited(edit(run)))


def open_subject(path: Place) -> Subject:
    """Open a cache with all that lies beside it. Raises what `cachetool.open` raises."""
    cache = cachetool.open(path)
    check_provenance(path, cache.attrs["key"], cache.attrs["facts"], *MODEL, *IMAGES, "key.dtype")
    results, stale = _results(cache)
    annotations, reason = None, ""
    try:
        annotations = cachetool.open_annotations(cache)
    except CachetoolError as error:
        reason = str(error)
    return Subject(path, cache, tuple(cachetool.runs(cache)), results, tuple(stale), annotations, reason)


def edit(run: xr.Dataset) -> cachetool.Edit:
    """What a run edited."""
    return cachetool.Edit(**run.attrs["key"]["edit"])


def run_label(run: xr.Dataset) -> str:
    """A run for people: its edit, first state, and seed where that is not 0."""
    own = edit(run)
    return f"{edit_label(own)}, from {own.from_layer}" + (f", seed {own.seed}" if own.seed else "")


def gallery_runs(subject: Subject, named: Sequence[Place] = ()) -> dict[str, xr.Dataset]:
    """Runs to show on example images by their labels: those that are named, else one of each common edit.

    Common edits: sustained replacements of registers, [CLS] and outlier patches, from the earliest state and of the
    lowest seed, at most `MOST_REPLACEMENTS` of each; edits of [CLS] that end before the last state are preferred.

    Raises
    ------
    MissingDataError
        None of the runs named is a finished run of this cache.
    """
    holding = [run for run in subject.edited if "patches" in run and int(run.attrs["depth"]) in run.layer.values]
    if named:
        wanted = {path.resolve() for path in named}
        return _labelled([run for run in subject.edited if store_path(run).resolve() in wanted])
    ranked = sorted((run for run in holding if _common(run)), key=_rank)
    chosen: dict[str, dict[str, xr.Dataset]] = {}
    for run in ranked:
        chosen.setdefault(edit(run).target, {}).setdefault(edit(run).replacement, run)
    few = [run for of_target in chosen.values() for run in list(of_target.values())[:MOST_REPLACEMENTS]]
    few = few or holding[:MOST_REPLACEMENTS]
    return _labelled(few)


def _labelled(runs: Sequence[xr.Dataset]) -> dict[str, xr.Dataset]:
    """Runs by their labels; of runs that differ in what no label says, such as the calibration, by their files too."""
    labels = [run_label(run) for run in runs]
    return {
        label if labels.count(label) == 1 else f"{label} ({store_path(run).stem})": run
        for label, run in zip(labels, runs, strict=True)
    }


def check_named_runs(subjects: Sequence[Subject], named: Sequence[Place]) -> None:
    """Raise `MissingDataError`, naming all, where runs are no finished runs of one of the caches."""
    known = {store_path(run).resolve() for subject in subjects for run in subject.edited}
    foreign = [str(path) for path in named if path.resolve() not in known]
    if foreign:
        caches = ", ".join(str(subject.path) for subject in subjects)
        raise MissingDataError(f"expected finished, edited runs of {caches}, found {', '.join(foreign)}")


def _common(run: xr.Dataset) -> bool:
    own = edit(run)
    return own.target in _TARGETS and own.replacement in _REPLACEMENTS and own.sustained


def _rank(run: xr.Dataset) -> tuple[int, int, int, bool, int, int]:
    """Common edits first; of equal ones the run that kept most states, whose attention can be shown."""
    own = edit(run)
    return (
        _TARGETS.index(own.target), _REPLACEMENTS.index(own.replacement), own.from_layer, own.until_layer is None,
        own.seed, -run.sizes["layer"],
    )  # fmt: skip


def _results(cache: xr.Dataset) -> tuple[dict[str, xr.Dataset], list[str]]:
    key = json.dumps(cache.attrs["key"], sort_keys=True)
    found: dict[str, xr.Dataset] = {}
    stale = []
    files: list[Place] = sorted(analyses_directory(store_path(cache)).glob("*.nc"))
    for file in files:
        try:
            result = read_netcdf(file)
        except (OSError, ValueError, KeyError) as error:
            stale.append(f"{file} cannot be read: {error}")
            continue
        if result.attrs.get("cache_key") == key and "analysis" in result.attrs:
            found[str(result.attrs["analysis"])] = result
        else:
            stale.append(f"{file} was made from another cache")
    return found, stale
