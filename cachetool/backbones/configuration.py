"""From a configuration of transformers to the architecture of timm that computes the same.

timm's own architectures are what replay, attention and the tricks of the first and last block are made for and proven
on. So a checkpoint of transformers becomes one of them, with the numbers in which it differs, and its weights are
renamed (`cachetool.backbones.huggingface`); `tests/backbones/test_transformers.py` compares every state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from timm.layers.norm import LayerNorm

from cachetool.errors import UnsupportedModelError, WeightsError

Number = int | float | bool

MOST_BLOCKS, MOST_CHANNELS, MOST_PIXELS = 1000, 2**20, 4096
"""What a configuration may ask for: another number would keep this machine busy for nothing."""

BASES = {
    ("dinov2", False): tuple(f"vit_{size}_patch14_dinov2" for size in ("small", "base", "large")),
    ("dinov2", True): ("vit_giant_patch14_dinov2",),
    ("dinov2_with_registers", False): tuple(f"vit_{size}_patch14_reg4_dinov2" for size in ("small", "base", "large")),
    ("dinov2_with_registers", True): ("vit_giant_patch14_reg4_dinov2",),
    ("dinov3_vit", False): tuple(f"vit_{size}_patch16_dinov3" for size in ("small", "base", "large")),
    ("dinov3_vit", True): tuple(f"vit_{size}_patch16_dinov3" for size in ("small_plus", "huge_plus", "7b")),
}
"""Architectures of timm by the model type of transformers, and whether the MLP is gated (SwiGLU)."""


DEFAULTS: dict[str, dict[str, Any]] = {
    "dinov2": {
        "patch_size": 14, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "mlp_ratio": 4,
        "layer_norm_eps": 1e-6, "num_register_tokens": 0, "qkv_bias": True, "hidden_act": "gelu", "num_channels": 3,
    },
    "dinov2_with_registers": {
        "patch_size": 16, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "mlp_ratio": 4,
        "layer_norm_eps": 1e-6, "num_register_tokens": 4, "qkv_bias": True, "hidden_act": "gelu", "num_channels": 3,
    },
    "dinov3_vit": {
        "patch_size": 16, "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6,
        "intermediate_size": 1536, "layer_norm_eps": 1e-5, "num_register_tokens": 0, "hidden_act": "gelu",
        "num_channels": 3, "rope_theta": 100.0, "key_bias": False, "proj_bias": True, "mlp_bias": True,
    },
}  # fmt: skip
"""What transformers takes for an entry that a configuration lacks."""


@dataclass(frozen=True)
class Architecture:
    """An architecture of timm, with what is asked for in place of its own numbers."""

    timm_name: str
    """timm's name, with the tag of the weights where one was given; empty for the embedded model."""
    differences: Mapping[str, Number] = field(default_factory=dict)
    """Numbers other than timm's own, by name; empty where it is timm's own."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """The same as arguments of `timm.create_model`."""

    @property
    def label(self) -> str:
        """Name for the key of a cache: timm's, with what differs in parentheses; empty for the embedded model."""
        plain = self.timm_name.partition(".")[0]
        listing = ", ".join(f"{name}={value}" for name, value in sorted(self.differences.items()))
        return f"{plain}({listing})" if listing else plain


def architecture_of(configuration: Mapping[str, Any], source: str, build: Callable[[str], Any]) -> Architecture:
    """Find timm's architecture for a configuration; `build` makes one by its name, without weights.

    Of timm's architectures of the family the one is taken that differs least, and its name alone is the label where it
    does not differ at all: so the same model has the same key, whether it is named as timm's or as transformers'.

    Raises `UnsupportedModelError` for another kind of model, `WeightsError` naming every entry that is no number of its
    kind.
    """
    family = str(configuration.get("model_type"))
    if family not in DEFAULTS:
        raise UnsupportedModelError(_other_kind(configuration, source))
    entries = DEFAULTS[family] | {name: value for name, value in configuration.items() if value is not None}
    gated = bool(entries.get("use_gated_mlp" if family == "dinov3_vit" else "use_swiglu_ffn", False))
    wanted = _wanted(entries, source, gated=gated)
    _check_parts(entries, source, gated=gated)
    if family == "dinov2_with_registers" and not wanted["registers"]:
        family = "dinov2"
    found = []
    for timm_name in BASES[family, gated]:
        own = _own(build(timm_name))
        differences = {name: wanted[name] for name in own if wanted[name] != own[name]}
        found.append(Architecture(timm_name, differences, _arguments(differences, wanted, family, gated=gated)))
    return min(found, key=lambda one: len(one.differences))


def _wanted(entries: Mapping[str, Any], source: str, *, gated: bool) -> dict[str, Number]:
    """The numbers of a configuration. Raises `WeightsError` naming every entry that is no number of its kind."""
    problems: list[str] = []

    def whole(name: str, least: int, most: int) -> int:
        value = entries[name]
        if name == "patch_size" and isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            value = value[0]
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        problems.append(f"{name} is {value!r}, expected an integer from {least} to {most}")
        return least

    def number(name: str) -> float:
        value = entries[name]
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
            return float(value)
        problems.append(f"{name} is {value!r}, expected a number above 0")
        return 1.0

    channels = whole("hidden_size", 1, MOST_CHANNELS)
    wanted: dict[str, Number] = {
        "patch": whole("patch_size", 1, MOST_PIXELS),
        "channels": channels,
        "depth": whole("num_hidden_layers", 1, MOST_BLOCKS),
        "heads": whole("num_attention_heads", 1, channels),
        "registers": whole("num_register_tokens", 0, MOST_CHANNELS),
        "epsilon": number("layer_norm_eps"),
    }
    if "rope_theta" in entries:
        wanted |= {"hidden": whole("intermediate_size", 1, MOST_CHANNELS), "temperature": number("rope_theta")}
    else:
        hidden = int(channels * min(number("mlp_ratio"), float(MOST_CHANNELS)))
        # SwiGLU keeps two thirds of the channels, rounded up to a multiple of 8.
        wanted["hidden"] = (int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden
        if not 1 <= wanted["hidden"] <= MOST_CHANNELS:
            problems.append(f"mlp_ratio {entries['mlp_ratio']!r} makes an MLP of {wanted['hidden']} channels")
        wanted["projection_bias"] = bool(entries["qkv_bias"])
    unit = 4 if "rope_theta" in entries else 1  # a rotary position takes sine and cosine of two directions
    if not problems and channels % (unit * int(wanted["heads"])):
        problems.append(f"hidden_size {channels} is no multiple of {unit} x num_attention_heads {wanted['heads']}")
    if problems:
        raise WeightsError(f"the configuration of {source} makes no model: {'; '.join(problems)}; fetch it again")
    return wanted


def _check_parts(entries: Mapping[str, Any], source: str, *, gated: bool) -> None:
    """Raise `UnsupportedModelError` naming every part that timm's architectures of the family do not have."""
    expected = {"num_channels": 3, "key_bias": False, "proj_bias": True, "mlp_bias": True, "hidden_act": "gelu"}
    if gated and "rope_theta" in entries:
        expected["hidden_act"] = "silu"
    elif gated:
        del expected["hidden_act"]  # transformers does not use it
    problems = [
        f"{name} is {entries[name]!r}, where {value!r} is expected"
        for name, value in expected.items()
        if name in entries and entries[name] != value
    ]
    if problems:
        raise UnsupportedModelError(f"{source} cannot be run as a model of timm: {'; '.join(problems)}")


def _own(model: Any) -> dict[str, Number]:
    """The numbers that decide what a timm model computes, by the names that `_wanted` gives them."""
    block = model.blocks[0]
    numbers: dict[str, Number] = {
        "patch": int(model.patch_embed.patch_size[0]),
        "channels": int(model.embed_dim),
        "depth": len(model.blocks),
        "heads": int(block.attn.num_heads),
        "hidden": int(block.mlp.fc2.in_features),
        "epsilon": float(block.norm1.eps),
        "registers": 0 if model.reg_token is None else int(model.reg_token.shape[1]),
    }
    rope = getattr(model, "rope", None)
    if rope is not None:
        return numbers | {"temperature": float(rope.temperature)}
    return numbers | {"projection_bias": block.attn.qkv.bias is not None}


def _arguments(
    differences: Mapping[str, Number], wanted: Mapping[str, Number], family: str, *, gated: bool
) -> dict[str, Any]:
    """Arguments of `timm.create_model` for what differs."""
    rotary = family == "dinov3_vit"
    renamed = {
        "patch": "patch_size",
        "channels": "embed_dim",
        "depth": "depth",
        "heads": "num_heads",
        "registers": "num_reg_tokens" if rotary else "reg_tokens",
        "temperature": "rope_temperature",
        "projection_bias": "qkv_bias",
    }
    arguments: dict[str, Any] = {renamed[name]: value for name, value in differences.items() if name in renamed}
    if "epsilon" in differences:
        arguments["norm_layer"] = partial(LayerNorm, eps=differences["epsilon"])
    if not {"channels", "hidden"}.isdisjoint(differences):
        width = wanted["hidden"] * (2 if gated and not rotary else 1)  # timm's packed SwiGLU counts gate and value
        arguments["mlp_ratio"] = (width + 0.5) / wanted["channels"]  # timm drops the half
        if gated and rotary:
            arguments["swiglu_align_to"] = 1
    return arguments


def _other_kind(configuration: Mapping[str, Any], source: str) -> str:
    kind = configuration.get("model_type")
    text = f"{source} holds a model of type {kind!r}, expected one of {', '.join(DEFAULTS)}"
    if kind is None and isinstance(configuration.get("architecture"), str):
        return f"{text}; it is a checkpoint of timm: name it timm:{configuration['architecture']}"
    return f"{text}; other models are named timm:NAME, their weights given with `--weights FILE`"
