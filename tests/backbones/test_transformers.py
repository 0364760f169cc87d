"""`hf:` against transformers itself: every state of models built from a configuration, with random weights.

Only rounding may differ: transformers multiplies by queries, keys and values apart, timm by all at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cachetool.backbones import Backbone, load
from cachetool.backbones.catalogue import resolve

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


@pytest.mark.parametrize("case", [case for case, (family, _) in CASES.items() if family != "Dinov2"])
def test_other_sizes_equal_too_where_positions_are_resampled_alike(case: str, tmp_path: Path) -> None:
    model = made(case)
    model.save_pretrained(tmp_path)
    backbone = load(f"hf:{tmp_path}", image_size=56)
    images = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    assert largest_difference(backbone, model, images) < 2e-6
    rotary = CASES[case][0] == "DINOv3ViT"
    assert backbone.position_embedding == ("rotary 7x7" if rotary else "resampled 4x4 -> 7x7 (bicubic, antialias)")


@pytest.mark.parametrize("size", [24, 56])
def test_dinov2_without_registers_differs_at_other_sizes_by_the_filter_alone(size: int, tmp_path: Path) -> None:
    """transformers resamples the positions of this family without antialiasing; timm, and so we, with it.

    torch's antialiased cubic has another coefficient too, so that larger grids differ as well.
    """
    model = made("DINOv2")
    model.save_pretrained(tmp_path)
    backbone = load(f"hf:{tmp_path}", image_size=size)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    assert backbone.position_embedding.endswith("(bicubic, antialias)")
    model.embeddings.interpolate_pos_encoding = lambda *_: backbone.model.pos_embed
    assert largest_difference(backbone, model, images) < 2e-6
    del model.embeddings.interpolate_pos_encoding
    assert largest_difference(backbone, model, images) > 1e-4


@pytest.mark.slow
def test_a_model_that_is_saved_by_its_state_dict(case: str, tmp_path: Path) -> None:
    """`torch.save(model.state_dict())` has the names of the classes of transformers, not those that it publishes."""
    model = made(case)
    model.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "state.pth")
    one, other = load(f"hf:{tmp_path}"), load(f"hf:{tmp_path}", weights=tmp_path / "state.pth")
    assert one.weights_sha256 == other.weights_sha256


def test_a_model_that_is_saved_in_parts_or_under_a_head(tmp_path: Path) -> None:
    model = made("DINOv2 with registers")
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 2
    whole, parts = load(f"hf:{tmp_path / 'whole'}"), load(f"hf:{tmp_path / 'parts'}")
    assert whole.weights_sha256 == parts.weights_sha256


PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "dinov2-s": ("Dinov2", {"hidden_size": 384, "num_attention_heads": 6}),
    "dinov2-l": ("Dinov2", {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24}),
    "dinov2-g": (
        "Dinov2",
        {"hidden_size": 1536, "num_attention_heads": 24, "num_hidden_layers": 40, "use_swiglu_ffn": True},
    ),
    "dinov2-reg-b": ("Dinov2WithRegisters", {"patch_size": 14, "image_size": 518}),
    "dinov2-reg-g": (
        "Dinov2WithRegisters",
        {
            "hidden_size": 1536, "num_attention_heads": 24, "num_hidden_layers": 40, "use_swiglu_ffn": True,
            "patch_size": 14,
        },
    ),
    "dinov3-s": ("DINOv3ViT", {"num_register_tokens": 4}),
    "dinov3-s+": ("DINOv3ViT", {"num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu"}),
    "dinov3-h+": (
        "DINOv3ViT",
        {
            "num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu", "hidden_size": 1280,
            "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32,
        },
    ),
    "dinov3-7b": (
        "DINOv3ViT",
        {
            "num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu", "hidden_size": 4096,
            "intermediate_size": 8192, "num_attention_heads": 32, "num_hidden_layers": 40, "query_bias": False,
            "value_bias": False,
        },
    ),
}  # fmt: skip
"""Configurations as they are published, by the name of the same model."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_is_the_named_model(name: str, tmp_path: Path) -> None:
    family, entries = PUBLISHED[name]
    getattr(transformers, f"{family}Config")(**entries).save_pretrained(tmp_path)
    found, named = resolve(f"hf:{tmp_path}"), resolve(name)
    assert found.architecture.label == named.architecture.label
    assert not found.architecture.arguments
    assert found.transform == named.transform


def test_the_same_weights_have_the_same_key_as_the_named_model(tmp_path: Path) -> None:
    """A checkpoint of transformers, and its weights given to timm's architecture by `--weights`."""
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=384, num_attention_heads=6, patch_size=14, image_size=70, num_hidden_layers=12
    )
    transformers.Dinov2WithRegistersModel(config).save_pretrained(tmp_path)
    hf = load(f"hf:{tmp_path}", image_size=70)
    named = load("dinov2-reg-s", weights=tmp_path / "model.safetensors", image_size=70)
    for part in ("architecture", "weights_sha256", "position_embedding", "transform_defaults"):
        assert getattr(hf, part) == getattr(named, part)
