"""Small timm models with weights under which every part acts, and states recorded by ordinary hooks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from timm.layers import RmsNorm, SwiGLUPacked
from timm.models.eva import Eva
from timm.models.vision_transformer import ParallelScalingBlock, ParallelThingsBlock, VisionTransformer
from torch import nn

from cachetool.backbones import Identity, TransformDefaults
from cachetool.backbones.eva import EvaBackbone
from cachetool.backbones.vit import VisionTransformerBackbone

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from cachetool.backbones import Backbone

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 5}
DINOV3 = {
    "rope_type": "dinov3",
    "rope_temperature": 100,
    "rope_rotate_half": True,
    "use_rot_pos_emb": True,
    "use_abs_pos_emb": False,
    "num_reg_tokens": 4,
    "use_fc_norm": False,
    "dynamic_img_size": True,
    "init_values": 1e-5,
}

VITS: dict[str, dict[str, Any]] = {
    "plain": {},
    "registers": {"reg_tokens": 4, "no_embed_class": True, "init_values": 1e-5},
    "registers inside the position embedding": {"reg_tokens": 2},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "pre-norm of the embedding": {"pre_norm": True},
    "query and key norm": {"qk_norm": True, "scale_attn_norm": True},
    "attention pooling": {"class_token": False, "global_pool": "map"},
    "any image size": {"dynamic_img_size": True},
    "parallel scaling": {"block_fn": ParallelScalingBlock, "qk_norm": True},
    "parallel things": {"block_fn": ParallelThingsBlock},
    "differential attention": {"attn_layer": "diff", "num_heads": 2},
    "RMS norm and gated MLP": {"norm_layer": RmsNorm, "mlp_layer": SwiGLUPacked, "mlp_ratio": 4, "act_layer": nn.SiLU},
}

EVAS: dict[str, dict[str, Any]] = {
    "dinov3": {**DINOV3, "qkv_bias": False},
    "dinov3 with biases": {**DINOV3, "qkv_bias": True},
    "dinov3 gated, fixed size": {**DINOV3, "dynamic_img_size": False, "swiglu_mlp": True, "swiglu_align_to": 8},
    "mixed": {"use_rot_pos_emb": True, "rope_type": "mixed", "use_abs_pos_emb": False},
    "mixed, any image size": {"use_rot_pos_emb": True, "rope_type": "mixed", "dynamic_img_size": True},
    "eva02": {
        "use_rot_pos_emb": True,
        "ref_feat_shape": (4, 4),
        "qkv_fused": False,
        "swiglu_mlp": True,
        "scale_mlp": True,
        "scale_attn_inner": True,
    },
    "absolute positions alone": {"global_pool": "token"},
    "grouped queries": {
        **DINOV3, "attn_type": "rope", "qkv_fused": False, "num_kv_heads": 1, "qk_norm": True
    },
}  # fmt: skip

ALL = [*(f"vit: {name}" for name in VITS), *(f"eva: {name}" for name in EVAS)]


def awaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter so that blocks, LayerScale, registers and positions all show in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.7 + 0.2 * noise if "weight" in name or "gamma" in name else 0.1 * noise)
            else:
                parameter.copy_(noise * (1.0 if parameter.shape[0] == 1 else parameter[0].numel() ** -0.5))
    return model.eval()


def build(name: str) -> nn.Module:
    """One of the small models above, by its name."""
    family, _, variant = name.partition(": ")
    if family == "vit":
        return awaken(VisionTransformer(**{**SMALL, **VITS[variant]}))
    return awaken(Eva(**{**SMALL, "norm_layer": partial(nn.LayerNorm, eps=1e-5), **EVAS[variant]}))


@pytest.fixture
def small_model() -> Callable[[str], nn.Module]:
    return build


@pytest.fixture(params=ALL)
def any_model(request: pytest.FixtureRequest) -> nn.Module:
    return build(request.param)


@pytest.fixture
def wrap() -> Callable[[nn.Module], Backbone]:
    """A backbone around a timm model that has its weights."""

    def wrap_model(model: nn.Module) -> Backbone:
        size = model.patch_embed.img_size[0]
        transform = TransformDefaults(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", 1.0)
        identity = Identity("small", "small", "0" * 64, "test", "native", transform)
        return EvaBackbone(model, identity) if isinstance(model, Eva) else VisionTransformerBackbone(model, identity)

    return wrap_model


@pytest.fixture
def hooked() -> Callable[[nn.Module, Tensor], tuple[list[Tensor], Tensor]]:
    """All states and the normalised tokens of a timm model's own forward pass, by hooks on its blocks."""

    def run(model: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
        states: list[Tensor] = []
        handles = [block.register_forward_hook(lambda _, __, out: states.append(out.clone())) for block in model.blocks]
        handles.append(model.blocks[0].register_forward_pre_hook(lambda _, args: states.append(args[0].clone())))
        with torch.inference_mode():
            tokens = model.forward_features(images)
        for handle in handles:
            handle.remove()
        return states, tokens

    return run
