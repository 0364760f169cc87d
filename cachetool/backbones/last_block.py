"""The last block of a pass for those tokens alone that are wanted: all tokens are keys and values, few are queries.

Of a block's products, two thirds are its MLP and a sixth its queries and output projection; a read-out of [CLS] needs
them for one token of 261. Sums run in another order than in the whole block, so results agree within rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cachetool.backbones.attention import project, split_heads
from cachetool.backbones.block_parts import add_branches, attend, has_parts

if TYPE_CHECKING:
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
    if not has_parts(block):
        return None
    tokens = block.norm1(state)
    asking = tokens[:, wanted]
    mask = None if attention_mask is None else attention_mask[:, :, wanted]
    queries, keys, values = _project(block.attn, tokens, asking)
    attended = attend(block.attn, queries, keys, values, asking, rope, mask, wanted)
    return add_branches(block, state[:, wanted], attended)


def _project(attention: Any, tokens: Tensor, asking: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of the asking tokens, keys and values of all, each (image, head, token, channel of the head)."""
    parts: tuple[Tensor, ...]
    if attention.qkv is None:
        parts = attention.q_proj(asking), attention.k_proj(tokens), attention.v_proj(tokens)
    else:
        width = attention.qkv.out_features // 3
        queries = project(attention, asking, slice(width))
        parts = queries, *project(attention, tokens, slice(width, None)).chunk(2, dim=-1)
    queries, keys, values = (split_heads(attention, part) for part in parts)
    return queries, keys, values
