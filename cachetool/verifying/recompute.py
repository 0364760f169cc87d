"""A sample of the images of a store computed again end to end, and compared with what is stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from cachetool.events import Events
from cachetool.objects import Place
from cachetool.store import OpenedStore, StoreReader
from cachetool.verifying.cache_again import CacheAgain, Held
from cachetool.verifying.comparing import draw_sample
from cachetool.verifying.report import Compared
from cachetool.verifying.run_again import RunAgain


class Again(Protocol):
    """A store that is ready to be computed again."""

    phase: str
    """What is told of it as it goes on."""
    batch: int
    """Images that it takes at a time, at most."""

    def compare(self, images: Mapping[int, Held]) -> list[Compared]:
        """Compute images again, and compare every state that is held of them with what is stored."""


def recompute_sample(
    path: Place,
    kind: str,
    count: int,
    seed: int,
    *,
    damaged: Collection[int],
    weights: str | Path | None,
    device: str | None,
    download: bool,
    events: Events,
) -> list[Compared]:
    """Compute a sample of images of a cache or run again, and compare their states with what is stored.

    Images of `damaged` blocks are not drawn. Raises as `CacheAgain` or `RunAgain`.
    """
    reader = StoreReader(path)
    again: Again
    if kind == "cache":
        again = CacheAgain(reader, weights, device, download=download)
    else:
        again = RunAgain(reader, weights, device, download=download, events=events)
    held = _held(path, damaged)
    sample = draw_sample(list(held), count, seed)
    events.start(again.phase, len(sample))
    found: list[Compared] = []
    for start in range(0, len(sample), again.batch):
        images = sample[start : start + again.batch]
        found += again.compare({image: held[image] for image in images})
        events.advance(len(images))
    return sorted(found, key=lambda one: one.image)


def _held(path: Place, damaged: Collection[int]) -> dict[int, Held]:
    """What each image holds, by position; images of damaged or empty blocks are left out."""
    store = OpenedStore(path)
    found: dict[int, Held] = {}
    for block in range(store.geometry.blocks):
        record = None if block in damaged else store.sound_record(block)
        if record is not None:
            found |= dict.fromkeys(range(record.first, record.last), record.layers)
    return found
