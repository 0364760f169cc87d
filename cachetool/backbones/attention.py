"""Attention probabilities of one block, computed from its input: fused kernels never show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from timm.layers.attention import Attention, AttentionRope
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.eva import EvaAttention
from timm.models.vision_transformer import ParallelScalingBlock
from torch.nn import functional

from cachetool.errors import UnsupportedModelError

if TYPE_CHECKING:
    from torch import Tensor


def attention_probabilities(block: Any, state: Tensor, rope: Tensor | None, attention_mask: Tensor | None) -> Tensor:
    """Softmax probabilities (image, head, query, key), float32, of a block on its input (image, token, channel).

    `rope` is the rotary embedding of the patches, `attention_mask` bool (image, 1, query, key), True where attention
    is allowed. Raises `UnsupportedModelError` where a block has no single softmax attention.
    """
    if type(block) is ParallelScalingBlock:
        queries, keys = _parallel_queries_keys(block, state)
        scale = block.scale
    elif type(getattr(block, "attn", None)) in (Attention, AttentionRope, EvaAttention):
        queries, keys = _queries_keys(block.attn, block.norm1(state))
        if rope is not None:
            queries, keys = (
                rotate(block.attn, vectors, rope, block.attn.num_prefix_tokens) for vectors in (queries, keys)
            )
        groups = block.attn.num_heads // keys.shape[1]
        keys = keys.repeat_interleave(groups, dim=1) if groups > 1 else keys
        scale = block.attn.scale
    else:
        raise UnsupportedModelError(
            f"attention maps need blocks with one softmax attention each, found {_describe(block)}; "
            "analyses of the tokens themselves work on this model, those of its attention do not"
        )
    scores: Tensor = (queries.float() * scale) @ keys.float().transpose(-2, -1)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, float("-inf"))
    return scores.softmax(dim=-1)


def _queries_keys(attention: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Project to queries and keys, each (image, head, token, channel of the head), after the norms on them."""
    if attention.qkv is None:
        queries, keys = (split_heads(attention, part(tokens)) for part in (attention.q_proj, attention.k_proj))
    else:
        projected = project(attention, tokens)
        queries, keys, _ = (split_heads(attention, part) for part in projected.chunk(3, dim=-1))
    return attention.q_norm(queries), attention.k_norm(keys)


def project(attention: Any, tokens: Tensor, outputs: slice = slice(None)) -> Tensor:
    """Fused projection of queries, keys and values (image, token, three times head channel), or some of its outputs."""
    bias = attention.qkv.bias
    if getattr(attention, "q_bias", None) is not None:
        bias = torch.cat((attention.q_bias, attention.k_bias, attention.v_bias))
    return functional.linear(tokens, attention.qkv.weight[outputs], None if bias is None else bias[outputs])


def split_heads(attention: Any, projected: Tensor) -> Tensor:
    """(image, token, head channel) to (image, head, token, channel of the head)."""
    heads = projected.reshape(*projected.shape[:2], -1, int(attention.head_dim))
    return heads.transpose(1, 2)


def rotate(attention: Any, vectors: Tensor, rope: Tensor, prefix: int) -> Tensor:
    """Rotate vectors (image, head, token, channel), those of patches after `prefix` others, which have no position."""
    rotated = apply_rot_embed_cat(vectors[:, :, prefix:], rope, half=attention.rotate_half)
    return torch.cat([vectors[:, :, :prefix], rotated], dim=2)


def _parallel_queries_keys(block: Any, state: Tensor) -> tuple[Tensor, Tensor]:
    """Project to queries and keys in a block whose MLP and attention share one input projection."""
    _, queries, keys, _ = torch.split(block.in_proj(block.in_norm(state)), block.in_split, dim=-1)
    return block.q_norm(split_heads(block, queries)), block.k_norm(split_heads(block, keys))


def _describe(block: Any) -> str:
    attention = getattr(block, "attn", None)
    return type(block).__name__ if attention is None else f"{type(block).__name__} with {type(attention).__name__}"
