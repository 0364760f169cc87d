"""A cache in memory, so that edits are tested against plain NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from cachetool.edits import Calibration
from cachetool.errors import IncompleteError
from cachetool.tokens import TokenLayout


@dataclass(frozen=True)
class FakeImages:
    image_id: tuple[str, ...]
    sha256: tuple[str, ...]
    label: tuple[int, ...] | None = None
    class_name: tuple[str, ...] | None = None


@dataclass
class FakeSources:
    """Intact states as one array (layer, image, token, channel)."""

    states: NDArray[np.float32]
    layout: TokenLayout
    images: FakeImages
    readable: NDArray[np.bool_]
    key_digest: str = "digest"
    calibration: Calibration | None = None
    others: dict[str, FakeSources] = field(default_factory=dict)
    missing: tuple[int, ...] = ()

    @property
    def depth(self) -> int:
        return len(self.states) - 1

    @property
    def channels(self) -> int:
        return self.states.shape[3]

    def tokens(self, layer, token_type, image, token):
        if layer in self.missing:
            raise IncompleteError(f"state {layer} is missing")
        return self.states[layer, image, self.layout.slice(token_type).start + token]

    def other(self, path):
        return self.others[path]


LAYOUT = TokenLayout(cls=1, registers=3, rows=3, columns=4)


@pytest.fixture
def layout() -> TokenLayout:
    return LAYOUT


@pytest.fixture
def make_sources() -> Callable[..., FakeSources]:
    def make(images=7, *, labels=None, names=None, unreadable=(), depth=4, channels=6, seed=0) -> FakeSources:
        states = np.random.default_rng(seed).normal(1, 2, (depth + 1, images, LAYOUT.tokens, channels))
        states[:, list(unreadable)] = np.nan
        readable = np.ones(images, dtype=np.bool_)
        readable[list(unreadable)] = False
        ids = tuple(f"n{index % 3}/{index:03d}.png" for index in range(images))
        table = FakeImages(ids, tuple(f"sha-{name}" for name in ids), labels, names)
        return FakeSources(states.astype(np.float32), LAYOUT, table, readable)

    return make


@pytest.fixture
def calibrated() -> Callable[[FakeSources], FakeSources]:
    """Give sources a calibration over all of their own images, computed here with NumPy alone."""

    def calibrate(sources: FakeSources) -> FakeSources:
        states = sources.states[:, sources.readable].astype(np.float64)
        parts = {name: states[:, :, sources.layout.slice(name)] for name in sources.layout.types}
        arrays = {
            "layer": np.arange(len(states)),
            "image_id": np.array(sources.images.image_id, dtype=object)[sources.readable],
            "content_sha256": np.array(sources.images.sha256, dtype=object)[sources.readable],
        }
        for name, part in parts.items():
            axes = {"cls": (1, 2), "registers": (1,), "patches": (1, 2)}[name]
            arrays[f"{name}_mean"] = part.mean(axis=axes)
            arrays[f"{name}_variance"] = part.var(axis=axes)
            arrays[f"{name}_count"] = np.array(part.shape[1] * (part.shape[2] if name == "patches" else 1))
        if sources.images.label is not None:
            labels = np.array(sources.images.label)[sources.readable]
            classes = np.unique(labels)
            arrays |= {"label": labels, "class": classes}
            if sources.images.class_name is not None:
                named = dict(zip(sources.images.label, sources.images.class_name, strict=True))
                arrays["class_name"] = np.array([named[label] for label in classes], dtype=object)
            for name, part in parts.items():
                means = np.stack([part[:, labels == label].mean(axis=1) for label in classes], axis=1)
                pooled = {"cls": means[:, :, 0], "registers": means, "patches": means.mean(axis=2)}[name]
                arrays[f"{name}_class_mean"] = pooled.astype(np.float32)
        sources.calibration = Calibration(arrays, {"architecture": "fake"}, {})
        return sources

    return calibrate
