"""One arm of a replay: an edit, the run it becomes, and what is recorded per image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from cachetool.edits import Edit, Replacement, Selection
from cachetool.edits.meter import Distances, Meter, own_images, per_image
from cachetool.replaying.sources import CacheSources
from cachetool.store import Owner, SmallArray, StoreWriter, lock


@dataclass(frozen=True)
class PreparedEdit:
    """An edit of one block, ready to be carried out: all that comes from disk or a random stream is in memory."""

    selection: Selection
    """The selected tokens of the block."""
    values: dict[int, npt.NDArray[np.float32]]
    """What is put in or added, by state, (pair, channel); empty for attention edits."""


@dataclass(frozen=True)
class Notes:
    """What is recorded of some images under an edit."""

    edited: npt.NDArray[np.bool_]
    """Whether each token was selected, (image, token)."""
    distances: dict[str, npt.NDArray[np.float64]]
    """Columns of `Distances`, each (image,); NaN where nothing was put in."""


class EditInHand:
    """An edit that is carried out block by block, with what is recorded of each image."""

    def __init__(self, edit: Edit, sources: CacheSources, meter: Callable[[], Meter]) -> None:
        """Begin; `meter` gives the meter of the edit's calibration, once something is to be measured."""
        self.edit = edit
        self.replacement: Replacement = edit.build()
        self._sources = sources
        self._meter = meter
        self._readable = sources.readable
        images = len(sources.images)
        self._edited = np.zeros((images, sources.layout.tokens), dtype=np.bool_)
        self._distances = {field.name: np.full(images, np.nan) for field in fields(Distances)}

    @property
    def edited(self) -> npt.NDArray[np.bool_]:
        """Whether each token was selected, bool (image, token), of the images that were prepared."""
        return self._edited

    def notes(self, images: slice) -> Notes:
        """What was recorded of some images when they were prepared."""
        return Notes(self._edited[images], {name: column[images] for name, column in self._distances.items()})

    def note(self, images: slice, notes: Notes) -> None:
        """Record what `notes` gave in another process, where these images were prepared."""
        self._edited[images] = notes.edited
        for name, column in notes.distances.items():
            self._distances[name][images] = column

    @property
    def measures(self) -> bool:
        """Whether tokens are put in, so that their distance from natural ones means something."""
        return self.replacement.kind in ("values", "add")

    def prepare(
        self, state: npt.NDArray[np.float32], first: int, image_ids: Sequence[str], last_layer: int
    ) -> PreparedEdit:
        """Select tokens on the intact state k of a block and fetch their values; record mask and distances.

        Parameters
        ----------
        state
            Intact state k, (image, token, channel).
        first
            Index in the cache of the block's first image.
        image_ids
            Ids of the block's images.
        last_layer
            The last state that is computed; later edits would not be seen.
        """
        readable = self._readable[first : first + len(image_ids)]
        selection = self.edit.select(self._sources.layout, state, image_ids, readable)
        images = selection.image + first
        self._edited[first : first + len(image_ids)] = selection.mask(self._sources.layout.tokens)
        if not self.measures:
            return PreparedEdit(selection, {})
        layers = [layer for layer in self.edit.edited_layers(self._sources.depth) if layer <= last_layer]
        values = {
            layer: self.replacement.values(self._sources, self.edit, layer, images, selection) for layer in layers
        }
        self._measure(state, images, first, selection, values[self.edit.from_layer])
        return PreparedEdit(selection, values)

    def _measure(
        self,
        state: npt.NDArray[np.float32],
        images: npt.NDArray[np.int64],
        first: int,
        selection: Selection,
        values: npt.NDArray[np.float32],
    ) -> None:
        if len(selection) == 0:
            return
        layer = self.edit.from_layer
        injected = values
        if self.replacement.kind == "add":
            injected = state[selection.image, selection.position] + values
        exclude = own_images(self._sources.images, images, self.replacement.donors(self._sources, self.edit, layer))
        measured = self._meter().measure(layer, selection, injected, exclude)
        averages = per_image(measured, selection.image, selection.images)
        for name, column in self._distances.items():
            column[first : first + selection.images] = getattr(averages, name)

    def _donors(self) -> npt.NDArray[np.int64] | None:
        """Donor per image, (image,), or per image and edited state where they differ between states."""
        layers = self.edit.edited_layers(self._sources.depth)
        if not self.edit.fresh_per_layer:
            return self.replacement.donors(self._sources, self.edit, layers[0])
        columns = [self.replacement.donors(self._sources, self.edit, layer) for layer in layers]
        known = [column for column in columns if column is not None]
        return np.stack(known, axis=1) if known else None


class Arm(EditInHand):
    """An edit on its way to a run store."""

    def __init__(self, edit: Edit, sources: CacheSources, writer: StoreWriter, meter: Callable[[], Meter]) -> None:
        super().__init__(edit, sources, meter)
        self.writer = writer
        self.path = writer.path
        self.owner: Owner | None = None
        """Who holds the lock of the run, while it is held."""

    @contextmanager
    def locked(self, *, shared: bool) -> Iterator[None]:
        """Hold the lock of the run; see `cachetool.store.lock`."""
        with lock(self.path, "replay", shared=shared) as self.owner:
            yield

    def stale(self, read: dict[str, Any]) -> bool:
        """Whether the run was made from other values than are read now: digests of `cachetool.replaying.reading`."""
        return bool(self.writer.spec.facts.get("read", read) != read)

    def start_over(self, read: dict[str, Any]) -> None:
        """Give up what is stored of the run, and record what it will be made from."""
        for block in range(self.writer.spec.geometry.blocks):
            self.writer.discard(block)
        self.writer.update_facts({"read": read, "finished": False})

    def finish(self, facts: dict[str, Any]) -> None:
        """Write the arrays over images and the facts; the run is complete once this returns."""
        arrays = {
            "edited": SmallArray(
                self._edited, ("image", "token"), {"description": "whether the edit selected the token"}
            )
        }
        donors = self._donors()
        if donors is not None:
            arrays["donor"] = SmallArray(
                donors,
                ("image",) if donors.ndim == 1 else ("image", "edited_layer"),
                {"description": "index of the image whose tokens were put in, -1 for none"},
            )
        if self.measures:
            for name, values in self._distances.items():
                description = f"{name.replace('_', ' ')} of the injected tokens, see cachetool.edits.meter"
                arrays[f"off_distribution_{name}"] = SmallArray(values, ("image",), {"description": description})
        self.writer.write_image_arrays(arrays, {**facts, "finished": True})
