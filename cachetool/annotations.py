"""Labels, masks and keypoint pairs of a cache's images, in the cache's order and in its geometry.

A cache holds activations alone; what is annotated stays in the data set, which is opened again and compared by ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cachetool.datasets import Affine, Dataset, KeypointPair, Transform, open_dataset
from cachetool.errors import DatasetError, InvalidEditError
from cachetool.objects import AnyPlace
from cachetool.provenance import IMAGES, TRANSFORM, check_provenance
from cachetool.query import store_path
from cachetool.store import StoreReader, StoreSpec


class Annotations:
    """What the data set of a cache says about its images; positions of images are those of the cache."""

    def __init__(self, dataset: Dataset, transform: Transform, spec: StoreSpec) -> None:
        """Compare the ids. Raises `DatasetError` where the cache's images are not the data set's first ones."""
        here, there = dataset.image_ids[: len(spec.images)], spec.images.image_id
        differing = [
            f"{position} ({mine})" for position, mine in enumerate(there) if here[position : position + 1] != (mine,)
        ]
        if differing:
            shown = ", ".join(differing[:5]) + (f" and {len(differing) - 5} more" if len(differing) > 5 else "")
            raise DatasetError(
                f"{dataset.name} does not begin with the {len(there)} images of the cache: it has other images at "
                f"{shown}; name the data set that the cache was extracted from"
            )
        self.dataset = dataset
        """The opened data set; it may hold more images than the cache."""
        self.transform = transform
        """How images became the model's input."""
        self.image_ids = spec.images.image_id
        """Id of each image (image,)."""
        self.rows, self.columns = spec.layout.rows, spec.layout.columns
        """The patch grid."""
        self.patch_size = transform.size / spec.layout.columns
        """Side of a patch in pixels of the model's input."""
        self.labels: npt.NDArray[np.int64] | None = (
            None if spec.images.label is None else np.array(spec.images.label, dtype=np.int64)
        )
        """Class index of each image, int64 (image,), -1 where an image has none; None without labels."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes of `labels`."""
        return self.dataset.class_names

    @property
    def mask_names(self) -> tuple[str, ...] | None:
        """Names of the classes of masks; None without masks."""
        return self.dataset.mask_names

    def mask(self, image: int) -> npt.NDArray[np.uint8]:
        """Class of every pixel of an image at its own size, uint8 (row, column), 255 = not annotated."""
        return self.dataset.mask(image)

    @property
    def mask_files(self) -> tuple[Path, ...]:
        """Files of the masks of the cache's images; none where masks are drawn or absent."""
        return self.dataset.mask_files[: len(self.image_ids)]

    def size(self, image: int) -> tuple[int, int]:
        """Width and height of an image in pixels."""
        return self.dataset.size(image)

    @cached_property
    def pairs(self) -> tuple[KeypointPair, ...]:
        """Annotated pairs whose two images are in the cache, in the data set's order."""
        last = len(self.image_ids)
        return tuple(pair for pair in self.dataset.pairs if pair.source < last and pair.target < last)

    def with_pairs(self, chosen: Sequence[int]) -> Annotations:
        """The same annotations with some pairs alone, at these positions in `pairs`."""
        reduced = copy(self)
        reduced.pairs = tuple(self.pairs[index] for index in chosen)
        return reduced

    def geometry(self, width: int, height: int) -> Affine:
        """Where the pixels of a `width` x `height` image lie in the model's input, in centre coordinates."""
        return self.transform.geometry(width, height)


def open_annotations(cache: AnyPlace | xr.Dataset, dataset: str | None = None) -> Annotations:
    """Open the labels, masks and pairs of a cache's images.

    Parameters
    ----------
    cache
        The cache, as a path or opened.
    dataset
        Name of the data set, where its files have moved since the extraction.

    Raises
    ------
    MissingDataError
        The files of the data set are not at hand.
    DatasetError
        The data set holds other images, or decodes them by other rules, than the cache.
    InvalidEditError
        The store is no cache.
    """
    path = store_path(cache)
    spec = StoreReader(path).spec
    if spec.kind != "cache":
        raise InvalidEditError(f"{path} is a {spec.kind}; name the cache that it was made from")
    check_provenance(path, spec.key, spec.facts, *IMAGES)
    stored: dict[str, Any] = dict(spec.key["transform"])
    if unknown := sorted(set(stored) - TRANSFORM):
        raise DatasetError(f"{path} was extracted with a transform of unknown parts: {', '.join(unknown)}")
    decoding = {name: stored.pop(name) for name in ("decoding_rules", "exif")}
    name = dataset or str(spec.facts["dataset"])
    opened = open_dataset(
        name, exif="applied" if decoding["exif"] == "applied" and name.startswith("imagefolder:") else "ignored"
    )
    if opened.decoding != decoding:
        raise DatasetError(
            f"{name} is decoded by {opened.decoding} now, but the cache was extracted with {decoding}; "
            "extract it again with this version"
        )
    stored.setdefault("crop_fraction", 1.0)  # a transform without a crop does not keep it
    transform = Transform(**stored | {"mean": tuple(stored["mean"]), "std": tuple(stored["std"])})
    return Annotations(opened, transform, spec)
