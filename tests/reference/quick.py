"""What makes hundreds of extractions and replays of small models quick enough to test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import pytest

from cachetool.backbones import Backbone, load
from cachetool.datasets.scenes import Scene, draw_scene
from cachetool.replaying.model import compile_blocks


@cache
def _embedded(image_size: int | None) -> Backbone:
    return load("tiny-reg", image_size=image_size)


def quick_load(name: str, *, weights: Any = None, image_size: int | None = None) -> Backbone:
    """The embedded model, loaded once; any other as it is loaded otherwise."""
    if name == "tiny-reg" and weights is None:
        return _embedded(image_size)
    return load(name, weights=weights, image_size=image_size)


def quick_compile_blocks(backbone: Backbone, first_block: int) -> None:
    """Leave the model to whoever compiles it: replays that load it afterwards would round as its blocks do."""
    _embedded.cache_clear()
    compile_blocks(backbone, first_block)


@lru_cache(maxsize=2000)
def quick_scene(split: str, index: int, *, size: int) -> Scene:
    """A scene, which is drawn once: 64 kB are kept of each."""
    scene = draw_scene(split, index, size=size)
    for array in (scene.image, scene.mask, scene.keypoints, scene.visible):
        array.flags.writeable = False
    return scene


@contextmanager
def quick() -> Iterator[None]:
    """Load the model and draw scenes once, time one pass, and leave to others whether bytes survive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr("cachetool.extraction.request.load", quick_load)
        patch.setattr("cachetool.replaying.model.load", quick_load)
        for module in ("replayer", "replay_again"):
            patch.setattr(f"cachetool.replaying.{module}.compile_blocks", quick_compile_blocks)
        patch.setattr("cachetool.datasets.shapes.draw_scene", quick_scene)
        patch.setattr("cachetool.plan.measuring.TIMED_PASSES", 1)
        yield
