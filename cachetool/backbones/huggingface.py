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

RENAMED_DINOV2 = (
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.gate_proj\.", ".mlp.gate."),  # apart in a model of transformers 5, in one matrix as it saves it
    (r"\.mlp\.up_proj\.", ".mlp.value."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
)

RENAMED_DINOV3_GATED = ((r"\.mlp\.gate_proj\.", ".mlp.fc1_g."), (r"\.mlp\.up_proj\.", ".mlp.fc1_x."))

RENAMED_DINOV3 = (
    (r"^register_tokens$", "reg_token"),
    (r"\.layer_scale([12])\.lambda1$", r".gamma_\1"),
    (r"\.mlp\.up_proj\.", ".mlp.fc1."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
)


JOINED = {".attn.": (("query", "key", "value"), "qkv"), ".mlp.": (("gate", "value"), "fc1")}
"""Matrices that timm keeps as one, in their order."""


def recognized(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a vision transformer of Hugging Face transformers."""
    return "embeddings.cls_token" in tensors


def to_timm(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename the tensors to timm's names, with the projections of queries, keys and values fused.

    Raises `WeightsError` where a key of DINOv3 has a bias: timm has no place for one.
    """
    is_dinov3 = any(re.match(r"(model\.)?layer\.", name) for name in tensors)
    is_gated = any(name.endswith(".mlp.gate_proj.weight") for name in tensors)
    dinov3_rules = (*(RENAMED_DINOV3_GATED if is_gated else ()), *RENAMED_DINOV3)
    rules = (*RENAMED, *(dinov3_rules if is_dinov3 else RENAMED_DINOV2))
    renamed = {}
    for name, tensor in tensors.items():
        if DROPPED.fullmatch(name) or (name == "embeddings.register_tokens" and tensor.shape[1:2] == (0,)):
            continue
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        renamed[new] = tensor
    joined = _join(renamed)
    return split_biases(joined, source) if is_dinov3 else fold_class_position(joined)


def _join(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Concatenate what timm keeps as one; a bias that a part lacks (DINOv3's keys) is zero.

    Where a part lacks its matrix, what there is stays under its own name, for the check of names to tell.
    """
    joined = dict(tensors)
    for branch, (parts, whole) in JOINED.items():
        for name in [name for name in tensors if re.search(rf"{re.escape(branch)}({'|'.join(parts)})\.", name)]:
            if name not in joined:
                continue
            stem, ending = name.partition(branch)[0] + branch, name.rpartition(".")[2]
            found = [tensors.get(f"{stem}{part}.{ending}") for part in parts]
            if ending == "bias":
                found = [torch.zeros_like(tensors[name]) if part is None else part for part in found]
            if any(part is None for part in found):
                continue
            for part in parts:
                joined.pop(f"{stem}{part}.{ending}", None)
            joined[f"{stem}{whole}.{ending}"] = torch.cat([part for part in found if part is not None])
    return joined
