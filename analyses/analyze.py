"""Run one analysis on a cache, on its runs, or on its runs against their intact arms, out of core."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from dask.callbacks import Callback

import cachetool
from analyses.analysis import GROUP, Analysis, find_analysis
from analyses.blas_threads import one_blas_thread
from analyses.evaluation.arms import edit_label, is_unedited
from analyses.geometry.tokens_of import at_layers
from cachetool.distributing import Cluster, ClusterLike, ClusterScheduler, GraphJob, connect
from cachetool.distributing.graphs import PACKAGES
from cachetool.errors import InvalidEditError, MissingDataError
from cachetool.events import Events, Silent
from cachetool.objects import AnyPlace, listed, place
from cachetool.plugins import announced
from cachetool.query import store_path


def analyze(
    name: str | Analysis,
    cache: AnyPlace | xr.Dataset,
    *,
    runs: Sequence[AnyPlace] | bool = False,
    train: AnyPlace | xr.Dataset | None = None,
    limit: int | None = None,
    layers: Sequence[int] | None = None,
    options: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    device: str | None = None,
    cluster: ClusterLike | None = None,
    events: Events | None = None,
) -> xr.Dataset:
    """Run an analysis and load what it finds.

    Parameters
    ----------
    name
        Name of an announced analysis, or the analysis itself.
    cache
        The cache, as a path or opened.
    runs
        Runs to analyse, or True for all finished ones; an analysis that compares takes all of them unless some are
        named. An analysis of one store is otherwise made on the cache alone.
    train
        Training cache, where the analysis fits heads.
    limit
        Use the first images only.
    layers
        Use these states only.
    options
        The analysis's own options.
    weights, device
        As for `cachetool.attention`, where blocks are run again.
    cluster
        A dask cluster whose workers do what the analysis leaves to dask, as for `cachetool.extract`; what it computes
        while it is called, such as probes, stays here.
    events
        Told of progress, and of runs that are left out.

    Returns
    -------
    What the analysis returns, loaded; where runs are analysed, with a first dimension `run` and along it the
    coordinates `edit`, `target`, `replacement`, `from_layer`, `seed`, `oracle`. Its attributes say how it was made.

    Raises
    ------
    UnknownNameError
        There is no such analysis, or it has no such option.
    MissingDataError
        There is no run to compare, no training cache, or none of the stores holds what the analysis reads; says why.
    InvalidEditError
        A layer is asked for that no store holds, or an option is NaN or infinite.
    ClusterError
        The cluster cannot be reached, or a worker cannot take part; names all that cannot.
    """
    listener = events or Silent()
    analysis = find_analysis(name) if isinstance(name, str) else name
    analysis.check_finite(options or {})
    opened = cache if isinstance(cache, xr.Dataset) else cachetool.open(cache)
    settings = dict(options or {})
    running = {"weights": weights, "device": device}
    settings |= {parameter: value for parameter, value in running.items() if parameter in analysis.reserved}
    if analysis.needs_train:
        if train is None:
            raise MissingDataError(f"{analysis.name} fits heads: name the cache of other images with `--train CACHE`")
        settings["train"] = train if isinstance(train, xr.Dataset) else cachetool.open(train)
    others = [*([settings["train"]] if analysis.needs_train else ()), *(() if isinstance(runs, bool) else runs)]
    job = GraphJob(
        cache=store_path(opened).absolute(),
        reads=tuple(store_path(store).absolute() for store in others),
        packages=_packages(analysis),
        device=(device or "cpu") if "device" in analysis.reserved else "cpu",
    )
    # Some analyses compute while they are called, others leave it to dask.
    with connect(cluster) as connected, _computing(connected, job, analysis.name, listener):
        if analysis.compares or runs:
            paths = None if isinstance(runs, bool) else runs
            found = _on_runs(analysis, opened, paths, limit, layers, settings, listener)
        else:
            found = analysis.function(_restrict(opened, limit, layers), **settings)
        loaded = found.load()
    loaded.attrs |= {
        "analysis": analysis.name,
        "options": json.dumps(dict(options or {}), sort_keys=True),
        "cache": str(store_path(opened)),
        "cache_key": json.dumps(opened.attrs["key"], sort_keys=True),
        "cachetool_version": version("cachetool"),
    }
    return loaded


def _packages(analysis: Analysis) -> tuple[str, ...]:
    """What must be the same on workers, the package that announces the analysis included."""
    point = announced(GROUP).get(analysis.name)
    own = () if point is None or point.dist is None else (point.dist.name,)
    return tuple(dict.fromkeys((*PACKAGES, *own)))


def _computing(cluster: Cluster | None, job: GraphJob, name: str, events: Events) -> AbstractContextManager[Any]:
    """Where dask computes meanwhile, and who is told."""
    if cluster is None:
        return _Tasks(name, events)
    found: AbstractContextManager[Any] = dask.config.set(scheduler=ClusterScheduler(cluster, job, name, events))
    return found


def _on_runs(
    analysis: Analysis,
    cache: xr.Dataset,
    paths: Sequence[AnyPlace] | None,
    limit: int | None,
    layers: Sequence[int] | None,
    settings: Mapping[str, Any],
    events: Events,
) -> xr.Dataset:
    """The analysis of every run that allows it, along a new dimension `run`."""
    # The unedited replays need not be named, unless nobody says what lies there.
    stores = cachetool.runs(cache, None if paths is None or listed(store_path(cache)) else paths, events=events)
    intact = {_edit(run).from_layer: run for run in stores if is_unedited(_edit(run))}
    if paths is not None:
        stores = cachetool.runs(cache, paths, events=events)
        found = {store_path(run) for run in stores}
        foreign = [str(path) for path in paths if place(path) not in found]
        if foreign:
            raise MissingDataError(f"expected finished runs of {store_path(cache)}, found {', '.join(foreign)}")
    chosen = [run for run in stores if not (analysis.compares and is_unedited(_edit(run)))]
    if not chosen:
        raise MissingDataError(
            f"{analysis.name} needs runs, and {store_path(cache)} has none; make them with "
            f"`cachetool replay {store_path(cache)} --ablation none --ablation zero`"
        )
    results, kept, left_out = [], [], []
    for run in chosen:
        try:
            part = _restrict(run, limit, layers)
            stores_given = [part]
            if analysis.compares:
                stores_given.append(_restrict(_intact_arm(run, intact, cache), limit, layers).isel(image=_rows(part)))
            # One run after the other: in one graph, every block of the intact arm would be held until all runs had
            # used it.
            results.append(analysis.function(*stores_given, **settings).load())
            kept.append(run)
        except (MissingDataError, InvalidEditError, cachetool.errors.IncompleteError) as error:
            left_out.append(f"{edit_label(_edit(run))} from {_edit(run).from_layer}: {error}")
    for text in left_out:
        events.message(f"left out: {text}")
    if not results:
        listing = "\n".join(f"  {text}" for text in left_out)
        raise MissingDataError(f"{analysis.name} can be made on no run:\n{listing}")
    edits = [_edit(run) for run in kept]
    joined = xr.concat(
        results, dim="run", join="outer", data_vars="all", coords="minimal", compat="override", combine_attrs="override"
    )
    return joined.assign_coords(
        edit=("run", [edit_label(edit) for edit in edits]),
        target=("run", [edit.target for edit in edits]),
        replacement=("run", [edit.replacement for edit in edits]),
        from_layer=("run", [edit.from_layer for edit in edits]),
        seed=("run", [edit.seed for edit in edits]),
        oracle=("run", [bool(run.attrs["facts"]["oracle"]) for run in kept]),
    )


def _edit(run: xr.Dataset) -> cachetool.Edit:
    return cachetool.Edit(**run.attrs["key"]["edit"])


def _intact_arm(run: xr.Dataset, intact: Mapping[int, xr.Dataset], cache: xr.Dataset) -> xr.Dataset:
    """The unedited replay from the same state, so that storage error cancels, if it holds the run's states.

    Else the cache: it holds the intact states that the unedited replay did not keep, equal up to its storage error.
    """
    arm = intact.get(_edit(run).from_layer)
    if arm is not None and set(run.layer.values.tolist()) <= set(arm.layer.values.tolist()):
        return arm
    return cache


def _rows(part: xr.Dataset) -> slice:
    """A run may hold fewer images than a cache that grew at its end."""
    return slice(part.sizes["image"])


def _restrict(store: xr.Dataset, limit: int | None, layers: Sequence[int] | None) -> xr.Dataset:
    if layers is not None:
        held = store.layer.values.tolist()
        missing = [layer for layer in layers if layer not in held]
        if missing:
            raise InvalidEditError(
                f"{store_path(store)} holds the states {', '.join(map(str, held))}, not {', '.join(map(str, missing))}"
            )
        store = at_layers(store, layers)
    return store if limit is None else store.isel(image=slice(limit))


class _Tasks(Callback):
    """Where this process computes: tells events how far dask has come; BLAS runs on one thread meanwhile."""

    def __init__(self, name: str, events: Events) -> None:
        self._name, self._events = name, events
        self._limits: list[ExitStack] = []
        super().__init__(start_state=self._begin, posttask=self._done, finish=self._end)  # type: ignore[no-untyped-call]

    def _begin(self, _graph: Any, state: Mapping[str, Any]) -> None:
        waiting = (len(state[name]) for name in ("ready", "waiting") if name in state)
        self._events.start(self._name, int(np.sum(list(waiting))))
        self._limits.append(ExitStack())
        self._limits[-1].enter_context(one_blas_thread())

    def _end(self, *_arguments: Any) -> None:
        self._limits.pop().close()

    def _done(self, *_arguments: Any) -> None:
        self._events.advance(1)
