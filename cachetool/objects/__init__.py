"""What is named by a URL as places beside local disks: what has a path, and what can be done with an object."""

from __future__ import annotations

from cachetool.objects.bucket import SCHEMES
from cachetool.objects.path import ObjectPath
from cachetool.objects.place import (
    AnyPlace,
    Place,
    check_writable,
    is_url,
    listed,
    on_disk,
    place,
    read_own,
    remove_tree,
    taken,
    tree_bytes,
    worked_on,
    zarr_store,
)
from cachetool.objects.source import Found, Replaced
from cachetool.objects.website import WEB

__all__ = [
    "SCHEMES",
    "WEB",
    "AnyPlace",
    "Found",
    "ObjectPath",
    "Place",
    "Replaced",
    "check_writable",
    "is_url",
    "listed",
    "on_disk",
    "place",
    "read_own",
    "remove_tree",
    "taken",
    "tree_bytes",
    "worked_on",
    "zarr_store",
]
