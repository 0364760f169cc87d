"""Random weights under which every part of a model acts: for tests, plans and trials without a checkpoint."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


def random_weights(model: Any, seed: int) -> dict[str, Tensor]:
    """Float32 tensors for every name of a model's `state_dict`, the same for the same seed on every CPU.

    timm's own initial values leave LayerScale near zero and registers alike, so that no edit would show. Here matrices
    keep the scale of their input, norms and LayerScale lie near one, and tokens and positions differ from each other.
    """
    return {name: _draw(name, tuple(tensor.shape), seed) for name, tensor in model.state_dict().items()}


def _draw(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    key = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
    values = torch.randn(shape, generator=generator)
    if name in ("cls_token", "reg_token", "pos_embed"):
        return values * 0.5
    if len(shape) > 1 and not name.startswith("rope."):
        return values / math.sqrt(math.prod(shape[1:]))
    if name.startswith("rope."):
        return values
    if "norm" in name and name.endswith("weight"):
        return 1.0 + 0.1 * values
    if "gamma" in name:
        return 0.5 + 0.1 * values
    return values * 0.1
