"""What makes hundreds of extractions and replays of small models quick enough to test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest

from cachetool.backbones import Backbone, load


@cache
def _embedded(image_size: int | None) -> Backbone:
    return load("tiny-reg", image_size=image_size)


def quick_load(name: str, *, weights: Any = None, image_size: int | None = None) -> Backbone:
    """The embedded model, loaded once; any other as it is loaded otherwise."""
    if name == "tiny-reg" and weights is None:
        return _embedded(image_size)
    return load(name, weights=weights, image_size=image_size)


@contextmanager
def quick() -> Iterator[None]:
    """Load the embedded model once, and leave to other tests whether bytes survive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr("cachetool.extraction.request.load", quick_load)
        patch.setattr("cachetool.replaying.model.load", quick_load)
        yield
