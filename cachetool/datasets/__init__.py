"""Data sets by name: their images in a fixed order, their annotations, and the transform to a model's input."""

from __future__ import annotations

import sys
from types import ModuleType

from cachetool.datasets.base import IGNORE, Dataset, KeypointPair
from cachetool.datasets.by_place import absolute_name
from cachetool.datasets.catalogue import DatasetEntry, catalogue, open_dataset
from cachetool.datasets.hashing import hash_images
from cachetool.datasets.loading import Batch, load_batches, processors_for_decoding, worker_deaths
from cachetool.datasets.transform import Affine, Transform

__all__ = [
    "IGNORE",
    "Affine",
    "Batch",
    "Dataset",
    "DatasetEntry",
    "KeypointPair",
    "Transform",
    "absolute_name",
    "catalogue",
    "hash_images",
    "load_batches",
    "open_dataset",
    "processors_for_decoding",
    "worker_deaths",
]


class _Callable(ModuleType):
    """This package is also the function `cachetool.datasets()`: both have that name, and an import sets it."""

    def __call__(self) -> list[DatasetEntry]:
        """Data sets that can be named, and where they are or were looked for."""
        return catalogue()


sys.modules[__name__].__class__ = _Callable
