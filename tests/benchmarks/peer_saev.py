"""Recording with saev's own recorder and shards; imported only where it is installed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from saev import activations, config


class _Vit(torch.nn.Module):
    """A timm model in the form that saev's recorder takes; all tokens are recorded."""

    name = "timm"

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def get_residuals(self) -> list[torch.nn.Module]:
        return list(self.model.blocks)

    def get_patches(self, tokens: int) -> slice:
        return slice(None)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.model.forward_features(batch)


def record(model: Any, batches: Iterable[torch.Tensor], folder: Path, images: int, tokens: int) -> np.ndarray:
    """Store the outputs of all blocks; returns what was stored, float32 (image, block, token, channel)."""
    blocks, channels = len(model.blocks), model.embed_dim
    recorder = activations.RecordedVisionTransformer(_Vit(model), tokens, False, list(range(blocks)))
    settings = config.Activations(
        data=config.ImageFolderDataset(str(folder)),
        dump_to=str(folder),
        d_vit=channels,
        vit_layers=list(range(blocks)),
        n_patches_per_img=tokens,
        cls_token=False,
        n_patches_per_shard=(images + 1) * blocks * tokens,  # it opens another shard when one is full
    )
    writer = activations.ShardWriter(settings)
    first = 0
    with torch.inference_mode():
        for batch in batches:
            _, states = recorder(batch)
            writer[first : first + len(states)] = states
            first += len(states)
    path, shape = writer.acts_path, writer.shape
    writer.flush()
    for block in model.blocks:
        block._forward_hooks.clear()
    return np.memmap(path, np.float32, "r", shape=shape)[:images]
