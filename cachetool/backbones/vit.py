"""timm's `VisionTransformer`: DINOv2 with and without registers, and most other plain vision transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachetool.backbones.base import Backbone
from cachetool.tokens import TokenLayout

if TYPE_CHECKING:
    from torch import Tensor, nn


class VisionTransformerBackbone(Backbone):
    """A timm `VisionTransformer`, whose positions enter through the embedding alone."""

    def _read_layout(self) -> TokenLayout:
        rows, columns = self.model.patch_embed.grid_size
        return TokenLayout(
            cls=int(self.model.has_class_token), registers=int(self.model.num_reg_tokens), rows=rows, columns=columns
        )

    def _embed(self, images: Tensor) -> Tensor:
        patches = self.model.patch_embed(images)
        sequence = self.model.patch_drop(self.model._pos_embed(patches))
        state: Tensor = self.model.norm_pre(sequence)
        return state

    def _run_block(self, block: int, state: Tensor, attention_mask: Tensor | None) -> Tensor:
        following: Tensor = self.model.blocks[block](state, attn_mask=attention_mask)
        return following

    def _rope(self, block: int) -> Tensor | None:
        return None

    def _embedding_modules(self) -> tuple[nn.Module, ...]:
        return (self.model.patch_embed, self.model.norm_pre)
