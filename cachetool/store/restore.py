"""Mend documents and small arrays of a store from what else it says: the root document, or values that were found."""

from __future__ import annotations

import numpy as np

from cachetool.errors import StoreError
from cachetool.objects import Place
from cachetool.store.atomic import Staged, make_folder, storage_errors, sync_folder
from cachetool.store.lock import exclusive
from cachetool.store.metadata import Root, write_document
from cachetool.store.tables import Table, encode_table
from cachetool.tokens import TokenLayout


def restore_document(path: Place, name: str) -> None:
    """Write the document of an array again from the copy in the root document. Raises `StoreError`."""
    with exclusive(path):
        folder = path / name
        make_folder(folder)
        write_document(folder, Root(path).arrays[name])
        with storage_errors(path):
            sync_folder(path)


def restore_table(path: Place, name: str, values: Table) -> None:
    """Write all chunks of a small array again. Raises `StoreError` for values of another shape than the document's."""
    with exclusive(path):
        document = Root(path).arrays[name]
        if list(values.shape) != document["shape"]:
            raise StoreError(f"{name} of {path} has the shape {document['shape']}; {list(values.shape)} was found.")
        with Staged() as staged:
            for key, chunk in encode_table(values, document):
                staged.add(path / name / key, [chunk])
            staged.commit()


def implied_table(path: Place, name: str) -> Table | None:
    """A small array that follows from the root document alone; None for any other."""
    root = Root(path)
    layout = TokenLayout(**root.about["layout"])
    if name == "token_type":
        return np.array(layout.types, dtype=object)
    if name in ("row", "col"):
        rows, columns = np.divmod(np.arange(layout.patches, dtype=np.int64), layout.columns)
        return rows if name == "row" else columns
    if name == "layer":
        states = root.about["key"]["keep"] if root.about["kind"] == "run" else range(root.arrays[name]["shape"][0])
        return np.array(states, dtype=np.int64)
    return None
