"""Everything the command line does, as functions of the same names; results are xarray objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, overload

import xarray as xr

from cachetool import places
from cachetool.backbones import ModelEntry
from cachetool.backbones import catalogue as model_catalogue
from cachetool.calibrating import calibrate as compute_calibration
from cachetool.calibrating import summarize_here
from cachetool.distributing import ClusterLike, compute_on, connect, replay_on, summarize_on
from cachetool.edits import Edit
from cachetool.errors import MissingDataError, StoreError
from cachetool.events import Events, Silent
from cachetool.extraction import check_options, compute_here, prepare
from cachetool.extraction import extract as run_extraction
from cachetool.objects import AnyPlace, check_writable, taken, zarr_store
from cachetool.query import open_store, store_path
from cachetool.replaying import replay_edits, replay_here, require_cache
from cachetool.store import StoreReader


def models() -> list[ModelEntry]:
    """Models that can be named, and whether their weights are at hand."""
    return model_catalogue()


def extract(
    model: str,
    dataset: str,
    *,
    root: AnyPlace | None = None,
    name: str | None = None,
    layers: Iterable[int] | None = None,
    tokens: Iterable[str] | None = None,
    dtype: str = "float16",
    image_size: int | None = None,
    limit: int | None = None,
    weights: str | Path | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    part: tuple[int, int] = (1, 1),
    on_error: str = "stop",
    cluster: ClusterLike | None = None,
    events: Events | None = None,
) -> xr.Dataset:
    """Store token activations of a model on a data set, as far as they are not stored yet, and open the cache.

    Parameters are those of `cachetool.extraction.prepare` and `cachetool.extraction.extract`, and so are the errors.
    `cluster` has the workers of a dask cluster compute, on `device`: see `cachetool.distributing.connect`.

    Returns
    -------
    The cache, lazily, as `cachetool.open` gives it.
    """
    check_options(batch_size, part, on_error)
    with connect(cluster) as connected:
        request = prepare(
            model,
            dataset,
            root=root,
            name=name,
            layers=layers,
            tokens=tokens,
            dtype=dtype,
            image_size=image_size,
            limit=limit,
            weights=weights,
            device=device if connected is None else "cpu",
            events=events,
        )
        done = run_extraction(
            request,
            batch_size=batch_size,
            workers=workers,
            part=part,
            on_error=on_error,
            events=events,
            compute=compute_here if connected is None else compute_on(connected, device),
        )
    return open_store(done.path)


@overload
def replay(
    cache: AnyPlace | xr.Dataset,
    edits: Edit,
    *,
    keep: Iterable[int] | Literal["all"] | None = None,
    keep_tokens: Iterable[str] | None = None,
    calibration: AnyPlace | None = None,
    no_overlap: bool = False,
    weights: str | Path | None = None,
    device: str | None = None,
    precision: str = "float32",
    compiled: bool = False,
    batch_size: int | None = None,
    cluster: ClusterLike | None = None,
    events: Events | None = None,
) -> xr.Dataset: ...
@overload
def replay(
    cache: AnyPlace | xr.Dataset,
    edits: Sequence[Edit],
    *,
    keep: Iterable[int] | Literal["all"] | None = None,
    keep_tokens: Iterable[str] | None = None,
    calibration: AnyPlace | None = None,
    no_overlap: bool = False,
    weights: str | Path | None = None,
    device: str | None = None,
    precision: str = "float32",
    compiled: bool = False,
    batch_size: int | None = None,
    cluster: ClusterLike | None = None,
    events: Events | None = None,
) -> list[xr.Dataset]: ...
def replay(
    cache: AnyPlace | xr.Dataset,
    edits: Edit | Sequence[Edit],
    *,
    keep: Iterable[int] | Literal["all"] | None = None,
    keep_tokens: Iterable[str] | None = None,
    calibration: AnyPlace | None = None,
    no_overlap: bool = False,
    weights: str | Path | None = None,
    device: str | None = None,
    precision: str = "float32",
    compiled: bool = False,
    batch_size: int | None = None,
    cluster: ClusterLike | None = None,
    events: Events | None = None,
) -> xr.Dataset | list[xr.Dataset]:
    """Replay one edit, or several on one read, and open the runs.

    Parameters are those of `cachetool.replaying.replay_edits`, and so are the errors. `cluster` is as for `extract`.

    Returns
    -------
    The run, lazily, or a list of runs in the order of the edits. Its attributes hold key, certificate and provenance.
    """
    with connect(cluster) as connected:
        runs = replay_edits(
            store_path(cache),
            [edits] if isinstance(edits, Edit) else list(edits),
            keep=keep,
            keep_tokens=keep_tokens,
            calibration=calibration,
            no_overlap=no_overlap,
            weights=weights,
            device=device,
            precision=precision,
            compiled=compiled,
            batch_size=batch_size,
            events=events,
            compute=replay_here if connected is None else replay_on(connected),
        )
    opened = [open_store(run.path) for run in runs]
    return opened[0] if isinstance(edits, Edit) else opened


def calibrate(
    cache: AnyPlace | xr.Dataset,
    *,
    name: str = "calibration",
    layers: Sequence[int] | None = None,
    tokens: Sequence[str] | None = None,
    images: Sequence[str] | None = None,
    limit: int | None = None,
    covariance: bool = False,
    cluster: ClusterLike | None = None,
    events: Events | None = None,
) -> xr.Dataset:
    """Compute means, variances and reference tokens of a cache, store them beside it, and open them.

    Parameters
    ----------
    name
        Name of the artefact, a file name without `.zarr`.
    images
        Ids of the calibration images; by default all.
    limit
        Use the first of these images only.
    covariance
        Store covariances too: channels x channels numbers per state and token.
    cluster
        As for `extract`: workers read and summarize, this process adds up.

    Raises
    ------
    StoreError
        A calibration of this name is there already, or the cache lies where things can only be read.
    MissingDataError
        The cache lacks some of the images; names them.
    """
    base = store_path(cache)
    check_writable(base)
    places.check_name(name)
    path = places.calibrations_directory(base) / f"{name}.zarr"
    if taken(path):
        raise StoreError(f"{path} is there already; choose another --name, or remove it with `cachetool remove {path}`")
    reader = StoreReader(base)
    require_cache(reader.spec, base)
    chosen = _image_indices(reader.spec.images.image_id, images, limit)
    with connect(cluster) as connected:
        compute_calibration(
            reader,
            layers=layers,
            token_types=tokens,
            images=chosen,
            covariance=covariance,
            events=events,
            summarize=summarize_here if connected is None else summarize_on(connected, base, events or Silent()),
        ).write(path)
    opened: xr.Dataset = xr.open_zarr(zarr_store(path))
    opened.attrs["cachetool_path"] = str(path)
    return opened


def export_hdf5(
    cache: AnyPlace | xr.Dataset,
    file: str | Path,
    *,
    layers: Iterable[int] | None = None,
    tokens: Iterable[str] | None = None,
    limit: int | None = None,
    events: Events | None = None,
) -> Path:
    """Write a cache or run, or a part of it, to one new HDF5 file, and return its path.

    Parameters are those of `cachetool.interchange.export_file`, and so are the errors.
    """
    from cachetool.interchange import export_file  # h5py, which nothing else here needs

    return export_file(store_path(cache), file, layers=layers, token_types=tokens, limit=limit, events=events).file


def import_hdf5(
    file: str | Path, *, root: AnyPlace | None = None, name: str | None = None, events: Events | None = None
) -> xr.Dataset:
    """Make the cache or run that was exported to an HDF5 file, and open it.

    Parameters are those of `cachetool.interchange.import_file`, and so are the errors.
    """
    from cachetool.interchange import import_file

    return open_store(import_file(file, root=root, name=name, events=events).path)


def _image_indices(known: Sequence[str], wanted: Sequence[str] | None, limit: int | None) -> list[int] | None:
    """Positions of the wanted images in the cache; None for all."""
    if wanted is None and limit is None:
        return None
    index = {image_id: row for row, image_id in enumerate(known)}
    names = list(known) if wanted is None else list(wanted)
    absent = [name for name in names if name not in index]
    if absent:
        raise MissingDataError(
            f"{len(absent)} of {len(names)} calibration images are not in the cache: {', '.join(absent[:20])}; "
            "use ids as in its image_id coordinate"
        )
    return [index[name] for name in names[:limit]]
