"""The storage-error budget: how far final tokens move when a state is replayed from its rounded copy."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cachetool.backbones import Backbone
from cachetool.extraction.buffers import TORCH_DTYPES

MOST_IMAGES = 4
"""The error of state 0 scatters by a third between photographs."""
SHARE = 0.02
"""Of an extraction's forward passes, at most, that measuring may take; one image is always measured."""


def measured_images(images: int, layers: Sequence[int], depth: int) -> int:
    """How many images to measure: each takes a forward pass, and for every state the blocks above it."""
    return max(1, min(MOST_IMAGES, images, int(SHARE * images / forward_passes(layers, depth))))


def forward_passes(layers: Sequence[int], depth: int) -> float:
    """Forward passes that measuring one image takes."""
    return 1 + sum(depth - layer for layer in layers) / depth


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the difference over the root mean square of what was expected, in float64."""
    difference = (found.double() - expected.double()).square().mean().sqrt()
    return float(difference / expected.double().square().mean().sqrt())


def storage_error(
    backbone: Backbone, images: torch.Tensor, layers: Sequence[int], token_types: Sequence[str], dtype: str
) -> dict[str, float]:
    """Relative error of the final normalised tokens when each state is replayed from its rounded copy.

    Parameters
    ----------
    images
        (image, rgb, row, column) float32, normalised, on the backbone's device.
    layers
        States to round, one at a time.
    token_types
        Token types that are stored, and so rounded; the others, which need not fit the storage dtype, stay exact.
    dtype
        Storage dtype that rounds them.

    Returns
    -------
    Relative root-mean-square error by state (its number as text, ready for JSON).
    """
    states: dict[int, torch.Tensor] = {}

    def keep(layer: int, state: torch.Tensor) -> torch.Tensor:
        states[layer] = state
        return state

    with torch.inference_mode():
        exact = backbone.normalize(backbone.run(backbone.embed(images), 0, backbone.depth, keep))
        errors = {}
        for layer in layers:
            rounded = states[layer].clone()
            for name in token_types:
                tokens = rounded[:, backbone.layout.slice(name)]
                tokens.copy_(tokens.to(TORCH_DTYPES[dtype]))
            found = backbone.normalize(backbone.run(rounded, layer, backbone.depth))
            errors[str(layer)] = relative_error(found, exact)
    return errors
