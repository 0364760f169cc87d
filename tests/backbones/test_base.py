from __future__ import annotations

from itertools import pairwise

import pytest
import timm
import torch

from cachetool.backbones import load
from cachetool.errors import UnsupportedModelError


def visited_states(backbone, images):
    states = []

    def visit(k, state):
        assert k == len(states)
        states.append(state.clone())
        return state

    with torch.inference_mode():
        final = backbone.run(backbone.embed(images), 0, backbone.depth, visit)
        return states, final, backbone.normalize(final)


def assert_states_equal_hooks(backbone, model, images, hooked):
    expected, expected_tokens = hooked(model, images)
    states, final, tokens = visited_states(backbone, images)
    assert len(states) == len(expected) == backbone.depth + 1
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(states, expected, strict=True))
    assert torch.equal(final, states[-1])
    assert torch.equal(tokens, expected_tokens)
    changes = [float((after - before).norm() / before.norm()) for before, after in pairwise(states)]
    assert min(changes) > 0.01, "the blocks have to act for this comparison to mean something"


def test_every_state_equals_hooks_bit_for_bit(any_model, wrap, hooked):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert_states_equal_hooks(wrap(any_model), any_model, images, hooked)


@pytest.mark.parametrize(
    ("name", "timm_name"),
    [("dinov2-reg-s", "vit_small_patch14_reg4_dinov2"), ("dinov3-s", "vit_small_patch16_dinov3")],
)
def test_named_models_at_224_equal_a_timm_model_built_apart(name, timm_name, hooked):
    backbone = load(name, random_weights_seed=3)
    model = timm.create_model(timm_name, img_size=224).eval()
    model.load_state_dict(backbone.model.state_dict(), strict=True)
    assert_states_equal_hooks(backbone, model, torch.randn(2, 3, 224, 224), hooked)


@pytest.mark.parametrize("variant", ["vit: registers", "eva: dinov3", "eva: mixed"])
def test_running_in_parts_and_from_a_stored_state_gives_the_same_bits(variant, small_model, wrap):
    backbone = wrap(small_model(variant))
    states, final, _ = visited_states(backbone, torch.randn(2, 3, 32, 32))
    stored = torch.from_numpy(states[1].numpy().copy())
    with torch.inference_mode():
        assert torch.equal(backbone.run(backbone.run(stored, 1, 2), 2, 3), final)
        assert torch.equal(backbone.run(final, 3, 3), final)


def test_a_visitor_replaces_the_state_that_the_next_block_sees(small_model, wrap):
    backbone = wrap(small_model("vit: registers"))
    registers = backbone.layout.slice("registers")

    def zero(k, state):
        return state.index_fill(1, torch.arange(registers.start, registers.stop), 0.0) if k in (1, 3) else state

    state = torch.randn(2, backbone.layout.tokens, backbone.channels)
    with torch.inference_mode():
        replayed = backbone.run(state, 0, 3, zero)
        first = backbone.model.blocks[0](state)
        first[:, registers] = 0
        expected = backbone.model.blocks[2](backbone.model.blocks[1](first))
    assert torch.equal(replayed[:, registers], torch.zeros_like(replayed[:, registers]))
    assert torch.equal(replayed[:, : registers.start], expected[:, : registers.start])
    assert torch.equal(replayed[:, registers.stop :], expected[:, registers.stop :])


@pytest.mark.parametrize("variant", ["vit: registers", "vit: parallel scaling", "vit: parallel things"])
def test_a_mask_hides_keys_as_if_the_tokens_had_left(variant, small_model, wrap):
    backbone = wrap(small_model(variant))
    state = torch.randn(2, 21 if "registers" in variant else 17, backbone.channels)
    hidden = torch.zeros(state.shape[1], dtype=torch.bool)
    hidden[[1, 4]] = True
    mask = (~hidden[None, :] | torch.eye(len(hidden), dtype=torch.bool)).expand(2, 1, -1, -1)
    with torch.inference_mode():
        masked = backbone.run(state, 0, 3, attention_mask=mask)
        removed = backbone.run(state[:, ~hidden], 0, 3)
    torch.testing.assert_close(masked[:, ~hidden], removed, rtol=1e-4, atol=1e-5)


def test_layout_norm_and_heads_are_read_from_the_model(small_model, wrap):
    backbone = wrap(small_model("eva: dinov3"))
    layout = backbone.layout
    assert (layout.cls, layout.registers, layout.rows, layout.columns) == (1, 4, 4, 4)
    assert (backbone.depth, backbone.channels, backbone.heads, backbone.patch_size) == (3, 48, 3, 8)
    assert (backbone.norm_type, backbone.norm_epsilon) == ("layer_norm", 1e-5)
    state = torch.randn(2, layout.tokens, 48)
    weight, bias = backbone.norm_weight.double(), backbone.norm_bias.double()
    centred = state.double() - state.double().mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias
    torch.testing.assert_close(backbone.normalize(state).double(), expected, rtol=0, atol=1e-5)


def test_rms_norm_and_absent_norm_are_described(small_model, wrap):
    backbone = wrap(small_model("vit: RMS norm and gated MLP"))
    state = torch.randn(2, backbone.layout.tokens, 48)
    mean_square = state.double().square().mean(-1, keepdim=True)
    expected = state.double() / (mean_square + backbone.norm_epsilon).sqrt() * backbone.norm_weight.double()
    assert backbone.norm_type == "rms_norm"
    assert backbone.norm_bias is None
    torch.testing.assert_close(backbone.normalize(state).double(), expected, rtol=0, atol=1e-5)
    without = wrap(small_model("vit: no class token"))
    assert (without.norm_type, without.norm_weight, without.norm_bias, without.norm_epsilon) == (
        "none",
        None,
        None,
        None,
    )
    assert (without.layout.cls, without.layout.registers) == (0, 0)


@pytest.mark.parametrize("variant", ["vit: plain", "vit: attention pooling", "vit: no class token", "eva: dinov3"])
def test_classify_is_the_models_own_forward(variant, small_model, wrap):
    backbone = wrap(small_model(variant))
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(backbone.classify(backbone.run(backbone.embed(images), 0, 3)), backbone.model(images))


def test_classify_without_a_head_is_none(small_model, wrap):
    model = small_model("vit: plain")
    model.reset_classifier(0)
    assert wrap(model).classify(torch.randn(2, 17, 48)) is None


@pytest.mark.parametrize("variant", ["vit: registers", "eva: dinov3", "eva: mixed"])
def test_place_moves_only_what_a_replay_needs(variant, small_model, wrap):
    backbone = wrap(small_model(variant))
    backbone.place("meta", first_block=2, embedding=False)
    devices = {name: parameter.device.type for name, parameter in backbone.model.named_parameters()}
    moved = {name for name, device in devices.items() if device == "meta" and not name.startswith("rope.")}
    assert moved == {name for name in devices if name.startswith(("blocks.2.", "norm.", "fc_norm.", "head."))}
    assert backbone.device.type == "meta"
    replayed = backbone.run(torch.randn(2, backbone.layout.tokens, 48, device="meta"), 2, 3)
    assert backbone.normalize(replayed).device.type == "meta"


def test_place_with_the_embedding_moves_everything(any_model, wrap):
    backbone = wrap(any_model)
    backbone.place("meta")
    assert {parameter.device.type for parameter in backbone.model.parameters()} == {"meta"}
    assert backbone.embed(torch.randn(2, 3, 32, 32, device="meta")).shape == (2, backbone.layout.tokens, 48)


def test_wrong_arguments_are_refused(small_model, wrap):
    backbone = wrap(small_model("vit: plain"))
    with pytest.raises(ValueError, match=r"\(image, 3, 32, 32\).*\(2, 3, 40, 32\)"):
        backbone.embed(torch.randn(2, 3, 40, 32))
    state = torch.randn(2, 17, 48)
    for start, stop in [(-1, 2), (0, 4), (2, 1)]:
        with pytest.raises(ValueError, match=f"from 0 to 3.*{start}.*{stop}"):
            backbone.run(state, start, stop)
    with pytest.raises(ValueError, match="from 0 to 2"):
        backbone.attention(state, 3)


def test_random_weights_follow_the_seed_alone():
    torch.manual_seed(1)
    first = load("tiny-reg", random_weights_seed=0)
    torch.manual_seed(2)
    again, other = load("tiny-reg", random_weights_seed=0), load("tiny-reg", random_weights_seed=1)
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(visited_states(first, images)[1], visited_states(again, images)[1])
    assert not any(parameter.requires_grad for parameter in first.model.parameters())


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("timm:resnet18", "ResNet"),
        ("timm:swin_tiny_patch4_window7_224", "SwinTransformer"),
        ("timm:deit_tiny_distilled_patch16_224", "VisionTransformerDistilled"),
        ("timm:vit_relpos_base_patch16_224", "VisionTransformerRelPos"),
        ("timm:vit_small_r26_s32_224", "HybridEmbed"),
        ("timm:vit_base_patch16_rpn_224", "ResPostBlock"),
        ("timm:eva02_enormous_patch14_clip_224", "EvaBlockPostNorm"),
        ("timm:naflexvit_base_patch16_gap", "NaFlexVit"),
    ],
)
def test_unsupported_architectures_say_which_part(name, part):
    with pytest.raises(UnsupportedModelError, match=rf"{name}.*{part}"):
        load(name, random_weights_seed=0)


def test_every_unsupported_part_is_named(small_model, wrap):
    model = small_model("vit: plain")
    model.in_chans = 1
    model.norm = torch.nn.GroupNorm(1, 48)
    model.patch_drop = torch.nn.Dropout()
    with pytest.raises(UnsupportedModelError, match=r"1 image channels.*drops patches.*GroupNorm"):
        wrap(model)
