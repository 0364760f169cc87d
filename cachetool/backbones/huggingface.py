"""Names in Hugging Face transformers (Dinov2, Dinov2WithRegisters, DINOv3ViT, ViT), and how they become timm's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from cachetool.backbones.facebook import fold_class_position, split_biases

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

DROPPED = re.compile(r"embeddings\.mask_token|rope_embeddings\..*|pooler\.dense\..*")
"""Tensors without effect on the tokens: masking, values timm computes, and the pooler behind the final norm."""

RENAMED = (
    (r"^(?:model\.|encoder\.)?layer\.", "blocks."),
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.q_proj\.", ".attn.query."),
    (r"\.attention\.k_proj\.", ".attn.key."),
    (r"\.attention\.v_proj\.", ".attn.value."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
)

RENAMED_SCALES_DINOV2 = ((r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),)

RENAMED_DINOV3_GATED = ((r"\.mlp\.gate_proj\.", ".mlp.fc1_g."), (r"\.mlp\.up_proj\.", ".mlp.fc1_x."))

RENAMED_DINOV3 = (
    (r"^register_tokens$", "reg_token"),
    (r"\.layer_scale([12])\.lambda1$", r".gamma_\1"),
    (r"\.mlp\.up_proj\.", ".mlp.fc1."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
)


def recognized(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a vision transformer of Hugging Face transformers."""
    return "embeddings.cls_token" in tensors


def to_timm(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename the tensors to timm's names, with the projections of queries, keys and values fused.

    Raises `WeightsError` where a key of DINOv3 has a bias: timm has no place for one.
    """
    is_dinov3 = any(name.endswith(".attention.o_proj.weight") for name in tensors)
    is_gated = any(name.endswith(".mlp.gate_proj.weight") for name in tensors)
    dinov3_rules = (*(RENAMED_DINOV3_GATED if is_gated else ()), *RENAMED_DINOV3)
    rules = (*RENAMED, *(dinov3_rules if is_dinov3 else RENAMED_SCALES_DINOV2))
    renamed = {}
    for name, tensor in tensors.items():
        if DROPPED.fullmatch(name):
            continue
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        renamed[new] = tensor
    fused = _fuse_projections(renamed)
    return split_biases(fused, source) if is_dinov3 else fold_class_position(fused)


def _fuse_projections(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Concatenate query, key and value of each block; a bias that one of them lacks (DINOv3's keys) is zero."""
    fused = {name: tensor for name, tensor in tensors.items() if not re.search(r"\.attn\.(query|key|value)\.", name)}
    for name, query in tensors.items():
        if ".attn.query." not in name:
            continue
        parts = [tensors.get(name.replace(".query.", f".{part}.")) for part in ("key", "value")]
        if name.endswith(".bias"):
            parts = [torch.zeros_like(query) if part is None else part for part in parts]
        fused[name.replace(".query.", ".qkv.")] = torch.cat([query, *(part for part in parts if part is not None)])
    return fused
