"""Documents and small arrays mended from where the same is known: the root document, the cache of a run, the data set.

What is known nowhere else is refused, with what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cachetool import places
from cachetool.datasets import hash_images
from cachetool.errors import CachetoolError, DamagedError
from cachetool.extraction import open_images
from cachetool.images import image_digest
from cachetool.objects import Place
from cachetool.store import (
    ImageTable,
    OpenedStore,
    Root,
    implied_table,
    key_digest,
    read_array,
    restore_document,
    restore_table,
)
from cachetool.verifying.report import Problem, Repair
from cachetool.verifying.sources import open_model

NORM = ("norm_weight", "norm_bias")


def repair_tables(
    path: Place, kind: str, problems: Sequence[Problem], weights: str | Path | None
) -> tuple[list[Repair], list[str]]:
    """Mend what problems of documents and small arrays name.

    Returns
    -------
    What was done, and the arrays of a run that only a replay gives again.
    """
    repairs, left = [], []
    for name in dict.fromkeys(problem.where for problem in problems if problem.part == "document"):
        restore_document(path, name)
        repairs.append(Repair(name, True, "its document was written again from the root document"))
    for name in dict.fromkeys(problem.where for problem in problems if problem.part == "table"):
        if kind == "calibration":
            repairs.append(Repair(name, False, "remove the calibration and compute it again"))
            continue
        if kind == "run" and not _is_declared(name):
            left.append(name)
            continue
        try:
            values, source = _derive(path, kind, name, weights)
            restore_table(path, name, values)
            repairs.append(Repair(name, True, f"it was written again {source}"))
        except CachetoolError as error:
            again = "replay again" if kind == "run" else "extract again"
            repairs.append(Repair(name, False, f"{error}; or remove {path} and {again}"))
    return repairs, left


def _is_declared(name: str) -> bool:
    """Whether every store has the array, rather than runs alone."""
    return name in (*ImageTable.COLUMNS, *NORM, "layer", "token_type", "row", "col")


def _derive(path: Place, kind: str, name: str, weights: str | Path | None) -> tuple[npt.NDArray[np.generic], str]:
    """Values of a small array, and where they were found. Raises `CachetoolError` saying why they cannot be."""
    implied = implied_table(path, name)
    if implied is not None:
        return implied, "as the root document implies it"
    if kind == "run":
        return _from_cache(path, name), "from its cache"
    if name in NORM:
        backbone = open_model(path, OpenedStore(path).spec(norm=False), weights, download=False)
        vector = backbone.norm_weight if name == "norm_weight" else backbone.norm_bias
        if vector is not None:
            return vector.float().cpu().numpy(), "from the weights"
    if name in ImageTable.COLUMNS and name != "content_sha256":
        return _from_dataset(path, name), "from the data set, whose files are those that were extracted"
    raise DamagedError(f"{name} of {path} follows from nothing else")


def _from_cache(path: Place, name: str) -> npt.NDArray[np.generic]:
    """The first entries of an array of the cache that a run was made from, proven by the run's key."""
    key, count = Root(path).about["key"], Root(path).arrays["image_id"]["shape"][0]
    cache = OpenedStore(places.cache_of_run(path))
    images = ImageTable(cache.images.image_id[:count], cache.images.sha256[:count])
    if key_digest(cache.root.about["key"]) != key["cache"] or image_digest(images) != key["images"]:
        raise DamagedError(f"{cache.path} is not the cache that {path} was made from")
    values = cache.array(name)
    return values if name in NORM else values[:count]


def _from_dataset(path: Place, name: str) -> npt.NDArray[np.generic]:
    """Ids, labels or class names from the data set, proven by the content hashes that the cache holds."""
    root = Root(path)  # the store itself does not open without its ids
    sha256 = tuple(read_array(root, "content_sha256").tolist())
    dataset, _transform = open_images(root.about["facts"], root.about["key"])
    if hash_images(dataset, len(sha256)) != sha256:
        raise DamagedError(f"files of {dataset.name} are not those that were extracted into {path}")
    if name == "image_id":
        return np.array(dataset.image_ids[: len(sha256)], dtype=object)
    labels = None if dataset.labels is None else dataset.labels[: len(sha256)]
    if labels is None or (name == "class_name" and dataset.class_names is None):
        raise DamagedError(f"{dataset.name} has no {name} any more")
    if name == "label":
        return np.array(labels, dtype=np.int64)
    names = dataset.class_names or ()
    return np.array([names[label] if label >= 0 else "" for label in labels], dtype=object)
