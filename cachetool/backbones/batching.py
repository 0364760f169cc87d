"""Images per forward pass where the user names none: as many as a device takes well."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from cachetool.backbones.base import Backbone

MEBIBYTE = 2**20

SIZES: Mapping[str, tuple[int, int]] = {"cpu": (32, 16 * MEBIBYTE), "cuda": (128, 512 * MEBIBYTE)}
"""By device type: the largest batch, and the bytes that the widest activation of a block may have.

On the CPU, half of what the C library of GNU may use again: see `cachetool.backbones.allocation`.
"""

ELSEWHERE = (32, 512 * MEBIBYTE)
"""The same for other devices, such as MPS, where nothing was measured."""


def default_batch_size(backbone: Backbone, device: torch.device) -> int:
    """Images per forward pass of a backbone on a device, a power of two.

    The last three blocks of ViT-S on 64 images, four times, took 7.2 s in batches of 8 on the CPU, 7.4 s in batches of
    16 and 8.4 s in batches of 32, whose widest activation is mapped anew in each block (medians of 6 in turns, on two
    cores). On 2,048 images, four times, they took an H100 0.79 s in batches of 32, 0.73 s in batches of 64 and 0.69 s
    in batches of 128 (medians of 3 in turns).
    """
    widest = max(layer.out_features for layer in backbone.model.blocks[-1].modules() if isinstance(layer, nn.Linear))
    image_bytes = backbone.layout.tokens * widest * 4
    size, most = SIZES.get(device.type, ELSEWHERE)
    while size > 1 and size * image_bytes > most:
        size //= 2
    return size
