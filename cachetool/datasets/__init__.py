"""Data sets by name: their images in a fixed order, their annotations, and the transform to a model's input."""

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
