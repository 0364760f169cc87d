"""Position embeddings: resampled to another patch grid as timm does, and described for the key."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from timm.layers.pos_embed import resample_abs_pos_embed

if TYPE_CHECKING:
    from torch import Tensor

INTERPOLATION = "bicubic"
"""The filter with which timm resamples position embeddings, together with antialiasing."""


def fit_position_embedding(tensors: dict[str, Tensor], model: Any) -> tuple[dict[str, Tensor], str]:
    """Bring `pos_embed` (1, token, channel) to the model's patch grid, and describe that for the key.

    A position embedding that is empty or not that of a square grid is left alone, for the check of shapes to name.
    """
    rotary = getattr(model, "rope", None) is not None
    rows, columns = model.patch_embed.grid_size
    embedding = tensors.get("pos_embed")
    if model.pos_embed is None or embedding is None:
        return tensors, f"rotary {rows}x{columns}" if rotary else "none"
    prefix = 0 if model.no_embed_class else int(model.num_prefix_tokens)
    side = math.isqrt(max(embedding.shape[1] - prefix, 0)) if embedding.ndim == 3 and embedding.numel() else 0
    description = f"native {rows}x{columns}"
    if (side, side) != (rows, columns) and side > 0 and side * side + prefix == embedding.shape[1]:
        description = f"resampled {side}x{side} -> {rows}x{columns} ({INTERPOLATION}, antialias)"
        resampled = resample_abs_pos_embed(
            embedding, new_size=[rows, columns], old_size=[side, side], num_prefix_tokens=prefix,
            interpolation=INTERPOLATION, antialias=True,
        )  # fmt: skip
        tensors = {**tensors, "pos_embed": resampled}
    return tensors, f"{description}, rotary {rows}x{columns}" if rotary else description
