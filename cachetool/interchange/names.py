"""What the two directions share: version and names of the file's attributes, and where a store lies below its root."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cachetool import objects, places
from cachetool.errors import StoreError

VERSION = 1
"""Version of the file layout that is written, and the newest that is read."""

VERSION_ATTRIBUTE = "cachetool_hdf5"
"""Root attribute that holds the version and tells such a file from others."""

COLUMNS = ("image_id", "content_sha256", "label", "class_name")
"""Columns of the image table."""

OWN = (
    *("cls", "registers", "patches", "layer", "token_type", "complete", "readable", "row", "col"),
    *("norm_weight", "norm_bias", *COLUMNS),
)
"""Data sets with a meaning of their own; all others are arrays that were stored beside the tokens."""

ENCODING_ATTRIBUTE = "_Encoding"
"""Attribute by which netCDF readers know that bytes are text."""

BOOL_ATTRIBUTE = "dtype"
"""Attribute by which xarray knows that int8 means bool, since netCDF has no bool."""

EMPTY_DIMENSION = "This is a netCDF dimension but not a netCDF variable."
"""How netCDF-4 names the scale of a dimension without coordinates; the length follows in ten characters."""

_COMPONENT = re.compile(r"[A-Za-z0-9_+,-][A-Za-z0-9_.+,-]*")


@dataclass(frozen=True)
class Place:
    """Where a store lies below the root."""

    dataset: str
    """Folder of the data set."""
    cache: str
    """Name of the cache, without `.zarr`."""
    run: str | None = None
    """Name of the run, without `.zarr`; None for a cache."""

    @classmethod
    def of(cls, store: objects.Place) -> Place:
        """The place of a store, from the names of its folders."""
        store = store.resolve()
        name = store.name.removesuffix(".zarr")
        if store.parent.name.endswith(".runs"):
            return cls(store.parent.parent.name, store.parent.name.removesuffix(".runs"), name)
        return cls(store.parent.name, name)

    @classmethod
    def parse(cls, text: str) -> Place:
        """The place from `DATASET/CACHE` or `DATASET/CACHE/RUN`. Raises `StoreError` for anything else."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(map(_COMPONENT.fullmatch, parts)):
            raise StoreError(f"expected DATASET/CACHE or DATASET/CACHE/RUN of plain file names, found {text!r}")
        return cls(*parts)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.dataset, self.cache, self.run)))

    def path(self, root: objects.Place) -> objects.Place:
        """Path of the store below a root."""
        cache = root / self.dataset / f"{self.cache}.zarr"
        return cache if self.run is None else places.runs_directory(cache) / f"{self.run}.zarr"
