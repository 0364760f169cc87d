"""The wanted tokens alone are what the whole block gives for them, in every family of models, masked or not."""

from __future__ import annotations

import pytest
import torch
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch.utils.flop_counter import FlopCounterMode

from tests.backbones.test_attention import random_mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("wanted", [[0], [1, 2], [0, 3, 9, 17]])
def test_wanted_tokens_are_those_of_the_whole_block(any_model, wrap, wanted, masked):
    backbone = wrap(any_model)
    tokens = backbone.layout.tokens
    wanted = torch.tensor([position for position in wanted if position < tokens])
    state = torch.randn(2, tokens, 48, generator=torch.Generator().manual_seed(3))
    mask = random_mask(tokens) if masked else None
    with torch.inference_mode():
        whole = backbone.run(state, 1, 3, attention_mask=mask)
        some = backbone.run(state, 1, 3, attention_mask=mask, wanted=wanted)
    torch.testing.assert_close(some[:, wanted], whole[:, wanted], rtol=1e-4, atol=1e-5)
    others = torch.ones(tokens, dtype=torch.bool)
    others[wanted] = False
    assert some[:, others].isnan().all()


def test_visitors_see_whole_states_up_to_the_last(small_model, wrap):
    backbone = wrap(small_model("vit: registers"))
    seen = {}

    def visit(layer, state):
        seen[layer] = bool(state.isnan().any())
        return state

    with torch.inference_mode():
        backbone.run(torch.randn(1, backbone.layout.tokens, 48), 0, 3, visit, wanted=torch.tensor([0]))
    assert seen == {0: False, 1: False, 2: False, 3: True}


def test_one_token_costs_keys_values_and_little_else(any_model, wrap):
    backbone = wrap(any_model)
    block = any_model.blocks[2]
    if type(block) not in (Block, EvaBlock) or type(block.attn).__name__ == "DiffAttention":
        return

    def operations(wanted):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            backbone.run(torch.randn(2, backbone.layout.tokens, 48), 2, 3, wanted=wanted)
        return counter.get_total_flops()

    # Keys and values are a sixth of the products with weights of a plain block; attention itself is small here.
    assert operations(torch.tensor([0])) < 0.3 * operations(None)
