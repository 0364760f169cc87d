"""Which timm architectures cachetool runs block by block, and what is said about the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from timm.layers.norm import LayerNorm, LayerNormFp32, RmsNorm, RmsNormFp32
from timm.layers.patch_embed import PatchEmbed
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import (
    Block,
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ParallelThingsBlock,
    VisionTransformer,
)
from torch import nn

from cachetool.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

FAMILIES = (VisionTransformer, Eva)
"""Model classes that are run. Their subclasses change the sequence or the forward pass, so they are not."""

BLOCKS = (Block, ParallelScalingBlock, ParallelThingsBlock, DiffParallelScalingBlock, EvaBlock)
"""Block classes that map one residual-stream state to the next and take an attention mask."""

NORMS = (LayerNorm, LayerNormFp32, nn.LayerNorm, RmsNorm, RmsNormFp32, nn.Identity)
"""Final norms that weight, bias and epsilon describe in full."""


def check_supported(model: Any, name: str) -> None:
    """Refuse a model that has a part which cannot be run block by block, naming every such part.

    Raises `UnsupportedModelError`.
    """
    offenders = list(_offenders(model))
    if offenders:
        raise UnsupportedModelError(
            f"{name} cannot be run block by block: {'; '.join(offenders)}. "
            "Choose a plain timm VisionTransformer or Eva; `cachetool models` lists the named ones"
        )


def _offenders(model: Any) -> Iterator[str]:
    if type(model) not in FAMILIES:
        yield f"it is a {type(model).__name__}, where timm's VisionTransformer or Eva is expected"
        return
    if type(model.patch_embed) is not PatchEmbed:
        yield f"its patches come from a {type(model.patch_embed).__name__}, where a plain PatchEmbed is expected"
    elif model.patch_embed.patch_size[0] != model.patch_embed.patch_size[1]:
        yield f"its patches are not square ({model.patch_embed.patch_size})"
    if model.in_chans != 3:
        yield f"it takes {model.in_chans} image channels, where 3 are expected"
    if model.patch_drop is not None and not isinstance(model.patch_drop, nn.Identity):
        yield "it drops patches"
    blocks = sorted({type(block).__name__ for block in model.blocks if type(block) not in BLOCKS})
    if blocks:
        yield f"its blocks are {' and '.join(blocks)}, where pre-norm or parallel blocks are expected"
    if type(model.norm) not in NORMS:
        yield f"its final norm is a {type(model.norm).__name__}, where LayerNorm or RmsNorm is expected"
