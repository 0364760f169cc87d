"""A block that begins with what was projected before an edit gives what the whole block gives for the edited state."""

from __future__ import annotations

import pytest
import torch
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch.utils.flop_counter import FlopCounterMode

from tests.backbones.test_attention import random_mask


def _state(backbone, images=2):
    return torch.randn(images, backbone.layout.tokens, 48, generator=torch.Generator().manual_seed(3))


def _edited(state):
    """Two tokens of the first image and one of the second are changed."""
    image, position = torch.tensor([0, 0, 1]), torch.tensor([1, 3, 2])
    changed = state.clone()
    changed[image, position] = torch.randn(3, 48, generator=torch.Generator().manual_seed(4))
    return changed, image, position


def _has_parts(model):
    return type(model.blocks[1]) in (Block, EvaBlock) and type(model.blocks[1].attn).__name__ != "DiffAttention"


@pytest.mark.parametrize("masked", [False, True])
def test_an_edited_state_goes_on_as_through_the_whole_block(any_model, wrap, masked):
    backbone = wrap(any_model)
    state = _state(backbone)
    edited, image, position = _edited(state)
    mask = random_mask(backbone.layout.tokens) if masked else None

    def edit(layer, running):
        return edited if layer == 1 else running

    with torch.inference_mode():
        projections = backbone.project(state, 1)
        assert (projections is not None) == _has_parts(any_model)
        if projections is None:
            return
        expected = backbone.run(edited, 1, 3, attention_mask=mask)
        found = backbone.run(
            state, 1, 3, edit, attention_mask=mask, projections=projections.after_edit(image, position)
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_an_unedited_state_gives_the_same_bits(any_model, wrap, masked):
    backbone = wrap(any_model)
    state = _state(backbone)
    mask = random_mask(backbone.layout.tokens) if masked else None
    with torch.inference_mode():
        projections = backbone.project(state, 1)
        found = backbone.run(state, 1, 3, attention_mask=mask, projections=projections)
        assert torch.equal(found, backbone.run(state, 1, 3, attention_mask=mask))


def test_projections_are_not_changed_by_a_run(small_model, wrap):
    backbone = wrap(small_model("vit: registers"))
    state = _state(backbone)
    edited, image, position = _edited(state)
    with torch.inference_mode():
        projections = backbone.project(state, 0)
        before = [part.clone() for part in projections.parts]
        backbone.run(edited, 0, 2, projections=projections.after_edit(image, position))
        assert all(torch.equal(part, old) for part, old in zip(projections.parts, before, strict=True))
        assert torch.equal(backbone.run(state, 0, 2, projections=projections), backbone.run(state, 0, 2))


def test_only_the_first_block_begins_with_them(small_model, wrap):
    backbone = wrap(small_model("vit: registers"))
    state = _state(backbone)

    def operations(projections):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            backbone.run(state, 0, 3, projections=projections)
        return counter.get_total_flops()

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        projections = backbone.project(state, 0)
    shared = counter.get_total_flops()
    # Queries, keys and values of 48 channels, two operations per product and sum.
    assert shared == 2 * state.shape[0] * state.shape[1] * 48 * 3 * 48
    assert operations(projections) == operations(None) - shared


def test_an_attention_with_a_gate_is_run_as_a_whole(small_model, wrap):
    backbone = wrap(small_model("vit: registers"))
    backbone.model.blocks[1].attn.gate = torch.nn.Linear(48, 48)
    assert backbone.project(_state(backbone), 1) is None
    assert backbone.project(_state(backbone), 2) is not None
