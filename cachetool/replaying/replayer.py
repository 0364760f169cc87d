"""A cache with its model, opened in one process: what certifies states and replays blocks of edits there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cachetool.arithmetic import Arithmetic
from cachetool.backbones import Backbone, default_batch_size
from cachetool.calibrating import Summarize, summarize_here
from cachetool.environment import describe_environment, resolve_device
from cachetool.events import Events
from cachetool.extraction.halving import Halving
from cachetool.objects import AnyPlace, Place
from cachetool.replaying.arm import Arm
from cachetool.replaying.certificate import certify
from cachetool.replaying.engine import replay_arms
from cachetool.replaying.model import compile_blocks
from cachetool.store import StoreReader


@dataclass(frozen=True)
class Settings:
    """What is the same for all edits of a replay; small, so that it travels to other processes."""

    cache: Place
    """Where the cache lies."""
    token_types: tuple[str, ...]
    """Token types that the runs store."""
    calibration: AnyPlace | None
    """The calibration that was given; None for the cache's own."""
    weights: str | Path | None
    """Weights file, where it has moved since the extraction."""
    device: str | None
    """Name of the device; None for the best that there is."""
    arithmetic: Arithmetic
    """How products are computed."""
    batch_size: int | None
    """Images per forward pass; None for what the device takes well."""


class Replaying(Protocol):
    """What computes a replay: this process (`Replayer`), or others."""

    @property
    def environment(self) -> Mapping[str, Any]:
        """Versions, device and kernels that runs are computed with, to be recorded."""

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""

    @property
    def shared(self) -> bool:
        """Whether other processes write runs, so that their locks are shared with them."""

    @property
    def summarize(self) -> Summarize:
        """What reads the cache for a calibration of its own."""

    def certify(self, from_layer: int) -> dict[str, Any]:
        """The certificate of a state; see `cachetool.replaying.certificate`."""

    def replay(self, arms: Sequence[Arm], keep: Sequence[int]) -> dict[str, Any]:
        """Write all blocks that runs of edits from one state lack, and note what is recorded of all images.

        Runs must be cut into blocks alike. Returns facts to record with them.
        """


class Replayer:
    """Certifies and replays in this process."""

    shared = False
    summarize = staticmethod(summarize_here)

    def __init__(self, settings: Settings, reader: StoreReader, backbone: Backbone, events: Events) -> None:
        """Choose the device. Raises `UnknownNameError` for one that is not here, or lacks the precision asked for."""
        self._settings = settings
        self._reader = reader
        self._backbone = backbone
        self._events = events
        self._device = resolve_device(settings.device)
        self._arithmetic = settings.arithmetic
        self._arithmetic.check(self._device)
        self._placed: int | None = None
        self.environment: Mapping[str, Any] = describe_environment(self._device)
        self.batch_size = settings.batch_size or default_batch_size(backbone, self._device)

    def certify(self, from_layer: int) -> dict[str, Any]:
        """Place the blocks that a replay from a state needs, and certify it. Raises as `certify` does."""
        self._place(from_layer)
        types = self._settings.token_types
        return certify(
            self._backbone, self._reader, from_layer, self._device, token_types=types, arithmetic=self._arithmetic
        )

    def replay(self, arms: Sequence[Arm], keep: Sequence[int]) -> dict[str, Any]:
        """Replay all blocks, one after another."""
        geometry = arms[0].writer.spec.geometry
        self._events.start(f"replay from state {arms[0].edit.from_layer}", geometry.images * len(arms))
        halving = Halving(min(self.batch_size, geometry.block), self._events)
        self.replay_blocks(arms, keep, range(geometry.blocks), halving, self._events)
        return halving.facts

    def replay_blocks(
        self, arms: Sequence[Arm], keep: Sequence[int], blocks: Sequence[int], halving: Halving, events: Events
    ) -> None:
        """Replay some blocks."""
        self._place(arms[0].edit.from_layer)
        replay_arms(
            self._backbone, self._reader, arms, keep, self._settings.token_types,
            blocks=blocks, device=self._device, arithmetic=self._arithmetic, batch_size=self.batch_size,
            halving=halving, events=events,
        )  # fmt: skip

    def _place(self, from_layer: int) -> None:
        """Blocks that were placed for an early start stay there."""
        if from_layer == self._placed:
            return
        self._backbone.place(self._device, first_block=from_layer, embedding=False)
        if self._arithmetic.compiled:
            compile_blocks(self._backbone, from_layer)
        self._placed = from_layer
