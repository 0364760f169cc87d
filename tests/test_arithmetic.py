from __future__ import annotations

import pytest
import torch

from cachetool.arithmetic import Arithmetic
from cachetool.errors import UnknownNameError


def test_unknown_precision_is_refused():
    with pytest.raises(UnknownNameError, match="--precision float8: expected one of float32, tf32, bfloat16"):
        Arithmetic("float8")


def test_tf32_needs_cuda():
    with pytest.raises(UnknownNameError, match="only CUDA devices compute in it, this is cpu"):
        Arithmetic("tf32").check(torch.device("cpu"))
    Arithmetic("tf32").check(torch.device("cuda"))


@pytest.mark.parametrize("before", [False, True])
def test_tf32_lasts_as_long_as_it_is_used(before):
    found = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = before
    try:
        with Arithmetic("tf32").used(torch.device("cuda")):
            assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32 is before
    finally:
        torch.backends.cuda.matmul.allow_tf32 = found


def test_bfloat16_rounds_products_alone():
    left, right = torch.rand(8, 8), torch.rand(8, 8)
    with Arithmetic("bfloat16").used(torch.device("cpu")):
        assert torch.equal(left @ right, left.bfloat16() @ right.bfloat16())
        assert (left + right).dtype == torch.float32
    assert (left @ right).dtype == torch.float32


def test_the_default_leaves_keys_and_names_as_they_were():
    assert Arithmetic().key_parts == {}
    assert Arithmetic().description == ""
    assert Arithmetic("bfloat16", compiled=True).key_parts == {"arithmetic": "bfloat16 products, compiled blocks"}
