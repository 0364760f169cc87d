"""Change the shape of a store: more images, more token types, extra arrays, more facts.

Every change is prepared so that nothing of it shows, and becomes visible by replacing the root document. Such changes
of one store follow one another (`exclusive`), also between processes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from cachetool.errors import KeyMismatchError, StoreError
from cachetool.objects import AnyPlace, ObjectPath, Place, place
from cachetool.store.atomic import (
    Staged,
    make_folder,
    storage_errors,
    sync_folder,
    temporary_name,
    write_atomically,
    write_file,
)
from cachetool.store.create import image_tables
from cachetool.store.format import COORDINATES, Geometry, ImageTable
from cachetool.store.lock import exclusive
from cachetool.store.metadata import ROOT, Document, Root, encode_document, token_document, write_document
from cachetool.store.object_folders import put_all
from cachetool.store.opened import OpenedStore
from cachetool.store.tables import encode_chunk, encode_table, read_table, table_digest, table_document
from cachetool.tokens import TOKEN_TYPES

Facts = Mapping[str, Any] | Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Facts to merge into those of a store, or what makes them of these."""

RESERVED = {*TOKEN_TYPES, *COORDINATES, "layer", "token_type", "complete", "norm_weight", "norm_bias"}


def extend(path: AnyPlace, *, images: ImageTable | None = None, token_types: Sequence[str] = ()) -> None:
    """Make room for more images and token types; values come with `StoreWriter.write_block`.

    `images` is the new table as a whole and must begin with the images that are there. If the last block was partly
    filled it becomes unfinished, and so has to be written again, with all the states that it is to hold.

    Raises
    ------
    KeyMismatchError
        The new table does not begin with the old one; names what differs.
    StoreError
        The model has no such tokens, or the disk refuses; the store is as it was.
    """
    path = place(path)
    with exclusive(path):
        store = OpenedStore(path)
        old = store.geometry
        if images is not None:
            _check_prefix(path, store.images, images)
        unknown = tuple(name for name in token_types if name not in TOKEN_TYPES)
        new = replace(
            old,
            token_types=tuple(name for name in TOKEN_TYPES if name in {*old.token_types, *token_types}) + unknown,
            images=old.images if images is None else len(images),
        )
        changed: dict[str, Document] = {}
        if images is not None and new.images > old.images:
            changed |= _grown(store, new)
            _write_images(store, changed, images)
        changed |= {name: token_document(new, name) for name in new.token_types if name not in old.token_types}
        for name, document in changed.items():
            make_folder(path / name)
            write_document(path / name, document)
        if changed:
            with storage_errors(path):
                sync_folder(path)
            store.root.arrays.update(changed)
            _renew_digests(store, changed)
            store.root.write()


def _renew_digests(store: OpenedStore, changed: Mapping[str, Document]) -> None:
    """Vouch for the small arrays as they now are; extra arrays have grown by fill values."""
    digests = store.root.about.get("tables", {})
    for name in digests.keys() & changed.keys():
        digests[name] = table_digest(read_table(store.path / name, changed[name]), changed[name])


def _check_prefix(path: Place, old: ImageTable, new: ImageTable) -> None:
    problems = []
    if len(new) < len(old):
        problems.append(f"images: {len(new)} here, {len(old)} there")
    if set(new.columns) != set(old.columns):
        problems.append(f"columns: {', '.join(new.columns)} here, {', '.join(old.columns)} there")
    for name, column in old.columns.items():
        pairs = zip_longest(column, new.columns.get(name, ())[: len(column)])
        differing = [position for position, (there, here) in enumerate(pairs) if there != here]
        if differing:
            first = differing[0]
            problems.append(f"{name} of {len(differing)} images, first {old.image_id[first]}: {column[first]!r} there")
    if problems:
        raise KeyMismatchError(
            f"The images of {path} must come first, in their order, for it to be extended: "
            + "; ".join(problems)
            + ". Choose another --name to keep both."
        )


def _grown(store: OpenedStore, new: Geometry) -> dict[str, Document]:
    """Documents of all arrays over images or blocks, at their new length."""
    changed = {}
    for name, document in store.root.arrays.items():
        sizes = {"image": new.images, "block": new.blocks}
        shape = [sizes.get(dim, size) for dim, size in zip(document["dimension_names"], document["shape"], strict=True)]
        if shape != document["shape"]:
            changed[name] = {**document, "shape": shape}
    return changed


def _write_images(store: OpenedStore, changed: Mapping[str, Document], images: ImageTable) -> None:
    """Write the new part of the image tables, which the old documents hide, and flag the last block as unfinished."""
    start = store.geometry.images
    with Staged() as staged:
        for name, (values, document) in image_tables(images).items():
            for key, chunk in encode_table(values, document, start):
                staged.add(store.path / name / key, [chunk])
        staged.commit()
    last, partly = divmod(start, store.geometry.block)
    if partly:
        document = changed.get("complete", store.root.arrays["complete"])
        flags = store.flags(None)[np.newaxis]
        write_atomically(store.path / "complete" / f"c.{last}.0.0", encode_chunk(flags, document))


def merge_facts(path: Place, facts: Facts) -> None:
    """Merge entries into the facts of a store. Raises `StoreError` where they are not JSON or the disk refuses."""
    with exclusive(path):
        store = OpenedStore(path)
        _merge(store.root, facts)
        store.root.write()


@dataclass(frozen=True)
class SmallArray:
    """An array beside the tokens, such as donors or distances over `image`."""

    data: npt.NDArray[Any]
    dimensions: Sequence[str]
    attributes: Mapping[str, Any] = field(default_factory=dict)


def add_arrays(path: Place, arrays: Mapping[str, SmallArray], facts: Facts | None = None) -> None:
    """Add or replace small arrays, and merge facts that appear with them: a crash leaves each array as it was, absent,
    or new.

    Raises `StoreError` for names or dimensions that do not fit, before anything is changed, or on a full disk.
    """
    if not arrays and facts is None:
        return
    with exclusive(path):
        store = OpenedStore(path)
        root = store.root
        _check_arrays(store, arrays)
        documents = {
            name: table_document(array.data, array.dimensions, attributes=dict(array.attributes))
            for name, array in arrays.items()
        }
        replaced = [name for name in arrays if name in root.arrays]
        for name in replaced:
            del root.arrays[name]
            root.about.get("tables", {}).pop(name, None)
        if replaced:
            root.write()
        for name, array in arrays.items():
            _write_array(path / name, array.data, documents[name])
            root.arrays[name] = documents[name]
            root.about.setdefault("tables", {})[name] = table_digest(array.data, documents[name])
        sync_folder(path)
        _merge(root, facts or {})
        root.write()


def _merge(root: Root, facts: Facts) -> None:
    now = root.about["facts"]
    root.about["facts"] = {**now, **(facts(now) if callable(facts) else facts)}


def _write_array(path: Place, data: npt.NDArray[Any], document: Document) -> None:
    """Put the folder of an array that no root document names in place, as a whole."""
    if isinstance(path, ObjectPath):
        path.remove_tree()
        put_all(path, {ROOT: encode_document(document), **dict(encode_table(data, document))})
        return
    temporary = temporary_name(path)
    try:
        with storage_errors(path):
            shutil.rmtree(path, ignore_errors=True)
            temporary.mkdir()
            write_file(temporary / ROOT, [encode_document(document)])
            for key, chunk in encode_table(data, document):
                write_file(temporary / key, [chunk])
            sync_folder(temporary)
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_arrays(store: OpenedStore, arrays: Mapping[str, SmallArray]) -> None:
    sizes: dict[str, int] = {}
    for name, document in store.root.arrays.items():
        if name not in arrays:
            sizes.update(zip(document["dimension_names"], document["shape"], strict=True))
    problems = []
    for name, array in arrays.items():
        if name in RESERVED or not name.isidentifier():
            reserved = ", ".join(sorted(RESERVED))
            problems.append(f"{name!r} is no free name: expected an identifier other than {reserved}")
        if len(array.dimensions) != array.data.ndim:
            problems.append(f"{name}: {array.data.ndim} dimensions have {len(array.dimensions)} names")
        for dimension, size in zip(array.dimensions, array.data.shape, strict=False):
            if sizes.setdefault(dimension, size) != size:
                problems.append(f"{name}: dimension {dimension} is {sizes[dimension]} elsewhere, and {size} here")
    if problems:
        raise StoreError(f"Arrays do not fit {store.path}: {'; '.join(problems)}.")
