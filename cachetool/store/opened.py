"""An existing store as its own documents describe it: what the writer, the reader and the checker share."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cachetool.errors import DamagedError, StoreError
from cachetool.objects import Place
from cachetool.store.documents import is_number, shown
from cachetool.store.format import NORM_TYPES, Geometry, ImageTable, NormSpec, StoreSpec
from cachetool.store.metadata import ROOT, Document, Root
from cachetool.store.object_shard import open_shard
from cachetool.store.records import FileFacts, Record, misfits, read_record
from cachetool.store.shards import Shard
from cachetool.store.tables import Table, check_held, read_table, table_digest


def required_entries(name: str, document: Document) -> int:
    """How many entries of a small array must lie on disk; flags, and what a growth added, may be left to the fill.

    Without this a lost file would read as its fill value: labels as unknown, donors as none.
    """
    if name in ("complete", "readable"):
        return 0
    if name in ImageTable.COLUMNS:
        return int(document["shape"][0])
    return int(document["chunk_grid"]["configuration"]["chunk_shape"][0]) if document["shape"] else 1


def read_array(root: Root, name: str) -> Table:
    """A small array as a whole. Raises `StoreError` for one that is not there, `DamagedError` for damage."""
    if name not in root.arrays:
        raise StoreError(f"{root.path} has the arrays {', '.join(root.arrays)}; no {name!r}.")
    document = root.arrays[name]
    values = read_table(root.path / name, document, required_entries(name, document))
    promised = root.about.get("tables", {}).get(name)
    if promised is not None and table_digest(values, document) != promised:
        raise DamagedError(
            f"{root.path / name} is damaged: its values are not those that {ROOT} vouches for. Put back a copy of"
            " it, or remove the store with `cachetool remove` and make it again."
        )
    return values


class OpenedStore:
    """Geometry, coordinates and done records of a store; tables over images are read when first asked for."""

    def __init__(self, path: Place) -> None:
        """Read the root document and the `layer` coordinate.

        Raises
        ------
        MissingDataError
            There is no store at `path`.
        StoreError
            It is of another format, of a newer version, or of a kind without token arrays.
        DamagedError
            Its documents cannot be read.
        """
        self.path = path
        self.root = Root(path)
        self.root.check_entries()
        # What else is over images may be large without a file behind it: the ids say how many there are.
        ids = self.root.arrays["image_id"]
        check_held(path / "image_id", ids, required_entries("image_id", ids))
        self.geometry: Geometry = self.root.geometry(self.array("layer").tolist())

    def renew(self) -> None:
        """Read the root document again, after its facts or extra arrays were changed."""
        self.root = Root(self.path)

    def array(self, name: str) -> Table:
        """A small array as a whole. Raises `StoreError` for one that is not there, `DamagedError` for damage."""
        return read_array(self.root, name)

    @cached_property
    def images(self) -> ImageTable:
        """The images of the store, in its order."""
        columns = {name: tuple(self.array(name).tolist()) for name in ImageTable.COLUMNS if name in self.root.arrays}
        try:
            return ImageTable(
                image_id=columns["image_id"],
                sha256=columns["content_sha256"],
                label=columns.get("label"),
                class_name=columns.get("class_name"),
            )
        except StoreError as error:
            raise DamagedError(f"{self.path} is damaged: {error}") from error

    @property
    def norm(self) -> NormSpec | None:
        """The model's final normalisation, None where it was not recorded."""
        attributes = self.root.attributes
        if "norm_type" not in attributes:
            return None
        epsilon: Any = attributes.get("norm_epsilon")
        if attributes["norm_type"] not in NORM_TYPES or not is_number(epsilon) or epsilon < 0:
            raise DamagedError(
                f"{self.path / ROOT} is damaged: norm_type must be one of {', '.join(NORM_TYPES)} and norm_epsilon a"
                f" number from 0, found {shown(attributes['norm_type'])} and {shown(epsilon)}."
            )
        vectors = {name: self.array(name) for name in ("norm_weight", "norm_bias") if name in self.root.arrays}
        return NormSpec(
            type=attributes["norm_type"],
            epsilon=attributes["norm_epsilon"],
            weight=vectors.get("norm_weight"),
            bias=vectors.get("norm_bias"),
        )

    def spec(self, *, norm: bool = True) -> StoreSpec:
        """What the store says about itself; without `norm` its vectors are not read."""
        about, geometry = self.root.about, self.geometry
        return StoreSpec(
            kind=about["kind"],
            key=about["key"],
            facts=about["facts"],
            layout=geometry.layout,
            channels=geometry.channels,
            layers=geometry.layers,
            token_types=geometry.token_types,
            dtype=geometry.dtype,
            block=geometry.block,
            images=self.images,
            norm=self.norm if norm else None,
        )

    def shard_name(self, token_type: str, block: int) -> str:
        """Path of a shard relative to the store."""
        return f"{token_type}/{self.geometry.array(token_type).chunk_key(block)}"

    def shard(self, token_type: str, record: Record) -> Shard:
        """A block's shard as its record promises it. Raises `DamagedError`; see `Shard` for what is checked when."""
        name = self.shard_name(token_type, record.block)
        digests = {index: record.state_digests(name, layer) for index, layer in enumerate(self.geometry.layers)}
        promised = {index: found for index, found in digests.items() if found}
        return open_shard(self.path / name, self.geometry.shard_layout(token_type), promised, record.sizes(name))

    def file_facts(self, shard: Shard) -> FileFacts:
        """What a record says about a shard."""
        layers = [(index, layer) for index, layer in enumerate(self.geometry.layers) if shard.has(index, 0)]
        states = {str(layer): shard.state_digest(index) for index, layer in layers}
        return FileFacts(bytes=shard.size, crc32c=shard.digest(), states=states)

    def record(self, block: int) -> Record | None:
        """The record of a block as it is now; None where it is not finished. Raises `DamagedError`."""
        record = read_record(self.path, block, self.geometry)
        return record if record is not None and record.covers(self.geometry) else None

    def sound_record(self, block: int) -> Record | None:
        """The record of a block whose files exist with the recorded sizes; None where the block is to be done again."""
        try:
            record = self.record(block)
        except DamagedError:
            return None
        return None if record is None or misfits(self.path, record) else record

    def flags(self, record: Record | None) -> npt.NDArray[np.bool_]:
        """What a record says is finished, bool (token_type, layer), token types as in `layout.types`."""
        types, layers = self.geometry.layout.types, self.geometry.layers
        flags = np.zeros((len(types), len(layers)), dtype=bool)
        if record is not None:
            for row, token_type in enumerate(types):
                flags[row] = np.isin(layers, record.layers.get(token_type, ()))
        return flags
