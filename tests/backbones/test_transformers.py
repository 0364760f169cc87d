"""`hf:` against transformers itself: every state of models built from a configuration, with random weights.

Only rounding may differ: transformers multiplies by queries, keys and values apart, timm by all at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cachetool.backbones import Backbone, load
from cachetool.backbones.weights import read_weights

transformers = pytest.importorskip("transformers", reason="transformers is not installed: nothing to compare with")

SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
DINOV3 = {**SIZES, "intermediate_size": 96, "num_register_tokens": 4}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "DINOv2": ("Dinov2", SIZES),
    "DINOv2, SwiGLU": ("Dinov2", {**SIZES, "use_swiglu_ffn": True}),
    "DINOv2, no bias of projections": ("Dinov2", {**SIZES, "qkv_bias": False, "mlp_ratio": 2}),
    "DINOv2 with registers": ("Dinov2WithRegisters", SIZES),
    "DINOv2 with registers, SwiGLU": ("Dinov2WithRegisters", {**SIZES, "use_swiglu_ffn": True}),
    "DINOv2 with 2 registers": ("Dinov2WithRegisters", {**SIZES, "num_register_tokens": 2, "layer_norm_eps": 1e-3}),
    "DINOv2 with 0 registers": ("Dinov2WithRegisters", {**SIZES, "num_register_tokens": 0}),
    "DINOv3": ("DINOv3ViT", DINOV3),
    "DINOv3, gated": ("DINOv3ViT", {**DINOV3, "use_gated_mlp": True, "hidden_act": "silu", "intermediate_size": 92}),
    "DINOv3 without registers": ("DINOv3ViT", {**DINOV3, "num_register_tokens": 0, "rope_theta": 30.0}),
    "DINOv3 without biases": ("DINOv3ViT", {**DINOV3, "query_bias": False, "value_bias": False}),
    "DINOv3, bias of values alone": ("DINOv3ViT", {**DINOV3, "query_bias": False}),
}

RESAMPLED_ALIKE = {name for name in CASES if "DINOv2" not in name or name.endswith("registers")} | {
    "DINOv2 with registers, SwiGLU"
}
"""Where transformers brings positions to another grid as timm does."""


def made(case: str) -> Any:
    """A model of transformers under whose weights every part acts."""
    family, entries = CASES[case]
    model = getattr(transformers, f"{family}Model")(getattr(transformers, f"{family}Config")(**entries))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.7 + 0.2 * noise if "norm" in name or "lambda" in name else 0.1 * noise)
            else:
                parameter.copy_(noise * (1.0 if "embeddings.patch" not in name and parameter.shape[0] == 1 else 0.15))
    return model.eval()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def theirs(model: Any, images: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """All hidden states of transformers' own forward pass, and the normalised tokens."""
    with torch.inference_mode():
        found = model(images, output_hidden_states=True)
    return found.hidden_states, found.last_hidden_state


def ours(backbone: Backbone, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    states: list[torch.Tensor] = []
    with torch.inference_mode():
        final = backbone.run(backbone.embed(images), 0, backbone.depth, lambda _, s: states.append(s.clone()) or s)
        return states, backbone.normalize(final)


def largest_difference(backbone: Backbone, model: Any, images: torch.Tensor) -> float:
    """Largest difference of any state or of the normalised tokens, relative to the largest value of that state."""
    (found, tokens), (expected, last) = ours(backbone, images), theirs(model, images)
    assert len(found) == len(expected) == backbone.depth + 1
    pairs = [*zip(found, expected, strict=True), (tokens, last)]
    assert all(one.shape == other.shape for one, other in pairs)
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


def test_every_state_equals_that_of_transformers(case: str, tmp_path: Path) -> None:
    model = made(case)
    model.save_pretrained(tmp_path / "model")
    backbone = load(f"hf:{tmp_path / 'model'}", image_size=32)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert largest_difference(backbone, model, images) < 2e-6
    assert backbone.layout.registers == CASES[case][1].get("num_register_tokens", 4 if "with reg" in case else 0)
    assert "resampled" not in backbone.position_embedding
