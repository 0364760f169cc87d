"""An attention followed by an MLP, in parts: for blocks of which not all has to be computed for every token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from timm.layers.attention import Attention, AttentionRope
from timm.models.eva import EvaAttention, EvaBlock
from timm.models.vision_transformer import Block
from torch.nn import functional

from cachetool.backbones.attention import rotate

if TYPE_CHECKING:
    from torch import Tensor


def has_parts(block: Any) -> bool:
    """Whether a block is one attention followed by one MLP; parallel, differential and other blocks are not."""
    return type(block) in (Block, EvaBlock) and type(block.attn) in (Attention, AttentionRope, EvaAttention)


def attend(
    attention: Any,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    asking: Tensor,
    rope: Tensor | None,
    attention_mask: Tensor | None,
    positions: Tensor | None = None,
) -> Tensor:
    """Output (image, query, channel) of an attention.

    Parameters
    ----------
    queries, keys, values
        (image, head, token, channel of the head), before the norms on them.
    asking
        Normalised tokens of the queries, (image, query, channel).
    rope
        Rotary embedding of the patches, where the block has one.
    attention_mask
        bool (image, 1, query, key), True where attention is allowed.
    positions
        Which tokens of the sequence the queries are, int64 (query,), ascending; all by default.
    """
    queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    if rope is not None:
        prefix = attention.num_prefix_tokens
        first, own = prefix, rope
        if positions is not None:
            first = int((positions < prefix).sum())
            own = rope.index_select(-2, positions[first:] - prefix)
        queries = rotate(attention, queries, own, first).type_as(values)
        keys = rotate(attention, keys, rope, prefix).type_as(values)
    groups = attention.num_heads // keys.shape[1]
    if groups > 1:
        keys, values = (part.repeat_interleave(groups, dim=1) for part in (keys, values))
    found = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=attention_mask)
    found = attention.norm(found.transpose(1, 2).flatten(2))
    if getattr(attention, "gate", None) is not None:
        found = found * attention.gate(asking).sigmoid()
    projected: Tensor = attention.proj(found)
    return projected


def add_branches(block: Any, state: Tensor, attended: Tensor) -> Tensor:
    """Tokens (image, token, channel) after a block, from the same tokens before it and what its attention gives."""
    following = state + _scaled(block, 1, attended)
    result: Tensor = following + _scaled(block, 2, block.mlp(block.norm2(following)))
    return result


def _scaled(block: Any, half: int, branch: Tensor) -> Tensor:
    """What a branch adds to the residual stream: layer scale is a module in one family, a parameter in the other."""
    if isinstance(block, Block):
        scaled: Tensor = getattr(block, f"ls{half}")(branch)
        return scaled
    gamma = getattr(block, f"gamma_{half}")
    return branch if gamma is None else gamma * branch
