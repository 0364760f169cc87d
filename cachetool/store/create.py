"""Make a new, empty store: complete under a temporary name, then renamed, so that nobody ever sees half a store.

In an object store its root document, without which there is no store, is put last.
"""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np

from cachetool.errors import StoreError
from cachetool.objects import AnyPlace, ObjectPath, place
from cachetool.store.atomic import (
    remove_leftovers,
    storage_errors,
    sync_folder,
    sync_folders,
    temporary_name,
    write_file,
)
from cachetool.store.format import TABLE_CHUNK, ImageTable, StoreSpec
from cachetool.store.metadata import (
    ROOT,
    Document,
    array_document,
    coordinates,
    encode_document,
    root_attributes,
    root_document,
    token_document,
)
from cachetool.store.object_folders import make_whole
from cachetool.store.records import records_folder
from cachetool.store.tables import Table, encode_table, table_digest, table_document


def create(path: AnyPlace, spec: StoreSpec) -> None:
    """Make an empty store at `path`, with its parent folders: every array declared, no block finished.

    Raises `StoreError` where something is there already, where the disk refuses, or for a spec that cannot be stored.
    """
    path = place(path)
    tables = _tables(spec)
    arrays = {name: document for name, (_values, document) in tables.items()} | declared_arrays(spec)
    arrays = {name: arrays[name] for name in sorted(arrays)}
    attributes = root_attributes(spec) | {"coordinates": coordinates(arrays)}
    attributes["cachetool"]["tables"] = {name: table_digest(*table) for name, table in tables.items()}
    root = root_document(attributes, arrays)
    encoded = {name: encode_document(document) for name, document in arrays.items()} | {"": encode_document(root)}
    if isinstance(path, ObjectPath):
        files = {f"{name}/{ROOT}" if name else ROOT: text for name, text in encoded.items()}
        for name, (values, document) in tables.items():
            files |= {f"{name}/{key}": chunk for key, chunk in encode_table(values, document)}
        make_whole(path, files)
        return
    if path.exists():
        raise StoreError(f"Cannot make a store at {path}: something is there already. Remove it, or choose a --name.")
    temporary = temporary_name(path)
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent, path.name)
            shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had the number of this one
            records_folder(temporary).mkdir(parents=True)
            for name, text in encoded.items():
                folder = temporary / name
                folder.mkdir(exist_ok=True)
                write_file(folder / ROOT, [text])
            for name, (values, document) in tables.items():
                for key, chunk in encode_table(values, document):
                    write_file(temporary / name / key, [chunk])
            sync_folders(temporary)
            temporary.rename(path)
            sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def image_tables(images: ImageTable) -> dict[str, tuple[Table, Document]]:
    """The coordinate arrays that an image table becomes, with their documents."""
    tables: dict[str, tuple[Table, Document]] = {}
    for name, column in images.columns.items():
        values = np.array(column, dtype=np.int64 if name == "label" else object)
        tables[name] = (values, table_document(values, ("image",), TABLE_CHUNK))
    return tables


def _tables(spec: StoreSpec) -> dict[str, tuple[Table, Document]]:
    """The small arrays of a new store that hold values from the start."""
    layout = spec.layout
    rows, columns = np.divmod(np.arange(layout.patches, dtype=np.int64), layout.columns)
    fixed: dict[str, tuple[Table, str]] = {
        "layer": (np.array(spec.layers, dtype=np.int64), "layer"),
        "token_type": (np.array(layout.types, dtype=object), "token_type"),
        "row": (rows, "patch"),
        "col": (columns, "patch"),
    }
    if spec.norm is not None:
        for name, vector in (("norm_weight", spec.norm.weight), ("norm_bias", spec.norm.bias)):
            if vector is not None:
                fixed[name] = (np.asarray(vector, dtype=np.float32), "channel")
    tables = {name: (values, table_document(values, (dimension,))) for name, (values, dimension) in fixed.items()}
    return image_tables(spec.images) | tables


def declared_arrays(spec: StoreSpec) -> dict[str, Document]:
    """Documents of the arrays that are filled block by block."""
    geometry = spec.geometry
    flags: dict[str, Any] = {
        "complete": array_document(
            (geometry.blocks, len(geometry.layout.types), len(geometry.layers)),
            (1, len(geometry.layout.types), len(geometry.layers)),
            "bool",
            False,
            ("block", "token_type", "layer"),
        ),
        "readable": array_document((geometry.images,), (geometry.block,), "bool", True, ("image",)),
    }
    return flags | {name: token_document(geometry, name) for name in geometry.token_types}
