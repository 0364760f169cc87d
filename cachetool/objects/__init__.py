"""Object stores as places beside local disks: what has a path, and what can be done with an object."""

from __future__ import annotations

from cachetool.objects.bucket import SCHEMES, Found, Replaced
from cachetool.objects.path import ObjectPath
from cachetool.objects.place import (
    AnyPlace,
    Place,
    is_url,
    on_disk,
    place,
    read_own,
    remove_tree,
    taken,
    tree_bytes,
    worked_on,
    zarr_store,
)

__all__ = [
    "SCHEMES",
    "AnyPlace",
    "Found",
    "ObjectPath",
    "Place",
    "Replaced",
    "is_url",
    "on_disk",
    "place",
    "read_own",
    "remove_tree",
    "taken",
    "tree_bytes",
    "worked_on",
    "zarr_store",
]
