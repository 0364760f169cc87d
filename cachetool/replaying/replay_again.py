"""A run as it describes itself: its edit, what it was replayed with, and the same replay once more."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cachetool import places
from cachetool.arithmetic import Arithmetic
from cachetool.backbones import Backbone
from cachetool.edits import Edit
from cachetool.errors import InvalidEditError, KeyMismatchError
from cachetool.events import Events, Silent
from cachetool.images import image_digest
from cachetool.objects import Place
from cachetool.replaying.arm import EditInHand
from cachetool.replaying.calibrations import OWN, Calibrations
from cachetool.replaying.engine import replay_image
from cachetool.replaying.model import compile_blocks
from cachetool.replaying.replay import replay_edits
from cachetool.replaying.runs import Run, run_key
from cachetool.replaying.sources import CacheSources
from cachetool.store import StoreReader, StoreSpec, differences


class RecordedRun:
    """A stored run and the cache beside it, ready to be replayed again as it was."""

    def __init__(self, path: Place, events: Events | None = None) -> None:
        """Open both. Raises `MissingDataError` where the cache is gone, and as `StoreReader` does."""
        self.path = path
        self.spec: StoreSpec = StoreReader(path).spec
        if self.spec.kind != "run":
            raise InvalidEditError(f"{path} is a {self.spec.kind}, not a run; name a store that was replayed")
        self.cache = StoreReader(places.cache_of_run(path))
        self.edit = Edit(**self.spec.key["edit"])
        certificate = self.spec.facts["certificate"]
        self.arithmetic = Arithmetic(certificate["precision"], certificate["compiled"])
        described = self.spec.facts.get("calibration")
        named = None if described is None else str(described["path"])
        self.calibration = None if named in (None, OWN) else named
        """Path of the calibration that was given; None for the cache's own, or for none."""
        self._events = events or Silent()

    @cached_property
    def _calibrations(self) -> Calibrations:
        return Calibrations(self.cache, self.calibration, self._events)

    @cached_property
    def _sources(self) -> CacheSources:
        return CacheSources(self.cache, self._calibrations.maker(self.edit))

    @cached_property
    def _hand(self) -> EditInHand:
        return EditInHand(self.edit, self._sources, lambda: self._calibrations.meter(self.edit))

    def check_key(self) -> None:
        """Make sure that a replay now would be this very run.

        Raises
        ------
        KeyMismatchError
            It would be another one; names the parts of the key that differ.
        MissingDataError
            Its calibration, or a second cache that it draws from, is gone.
        """
        if self.spec.key["images"] != image_digest(self.cache.spec.images):
            raise KeyMismatchError(
                f"{self.path} was made of {len(self.spec.images)} images, {self.cache.path} holds "
                f"{len(self.cache.spec.images)} now; draws are over all of them, so that a replay now is another run"
            )
        now = run_key(
            self.cache, self.edit, self._sources, self.spec.key["keep"], self.spec.token_types, self._calibrations,
            self.arithmetic,
        )  # fmt: skip
        if different := differences(now, self.spec.key):
            raise KeyMismatchError(
                f"a replay now ('here') would be another run than {self.path} ('there'): {'; '.join(different)}"
            )

    def replay_image(
        self, backbone: Backbone, image: int, device: torch.device
    ) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.bool_]]:
        """One image of the run computed again, and which of its tokens the edit selects, bool (token,).

        Values are (layer, 1[, token], channel) by token type in storage dtype, layers as in the run.
        """
        found = replay_image(
            backbone, self.cache, self._hand, image, self.spec.layers, self.spec.token_types,
            device=device, arithmetic=self.arithmetic,
        )  # fmt: skip
        return found, self._hand.edited[image]

    def place(self, backbone: Backbone, device: torch.device) -> None:
        """Bring the blocks that the run needs to a device, compiled where it was."""
        backbone.place(device, first_block=self.edit.from_layer, embedding=False)
        if self.arithmetic.compiled:
            compile_blocks(backbone, self.edit.from_layer)

    def replay(self, *, weights: str | Path | None = None, device: str | None = None, batch_size: int | None) -> Run:
        """Replay what the run lacks; see `replay_edits`."""
        (run,) = replay_edits(
            self.cache.path,
            [self.edit],
            keep=self.spec.layers,
            keep_tokens=self.spec.token_types,
            calibration=self.calibration,
            weights=weights,
            device=device,
            precision=self.arithmetic.precision,
            compiled=self.arithmetic.compiled,
            batch_size=batch_size,
            events=self._events,
        )
        return run
