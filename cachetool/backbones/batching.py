"""Images per forward pass where the user names none: as many as a device takes well."""

from __future__ import annotations

import torch
from torch import nn

from cachetool.backbones.base import Backbone

LARGEST = 32
"""Images per forward pass where memory does not matter."""

KEPT_BYTES = 16 * 2**20
"""Widest activation of a block on the CPU, half of what the C library of GNU may use again: see
`cachetool.backbones.allocation`."""


def default_batch_size(backbone: Backbone, device: torch.device) -> int:
    """Images per forward pass of a backbone on a device, a power of two.

    On the CPU the widest activation of a block stays at or under 16 MiB: the last three blocks of ViT-S on 64 images,
    four times, took 7.2 s in batches of 8, 7.4 s in batches of 16 and 8.4 s in batches of 32, whose widest activation
    is mapped anew in each block (medians of 6 in turns, on two cores).
    """
    if device.type != "cpu":
        return LARGEST
    widest = max(layer.out_features for layer in backbone.model.blocks[-1].modules() if isinstance(layer, nn.Linear))
    image_bytes = backbone.layout.tokens * widest * 4
    size = LARGEST
    while size > 1 and size * image_bytes > KEPT_BYTES:
        size //= 2
    return size
