"""Weights under the names of Meta and Hugging Face, written by tables made apart from those of the package."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from timm.layers import SwiGLUPacked
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from cachetool.backbones.conversion import check_match, count_classes, fit_bias_variant, to_timm_names
from cachetool.backbones.position import fit_position_embedding
from cachetool.errors import WeightsError

WIDTH, DEPTH = 32, 2
SIZE = {"img_size": 32, "patch_size": 8, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2}


def dinov2(*, registers=False, giant=False, classes=0, **overrides):
    kwargs = {"mlp_layer": SwiGLUPacked, "mlp_ratio": 4, "act_layer": nn.SiLU} if giant else {}
    if registers:
        kwargs |= {"reg_tokens": 4, "no_embed_class": True}
    return VisionTransformer(**{**SIZE, "num_classes": classes, "init_values": 0.5, **kwargs, **overrides})


def dinov3(*, gated=False, biases=False):
    kwargs = {"swiglu_mlp": True, "swiglu_align_to": 8} if gated else {}
    return Eva(
        **SIZE, **kwargs, num_classes=0, qkv_bias=biases, rope_type="dinov3", use_rot_pos_emb=True,
        use_abs_pos_emb=False, num_reg_tokens=4, use_fc_norm=False, dynamic_img_size=True, init_values=0.5,
        rope_rotate_half=True, norm_layer=partial(nn.LayerNorm, eps=1e-5),
    )  # fmt: skip


def randomized(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def meta_dinov2(weights, *, registers, giant=False, chunked=False):
    """timm's weights as a DINOv2 release of Meta has them."""
    names = {"cls_token": "cls_token", "norm.weight": "norm.weight", "norm.bias": "norm.bias"}
    names |= {f"patch_embed.proj.{part}": f"patch_embed.proj.{part}" for part in ("weight", "bias")}
    for block in range(DEPTH):
        theirs = f"blocks.0.{block}" if chunked else f"blocks.{block}"
        names |= {f"blocks.{block}.ls{i}.gamma": f"{theirs}.ls{i}.gamma" for i in (1, 2)}
        for module in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
            written = {"mlp.fc1": "mlp.w12", "mlp.fc2": "mlp.w3"}.get(module, module) if giant else module
            names |= {f"blocks.{block}.{module}.{part}": f"{theirs}.{written}.{part}" for part in ("weight", "bias")}
    release = {theirs: weights[ours] for ours, theirs in names.items()} | {"mask_token": torch.zeros(1, WIDTH)}
    if registers:
        class_position = torch.randn(1, 1, WIDTH)
        release["register_tokens"] = weights["reg_token"]
        release["cls_token"] = weights["cls_token"] - class_position
        release["pos_embed"] = torch.cat([class_position, weights["pos_embed"]], dim=1)
    else:
        release["pos_embed"] = weights["pos_embed"]
    return release


def meta_dinov3(weights, *, gated=False, bias_under_mask=7.0):
    """timm's weights as a DINOv3 release of Meta has them, with a masked bias on keys."""
    release = {
        "cls_token": weights["cls_token"], "storage_tokens": weights["reg_token"], "mask_token": torch.zeros(1, WIDTH),
        "rope_embed.periods": torch.ones(4), "norm.weight": weights["norm.weight"], "norm.bias": weights["norm.bias"],
        "local_cls_norm.weight": torch.ones(WIDTH), "local_cls_norm.bias": torch.zeros(WIDTH),
        "patch_embed.proj.weight": weights["patch_embed.proj.weight"],
        "patch_embed.proj.bias": weights["patch_embed.proj.bias"],
    }  # fmt: skip
    mlp = {"fc1_g": "w1", "fc1_x": "w2", "fc2": "w3"} if gated else {"fc1": "fc1", "fc2": "fc2"}
    for block in (f"blocks.{i}." for i in range(DEPTH)):
        for part in ("weight", "bias"):
            release |= {
                f"{block}mlp.{theirs}.{part}": weights[f"{block}mlp.{ours}.{part}"] for ours, theirs in mlp.items()
            }
            for module in ("norm1", "norm2", "attn.proj"):
                release[f"{block}{module}.{part}"] = weights[f"{block}{module}.{part}"]
        release[f"{block}ls1.gamma"], release[f"{block}ls2.gamma"] = (
            weights[f"{block}gamma_1"],
            weights[f"{block}gamma_2"],
        )
        release[f"{block}attn.qkv.weight"] = weights[f"{block}attn.qkv.weight"]
        query, value = (weights.get(f"{block}attn.{part}_bias", torch.zeros(WIDTH)) for part in "qv")
        release[f"{block}attn.qkv.bias"] = torch.cat([query, torch.full((WIDTH,), bias_under_mask), value])
        release[f"{block}attn.qkv.bias_mask"] = torch.cat([torch.ones(WIDTH), torch.zeros(WIDTH), torch.ones(WIDTH)])
    return release


def hugging_face(weights, kind, *, gated=False):
    """timm's weights as Dinov2Model, Dinov2WithRegistersModel, DINOv3ViTModel or ViTModel of transformers has them."""
    is_v3 = kind == "dinov3"
    patch = "embeddings.patch_embeddings" if is_v3 else "embeddings.patch_embeddings.projection"
    norm = "norm" if is_v3 else "layernorm"
    written = {"embeddings.cls_token": weights["cls_token"]}
    for part in ("weight", "bias"):
        written[f"{patch}.{part}"] = weights[f"patch_embed.proj.{part}"]
        written[f"{norm}.{part}"] = weights[f"norm.{part}"]
    if kind != "vit":
        written["embeddings.mask_token"] = torch.zeros(1, 1, WIDTH)
    if kind == "dinov2-registers":
        written["embeddings.register_tokens"] = weights["reg_token"]
        written["embeddings.position_embeddings"] = torch.cat([torch.zeros(1, 1, WIDTH), weights["pos_embed"]], dim=1)
    elif is_v3:
        written["embeddings.register_tokens"] = weights["reg_token"]
    else:
        written["embeddings.position_embeddings"] = weights["pos_embed"]
    if kind == "vit":
        written |= {"pooler.dense.weight": torch.ones(WIDTH, WIDTH), "pooler.dense.bias": torch.ones(WIDTH)}
    modules = {
        "dinov2": {"norm1": "norm1", "norm2": "norm2", "attn.proj": "attention.output.dense",
                   "mlp.fc1": "mlp.weights_in" if gated else "mlp.fc1",
                   "mlp.fc2": "mlp.weights_out" if gated else "mlp.fc2"},
        "dinov3": {"norm1": "norm1", "norm2": "norm2", "attn.proj": "attention.o_proj", "mlp.fc2": "mlp.down_proj"}
        | ({"mlp.fc1_g": "mlp.gate_proj", "mlp.fc1_x": "mlp.up_proj"} if gated else {"mlp.fc1": "mlp.up_proj"}),
        "vit": {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.output.dense",
                "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"},
    }[kind.removesuffix("-registers")]  # fmt: skip
    projections = (
        ["q_proj", "k_proj", "v_proj"] if is_v3 else [f"attention.{part}" for part in ("query", "key", "value")]
    )
    for i in range(DEPTH):
        theirs, ours = (f"layer.{i}." if is_v3 else f"encoder.layer.{i}."), f"blocks.{i}."
        for part in ("weight", "bias"):
            written |= {f"{theirs}{name}.{part}": weights[f"{ours}{module}.{part}"] for module, name in modules.items()}
        for projection, weight in zip(projections, weights[f"{ours}attn.qkv.weight"].chunk(3), strict=True):
            written[f"{theirs}attention.{projection}.weight"] = weight
        if is_v3:
            for projection, bias in (("q_proj", "q_bias"), ("v_proj", "v_bias")):
                value = weights.get(f"{ours}attn.{bias}", torch.zeros(WIDTH))
                written[f"{theirs}attention.{projection}.bias"] = value
        else:
            for projection, bias in zip(projections, weights[f"{ours}attn.qkv.bias"].chunk(3), strict=True):
                written[f"{theirs}attention.{projection}.bias"] = bias
        if kind != "vit":
            for number in (1, 2):
                scale = f"{ours}gamma_{number}" if is_v3 else f"{ours}ls{number}.gamma"
                written[f"{theirs}layer_scale{number}.lambda1"] = weights[scale]
    return written


CASES = {
    "Meta DINOv2": (dinov2, {}, partial(meta_dinov2, registers=False)),
    "Meta DINOv2 with registers": (dinov2, {"registers": True}, partial(meta_dinov2, registers=True)),
    "Meta DINOv2 giant": (dinov2, {"giant": True}, partial(meta_dinov2, registers=False, giant=True)),
    "Meta DINOv2 giant with registers, chunked": (
        dinov2,
        {"giant": True, "registers": True},
        partial(meta_dinov2, registers=True, giant=True, chunked=True),
    ),
    "Meta DINOv3": (dinov3, {}, meta_dinov3),
    "Meta DINOv3 gated": (dinov3, {"gated": True}, partial(meta_dinov3, gated=True)),
    "Meta DINOv3 with biases": (dinov3, {"biases": True}, meta_dinov3),
    "Meta DINOv3, NaN under the mask": (dinov3, {}, partial(meta_dinov3, bias_under_mask=float("nan"))),
    "Hugging Face DINOv2": (dinov2, {}, partial(hugging_face, kind="dinov2")),
    "Hugging Face DINOv2 giant": (dinov2, {"giant": True}, partial(hugging_face, kind="dinov2", gated=True)),
    "Hugging Face DINOv2 with registers": (
        dinov2,
        {"registers": True},
        partial(hugging_face, kind="dinov2-registers"),
    ),
    "Hugging Face DINOv3": (dinov3, {}, partial(hugging_face, kind="dinov3")),
    "Hugging Face DINOv3 gated": (dinov3, {"gated": True}, partial(hugging_face, kind="dinov3", gated=True)),
    "Hugging Face DINOv3 with biases": (dinov3, {"biases": True}, partial(hugging_face, kind="dinov3")),
    "Hugging Face ViT": (dinov2, {"init_values": None}, partial(hugging_face, kind="vit")),
    "timm": (dinov2, {"registers": True}, dict),
}


@pytest.mark.parametrize("case", CASES)
def test_a_release_becomes_timms_weights_again(case):
    make, kwargs, write = CASES[case]
    model = make(**kwargs)
    weights = randomized(model)
    converted, _ = fit_bias_variant(to_timm_names(write(weights), "file"), "vit_small_patch16_dinov3", model)
    check_match(converted, model, "small", "file")
    assert converted.keys() == weights.keys()
    for name, tensor in weights.items():
        tolerance = 1e-6 if name == "cls_token" else 0.0
        torch.testing.assert_close(converted[name], tensor, rtol=0, atol=tolerance)


def test_a_classifier_of_hugging_face_is_kept():
    model = dinov2(classes=7, init_values=None)
    weights = randomized(model)
    written = hugging_face(weights, "vit") | {
        f"classifier.{part}": weights[f"head.{part}"] for part in ("weight", "bias")
    }
    converted = to_timm_names(written, "file")
    check_match(converted, model, "small", "file")
    assert count_classes(converted) == 7
    assert torch.equal(converted["head.weight"], weights["head.weight"])


def test_biases_that_are_not_zero_choose_the_qkvb_variant():
    plain, biased = dinov3(), dinov3(biases=True)
    tensors = to_timm_names(meta_dinov3(randomized(biased)), "file")
    fitted, architecture = fit_bias_variant(tensors, "vit_small_patch16_dinov3.lvd1689m", plain)
    assert architecture == "vit_small_patch16_dinov3_qkvb.lvd1689m"
    check_match(fitted, biased, architecture, "file")
    assert fit_bias_variant(tensors, "vit_7b_patch16_dinov3", plain)[1] == "vit_7b_patch16_dinov3"
    assert fit_bias_variant(tensors, "vit_small_patch16_dinov3_qkvb", biased)[1] == "vit_small_patch16_dinov3_qkvb"


def test_a_bias_on_keys_is_refused_naming_every_block():
    release = meta_dinov3(randomized(dinov3()))
    for block in range(DEPTH):
        del release[f"blocks.{block}.attn.qkv.bias_mask"]
    with pytest.raises(WeightsError, match=r"blocks\.0\.attn\.qkv\.bias, blocks\.1\.attn\.qkv\.bias"):
        to_timm_names(release, "file")


def test_the_mismatch_names_every_offender():
    model = dinov2(registers=True)
    weights = randomized(model)
    for name in ("norm.bias", "blocks.0.norm1.weight", "blocks.1.norm1.weight"):
        del weights[name]
    weights |= {"surprise": torch.ones(1), "blocks.1.attn.extra": torch.ones(1)}
    weights["reg_token"] = torch.ones(1, 5, WIDTH)
    weights["blocks.1.mlp.fc1.weight"] = torch.ones(3, WIDTH)
    weights["blocks.0.ls1.gamma"] = torch.full((WIDTH,), float("nan"))
    with pytest.raises(WeightsError) as raised:
        check_match(weights, model, "small", "file weights.pth")
    lines = str(raised.value).splitlines()
    assert lines[0] == (
        "file weights.pth does not hold the weights of small: expected 2 blocks of 32 channels with 4 registers, "
        "found 2 blocks of 32 channels with 5 registers"
    )
    assert lines[1] == "missing: blocks.0-1.norm1.weight, norm.bias"
    assert lines[2] == "unexpected: blocks.1.attn.extra, surprise"
    assert "another shape: blocks.1.mlp.fc1.weight expected (128, 32), found (3, 32)" in lines
    assert "another shape: reg_token expected (1, 4, 32), found (1, 5, 32)" in lines
    assert "not finite: blocks.0.ls1.gamma" in lines


@pytest.mark.parametrize("registers", [False, True])
def test_a_position_embedding_of_another_grid_is_resampled_as_timm_does(registers):
    large, small = dinov2(registers=registers, img_size=64), dinov2(registers=registers)
    weights = randomized(large)
    fitted, description = fit_position_embedding(weights, small)
    assert description == "resampled 8x8 -> 4x4 (bicubic, antialias)"
    large.set_input_size(img_size=(32, 32))
    assert torch.equal(fitted["pos_embed"], large.pos_embed)
    assert weights["pos_embed"].shape[1] == 64 + (not registers), "the file's own tensors stay as they were"


def test_other_position_embeddings_are_described():
    model = dinov2()
    assert fit_position_embedding(randomized(model), model)[1] == "native 4x4"
    rotary = dinov3()
    assert fit_position_embedding(randomized(rotary), rotary)[1] == "rotary 4x4"
    both = Eva(**SIZE, num_classes=0, use_rot_pos_emb=True)
    assert fit_position_embedding(randomized(both), both)[1] == "native 4x4, rotary 4x4"
    neither = dinov2(pos_embed="none")
    assert fit_position_embedding(randomized(neither), neither)[1] == "none"


def test_a_grid_that_is_not_square_is_left_for_the_check_of_shapes():
    model = dinov2()
    weights = randomized(model) | {"pos_embed": torch.ones(1, 13, WIDTH)}
    fitted, _ = fit_position_embedding(weights, model)
    with pytest.raises(WeightsError, match=r"pos_embed expected \(1, 17, 32\), found \(1, 13, 32\)"):
        check_match(fitted, model, "small", "file")
