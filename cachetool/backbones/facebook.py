"""Names in the original DINOv2 and DINOv3 releases of Meta, and how their tensors become timm's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from cachetool.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

DROPPED = re.compile(r"mask_token|rope_embed\.periods|local_cls_norm\..*|.*\.attn\.qkv\.bias_mask")
"""Tensors without effect on the tokens of whole images: masking, crops of the pre-training, values timm computes."""

RENAMED_DINOV2 = ((r"\.mlp\.w12\.", ".mlp.fc1."), (r"\.mlp\.w3\.", ".mlp.fc2."))

RENAMED_DINOV3 = (
    (r"^storage_tokens$", "reg_token"),
    (r"\.ls([12])\.gamma$", r".gamma_\1"),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)


def recognized(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a DINOv2 or DINOv3 release, as far as they differ from timm's."""
    return "blocks.0.norm1.weight" in _flat_blocks(tensors) and not {
        "mask_token", "register_tokens", "storage_tokens"
    }.isdisjoint(tensors)  # fmt: skip


def to_timm(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename the tensors to timm's names.

    Registers are renamed; where DINOv2 has them, the first position embedding is added to [CLS], which timm keeps
    apart. The bias of DINOv3's queries, keys and values is split. Raises `WeightsError` where a key has a bias that is
    not masked out: timm has no place for one.
    """
    tensors = _flat_blocks(tensors)
    if "storage_tokens" in tensors:
        return split_biases(_rename(tensors, RENAMED_DINOV3), source)
    return fold_class_position(_rename(tensors, RENAMED_DINOV2))


def fold_class_position(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move the position embedding of [CLS] into [CLS] where there are registers, as timm's models have it."""
    folded = dict(tensors)
    registers = folded.pop("register_tokens", None)
    if registers is not None:
        folded["reg_token"] = registers
        if {"cls_token", "pos_embed"} <= folded.keys():
            folded["cls_token"] = folded["cls_token"] + folded["pos_embed"][:, :1]
            folded["pos_embed"] = folded["pos_embed"][:, 1:]
    return folded


def split_biases(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """DINOv3's fused bias of queries, keys and values as timm's `q_bias` and `v_bias`.

    The release multiplies the bias by a mask that is 0 for keys and 1 elsewhere; without the mask the bias counts as it
    is. Raises `WeightsError`, naming every block, where a key's bias survives the mask.
    """
    split = {name: tensor for name, tensor in tensors.items() if not name.endswith((".qkv.bias", ".qkv.bias_mask"))}
    biased_keys = []
    for name in (name for name in tensors if name.endswith(".attn.qkv.bias")):
        mask = tensors.get(f"{name}_mask")
        # A mask of 0 removes whatever lies beneath it; 0 * NaN would not.
        bias = tensors[name] if mask is None else torch.where(mask == 0, 0.0, tensors[name] * mask)
        query, key, value = bias.chunk(3)
        stem = name.removesuffix("qkv.bias")
        split |= {f"{stem}q_bias": query, f"{stem}v_bias": value}
        if torch.count_nonzero(key):
            biased_keys.append(name)
    if biased_keys:
        raise WeightsError(
            f"{source}: DINOv3 was expected to have no bias on keys, but the key part is not masked to zero in "
            f"{', '.join(biased_keys)}; timm's DINOv3 cannot hold it, so use the released file"
        )
    return split


def _rename(tensors: Mapping[str, Tensor], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """Apply every rule to every name, leaving out what has no effect on tokens but the masks of biases."""
    renamed = {}
    for name, tensor in tensors.items():
        if DROPPED.fullmatch(name) and not name.endswith("bias_mask"):
            continue
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        renamed[new] = tensor
    return renamed


def _flat_blocks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the chunk number that training checkpoints put before the block number."""
    return {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name): tensor for name, tensor in tensors.items()}
