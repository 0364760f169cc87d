"""Images of a run replayed again from the cache's stored state."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cachetool.arithmetic import BOUNDS as ARITHMETIC_BOUNDS
from cachetool.environment import resolve_device
from cachetool.events import Events
from cachetool.replaying import RecordedRun
from cachetool.store import StoreReader
from cachetool.verifying.comparing import NOISE, Comparison
from cachetool.verifying.report import Compared
from cachetool.verifying.sources import open_model


class RunAgain:
    """A run with its cache and model at hand."""

    phase = "replay again"
    batch = 1

    def __init__(
        self, reader: StoreReader, weights: str | Path | None, device: str | None, *, download: bool, events: Events
    ) -> None:
        """Raises as `RecordedRun` and `open_model` do, and `KeyMismatchError` where a replay now is another run."""
        self._reader = reader
        self._run = run = RecordedRun(reader.path, events)
        run.check_key()
        self._backbone = open_model(run.cache.path, run.cache.spec, weights, download=download)
        self._device = resolve_device(device)
        run.arithmetic.check(self._device)
        run.place(self._backbone, self._device)
        # The bound is one of the mean; single values lie several times as far.
        self._noise = max(NOISE, 5 * ARITHMETIC_BOUNDS[run.arithmetic.precision])
        self._edited = reader.array("edited") if reader.spec.facts.get("finished") else None

    def compare(self, images: Iterable[int]) -> list[Compared]:
        """Replay images, and compare their kept states and which tokens are edited."""
        return [self._compare(image) for image in images]

    def _compare(self, image: int) -> Compared:
        reader, spec = self._reader, self._reader.spec
        values, edited = self._run.replay_image(self._backbone, image, self._device)
        comparison = Comparison(image, reader.images.image_id[image], spec.dtype, self._noise)
        for token_type, states in values.items():
            for row, layer in enumerate(spec.layers):
                stored = reader.read(token_type, layer, image, image + 1)[0]
                comparison.add(token_type, layer, states[row].reshape(stored.shape), stored)
        if self._edited is not None and not np.array_equal(self._edited[image], edited):
            return Compared(image, comparison.image_id, "other tokens are edited than `edited` says")
        return comparison.result()
