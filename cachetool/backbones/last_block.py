"""The last block of a pass for those tokens alone that are wanted: all tokens are keys and values, few are queries.

Of a block's products, two thirds are its MLP and a sixth its queries and output projection; a read-out of [CLS] needs
them for one token of 261. Sums run in another order than in the whole block, so results agree within rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from timm.layers.attention import Attention, AttentionRope
from timm.models.eva import EvaAttention, EvaBlock
from timm.models.vision_transformer import Block
from torch.nn import functional

from cachetool.backbones.attention import project, rotate, split_heads

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def run_block_for(
    block: Any, state: Tensor, wanted: Tensor, rope: Tensor | None, attention_mask: Tensor | None
) -> Tensor | None:
    """The wanted tokens (image, wanted token, channel) after a block, from its input (image, token, channel).

    Parameters
    ----------
    wanted
        Positions in the sequence, int64 (wanted token,), ascending.
    rope
        Rotary embedding of the patches, where the block has one.
    attention_mask
        bool (image, 1, query, key), True where attention is allowed.

    Returns
    -------
    None for a block that is not an attention followed by an MLP, which has to be run as a whole.
    """
    if type(block) not in (Block, EvaBlock) or type(block.attn) not in (Attention, AttentionRope, EvaAttention):
        return None
    attended = _attend(block.attn, block.norm1(state), wanted, rope, attention_mask)
    following = state[:, wanted] + _scaled(block, 1, attended)
    result: Tensor = following + _scaled(block, 2, block.mlp(block.norm2(following)))
    return result


def _scaled(block: Any, half: int, branch: Tensor) -> Tensor:
    """What a branch adds to the residual stream: layer scale is a module in one family, a parameter in the other."""
    if isinstance(block, Block):
        scaled: Tensor = getattr(block, f"ls{half}")(branch)
        return scaled
    gamma = getattr(block, f"gamma_{half}")
    return branch if gamma is None else gamma * branch


def _attend(
    attention: Any, tokens: Tensor, wanted: Tensor, rope: Tensor | None, attention_mask: Tensor | None
) -> Tensor:
    """Output (image, wanted token, channel) of an attention whose queries are the wanted tokens."""
    asking = tokens[:, wanted]
    if attention.qkv is None:
        queries, keys, values = (
            split_heads(attention, part(source))
            for part, source in ((attention.q_proj, asking), (attention.k_proj, tokens), (attention.v_proj, tokens))
        )
    else:
        width = attention.qkv.out_features // 3
        queries = split_heads(attention, project(attention, asking, slice(width)))
        keys, values = (
            split_heads(attention, part) for part in project(attention, tokens, slice(width, None)).chunk(2, dim=-1)
        )
    queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    if rope is not None:
        prefix = attention.num_prefix_tokens
        first = int((wanted < prefix).sum())
        own = rope.index_select(-2, wanted[first:] - prefix)
        queries = rotate(attention, queries, own, first).type_as(values)
        keys = rotate(attention, keys, rope, prefix).type_as(values)
    groups = attention.num_heads // keys.shape[1]
    if groups > 1:
        keys, values = (part.repeat_interleave(groups, dim=1) for part in (keys, values))
    mask: torch.Tensor | None = None if attention_mask is None else attention_mask[:, :, wanted]
    found = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    found = attention.norm(found.transpose(1, 2).flatten(2))
    if getattr(attention, "gate", None) is not None:
        found = found * attention.gate(asking).sigmoid()
    projected: Tensor = attention.proj(found)
    return projected
