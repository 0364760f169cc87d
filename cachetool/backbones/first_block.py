"""The first block of several edits of one state: queries, keys and values of tokens that no edit changes, once for all.

They are a quarter of a block's products with weights, and the same for all tokens but the edited ones, few of many.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cachetool.backbones.attention import project, split_heads
from cachetool.backbones.block_parts import add_branches, attend, has_parts

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Projections:
    """Queries, keys and values of a state in one block, before an edit."""

    parts: tuple[Tensor, ...]
    """What each projection of the block gives, (image, token, head channel): one fused, or three."""
    changed: tuple[Tensor, Tensor] | None = None
    """Image and position of tokens that an edit changed since, int64, each (pair,)."""

    def after_edit(self, image: Tensor, position: Tensor) -> Projections:
        """The same for a state whose tokens at these places were changed."""
        return replace(self, changed=(image, position))


def project_block(block: Any, state: Tensor) -> Projections | None:
    """The projections of a block's input (image, token, channel).

    None for a block that is not an attention followed by an MLP, or whose attention has a gate.
    """
    if not has_parts(block) or getattr(block.attn, "gate", None) is not None:
        return None
    return Projections(_project(block.attn, block.norm1(state)))


def run_projected_block(
    block: Any, state: Tensor, projections: Projections, rope: Tensor | None, attention_mask: Tensor | None
) -> Tensor:
    """The state (image, token, channel) after a block, from its edited input and what was projected before the edit.

    `rope` and `attention_mask` as for `run_block_for`.
    """
    attention, parts = block.attn, projections.parts
    if projections.changed is not None:
        changed = _project(attention, block.norm1(state[projections.changed]))
        parts = tuple(part.index_put(projections.changed, new) for part, new in zip(parts, changed, strict=True))
    if len(parts) == 1:
        parts = parts[0].chunk(3, dim=-1)
    queries, keys, values = (split_heads(attention, part) for part in parts)
    attended = attend(attention, queries, keys, values, state, rope, attention_mask)
    return add_branches(block, state, attended)


def _project(attention: Any, tokens: Tensor) -> tuple[Tensor, ...]:
    if attention.qkv is None:
        return attention.q_proj(tokens), attention.k_proj(tokens), attention.v_proj(tokens)
    return (project(attention, tokens),)
