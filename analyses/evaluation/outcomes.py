"""Outcomes per image or pair are kept on disk beside the store that they were measured on, and found again.

They lie at `<cache>.outcomes/<task>/<store>.<digest>.nc`, the digest being that of everything they depend on: the
store and its images, labels, pairs and masks, the task and its settings, and what its head was fitted on. Masks are
files of the data set and too large to be hashed at every look: they are told apart by size and time of change.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from typing import Any

import xarray as xr

from analyses.netcdf import read_netcdf, write_netcdf
from analyses.tasks.base import Task
from cachetool.annotations import Annotations
from cachetool.objects import Place, place
from cachetool.places import cache_of_run, outcomes_directory

OUTCOME_VERSION = 1
"""Counts changes of the files' form and of what a task of the same settings measures."""

_KEY, _ATTRIBUTES = "key", "attributes"


class FittedHead:
    """The head of a task: fitted on a training cache or run when it is first needed, and at most once."""

    def __init__(self, task: Task, train: xr.Dataset | None = None, annotations: Annotations | None = None) -> None:
        """Name the task, and for fitted tasks the training cache or run and the annotations of its images.

        Raises
        ------
        ValueError
            The task fits a head, but there is nothing to fit it on.
        """
        if task.fitted and (train is None or annotations is None):
            raise ValueError(f"{task.name} fits a head: give a training cache and its annotations")
        self._task, self._train, self._annotations = task, train, annotations
        self._head: Any = None
        self._done = not task.fitted

    @property
    def key(self) -> dict[str, Any] | None:
        """What the head depends on besides the task; None for tasks without one."""
        if not self._task.fitted or self._train is None or self._annotations is None:
            return None
        return store_key(self._train, self._annotations, self._task)

    def fit(self) -> Any:
        """What `Task.fit` gives; None for tasks without a head."""
        if not self._done and self._train is not None and self._annotations is not None:
            self._head = self._task.fit(self._train, self._annotations)
            self._done = True
        return self._head


def measured(task: Task, store: xr.Dataset, annotations: Annotations, head: FittedHead) -> xr.Dataset:
    """Outcomes of a task on a cache or run: from disk where they were measured before, else measured and kept.

    Parameters
    ----------
    store
        A cache or run as `cachetool.open` gives it.
    annotations
        Labels, masks and pairs of its images.
    head
        The task's head; it is fitted only where something has to be measured.

    Returns
    -------
    What `Task.measure` gives, loaded. A file that is damaged, or was written for something else, is measured anew.
    """
    key = outcome_key(task, store, annotations, head)
    path = outcome_path(task, store, key)
    found = _read(path, key)
    if found is None:
        outcomes = task.measure(store, head.fit(), annotations)
        attributes = json.dumps(outcomes.attrs)
        plain = outcomes.drop_attrs(deep=False)
        write_netcdf(plain.assign_attrs({_KEY: _canonical(key), _ATTRIBUTES: attributes}), path)
        # What the next evaluation will read, without reading it: of 290 small files that took as long as writing them.
        found = plain.assign_attrs(json.loads(attributes))
    return found


def outcome_key(task: Task, store: xr.Dataset, annotations: Annotations, head: FittedHead) -> dict[str, Any]:
    """Everything that outcomes depend on, as JSON values."""
    return {
        "version": OUTCOME_VERSION,
        "task": task.name,
        "settings": task.settings,
        "store": store_key(store, annotations, task),
        "head": head.key,
    }


def store_key(store: xr.Dataset, annotations: Annotations, task: Task) -> dict[str, Any]:
    """What tells a cache or run and its annotated images from all others for a task, as JSON values."""
    images = hashlib.sha256()
    for image_id, content, readable in zip(
        store.image_id.values, store.content_sha256.values, store.readable.values, strict=True
    ):
        images.update(f"{image_id}\0{content}\0{int(readable)}\n".encode())
    layer = store.attrs.get("depth") if task.layer is None else task.layer
    digests = store.attrs.get("digests", {})
    return {
        "kind": store.attrs["kind"],
        "key": store.attrs["key"],
        "images": images.hexdigest(),
        # A key says how values were made; a repair, or a replay from repaired states, may make them anew otherwise.
        "values": {name: digests.get(name, {}).get(str(layer)) for name in task.tokens},
        "annotations": _annotation_digest(annotations, pairs=task.metrics[0].unit == "pair", masks=task.reads_masks),
    }


def outcome_path(task: Task, store: xr.Dataset, key: dict[str, Any]) -> Place:
    """Where outcomes of a cache or run are kept."""
    own = place(store.attrs["cachetool_path"])
    cache = own if store.attrs["kind"] == "cache" else cache_of_run(own)
    digest = hashlib.sha256(_canonical(key).encode()).hexdigest()[:8]
    return outcomes_directory(cache) / task_folder(task.name) / f"{own.name.removesuffix('.zarr')}.{digest}.nc"


def task_folder(task: str) -> str:
    """Folder of a task's outcomes, from its name."""
    return re.sub(r"[^A-Za-z0-9_.+@-]+", "-", task)


def _read(path: Place, key: dict[str, Any]) -> xr.Dataset | None:
    """The outcomes in a file; None where it is absent, damaged or of another key."""
    if not path.is_file():
        return None
    try:
        found = read_netcdf(path)
        if found.attrs[_KEY] != _canonical(key):
            return None
        return found.drop_attrs(deep=False).assign_attrs(json.loads(found.attrs[_ATTRIBUTES]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # A file that cannot be read, or attributes that are not what was written.
        return None


def _canonical(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True, separators=(",", ":"), allow_nan=False)


@lru_cache(maxsize=8)
def _annotation_digest(annotations: Annotations, *, pairs: bool, masks: bool) -> str:
    """SHA-256 of labels and names, and of pairs where they are measured: some data sets take seconds to list them.

    Annotations do not change within one object, so a few digests are remembered.
    """
    digest = hashlib.sha256()
    digest.update(b"" if annotations.labels is None else annotations.labels.tobytes())
    digest.update(json.dumps([annotations.class_names, annotations.mask_names]).encode())
    for pair in annotations.pairs if pairs else ():
        digest.update(pair.source_keypoints.tobytes() + pair.target_keypoints.tobytes())
        digest.update(repr((pair.source, pair.target, pair.category, pair.target_box, pair.target_size)).encode())
    for path in annotations.mask_files if masks else ():
        # A mask that is not there is an error of the task that reads it.
        state = path.stat() if path.exists() else None
        digest.update(f"{path.name}\0{state and state.st_size}\0{state and state.st_mtime_ns}\n".encode())
    return digest.hexdigest()
