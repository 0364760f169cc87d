"""timm's `Eva`: DINOv3, and other vision transformers with rotary position embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cachetool.backbones.base import Backbone
from cachetool.tokens import TokenLayout

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from cachetool.backbones.base import Identity


class EvaBackbone(Backbone):
    """A timm `Eva`, whose blocks rotate queries and keys of the patches by their positions."""

    def __init__(self, model: Any, identity: Identity) -> None:
        super().__init__(model, identity)
        self._rotary = self._compute_rope()

    def _read_layout(self) -> TokenLayout:
        rows, columns = self.model.patch_embed.grid_size
        registers = 0 if self.model.reg_token is None else int(self.model.reg_token.shape[1])
        return TokenLayout(cls=int(self.model.cls_token is not None), registers=registers, rows=rows, columns=columns)

    def _compute_rope(self) -> Tensor | None:
        """Rotary embedding (patch, sine and cosine), or (block, head, patch, sine and cosine) for a mixed one.

        Chosen as `Eva._pos_embed` chooses it, so that the values are the same bits: from the buffer that the model
        keeps for a fixed size, from the grid where it takes images of any size or keeps none.
        """
        rope = self.model.rope
        if rope is None:
            return None
        cached = not self.model.dynamic_img_size and hasattr(rope, "feat_shape")
        embedding: Tensor = rope.get_embed() if cached else rope.get_embed(shape=self.model.patch_embed.grid_size)
        return embedding.detach()

    def _embed(self, images: Tensor) -> Tensor:
        sequence, _ = self.model._pos_embed(self.model.patch_embed(images))
        state: Tensor = self.model.norm_pre(sequence)
        return state

    def _run_block(self, block: int, state: Tensor, attention_mask: Tensor | None) -> Tensor:
        following: Tensor = self.model.blocks[block](state, rope=self._rope(block), attn_mask=attention_mask)
        return following

    def _rope(self, block: int) -> Tensor | None:
        if self._rotary is None:
            return None
        return self._rotary[block] if self.model.rope_mixed else self._rotary

    def _embedding_modules(self) -> tuple[nn.Module, ...]:
        return (self.model.patch_embed, self.model.norm_pre)

    def place(self, device: torch.device | str, first_block: int = 0, *, embedding: bool = True) -> None:
        """Move blocks `first_block`.. as every backbone does, and the rotary embedding that each of them needs."""
        super().place(device, first_block, embedding=embedding)
        if self.model.rope is not None:
            self.model.rope.to(device)
            self._rotary = self._compute_rope()
