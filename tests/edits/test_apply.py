from __future__ import annotations

import numpy as np
import pytest
import torch

from cachetool.edits import Selection
from cachetool.edits.apply import add_tokens, attention_mask, replace_tokens

SELECTION = Selection("registers", np.array([0, 0, 2]), np.array([1, 3, 2]), np.array([0, 2, 1]), 3)


def state(dtype=torch.float32):
    return torch.arange(3 * 5 * 2, dtype=dtype).reshape(3, 5, 2)


WHERE = torch.from_numpy(SELECTION.image), torch.from_numpy(SELECTION.position)
VALUES = torch.tensor([[-1.0, -2.0], [-3.0, -4.0], [-5.0, -6.0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("function", "keep"), [(replace_tokens, 0), (add_tokens, 1)])
def test_values_go_to_the_selected_tokens_alone(function, keep, dtype):
    before = state(dtype)
    after = function(before, WHERE, VALUES)
    assert after.dtype == dtype
    expected = state().numpy()
    for pair in range(3):
        token = expected[SELECTION.image[pair], SELECTION.position[pair]]
        token[:] = keep * token + VALUES[pair].numpy()
    np.testing.assert_array_equal(after.float().numpy(), expected)
    assert torch.equal(before, state(dtype))


@pytest.mark.parametrize("function", [replace_tokens, add_tokens])
def test_in_place_the_state_itself_is_changed(function):
    expected, changed = function(state(), WHERE, VALUES), state()
    assert function(changed, WHERE, VALUES, in_place=True) is changed
    assert torch.equal(changed, expected)


def test_nobody_else_attends_to_selected_tokens():
    mask = attention_mask(SELECTION, 5)
    assert mask.shape == (3, 1, 5, 5)
    assert mask.dtype == torch.bool
    for image, query, key in np.ndindex(3, 5, 5):
        blocked = SELECTION.mask(5)[image, key] and query != key
        assert bool(mask[image, 0, query, key]) is not blocked


def test_masked_attention_equals_the_shorter_sequence():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 3, 2, 5, 4).unbind(0)
    whole = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask(SELECTION, 5))
    for image in range(3):
        stay = torch.from_numpy(~SELECTION.mask(5)[image])
        short = torch.nn.functional.scaled_dot_product_attention(
            *(part[image][:, stay] for part in (query, key, value))
        )
        torch.testing.assert_close(whole[image][:, stay], short)
