"""Stores: caches and runs as Zarr v3 groups that are written safely and read at the speed of memory."""

from __future__ import annotations

from cachetool.store.check import check_block, check_flags, check_tables
from cachetool.store.create import create
from cachetool.store.digests import Digests, StateDigests
from cachetool.store.dtypes import DTYPES, beyond_range, from_float32, largest, storage_dtype, to_float32
from cachetool.store.extend import SmallArray, extend
from cachetool.store.format import (
    FORMAT_VERSION,
    ArraySpec,
    Geometry,
    ImageTable,
    NormSpec,
    StoreSpec,
    default_block,
)
from cachetool.store.key import differences, key_digest, undetermined
from cachetool.store.lock import Owner, holds, lock, lock_path
from cachetool.store.memory import empty_for_reading
from cachetool.store.metadata import Root
from cachetool.store.opened import OpenedStore, read_array
from cachetool.store.progress import Part, Progress, progress, share
from cachetool.store.reader import StoreReader
from cachetool.store.records import Record, read_record
from cachetool.store.restore import implied_table, restore_document, restore_table
from cachetool.store.writer import StoreWriter

__all__ = [
    "DTYPES",
    "FORMAT_VERSION",
    "ArraySpec",
    "Digests",
    "Geometry",
    "ImageTable",
    "NormSpec",
    "OpenedStore",
    "Owner",
    "Part",
    "Progress",
    "Record",
    "Root",
    "SmallArray",
    "StateDigests",
    "StoreReader",
    "StoreSpec",
    "StoreWriter",
    "beyond_range",
    "check_block",
    "check_flags",
    "check_tables",
    "create",
    "default_block",
    "differences",
    "empty_for_reading",
    "extend",
    "from_float32",
    "holds",
    "implied_table",
    "key_digest",
    "largest",
    "lock",
    "lock_path",
    "progress",
    "read_array",
    "read_record",
    "restore_document",
    "restore_table",
    "share",
    "storage_dtype",
    "to_float32",
    "undetermined",
]
