from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cachetool.arithmetic import Arithmetic
from cachetool.environment import kernel_name, resolve_device
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


needs_newer = pytest.mark.skipif(
    not hasattr(torch.backends, "fp32_precision"), reason="this torch does not have the newer name of the setting"
)


@pytest.fixture
def newer() -> Iterator[Any]:
    """The newer name of the setting, which makes the older one unreadable once it is used."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    with pytest.raises(RuntimeError, match="mix of the legacy and new APIs"):
        _ = matmul.allow_tf32
    yield matmul
    matmul.fp32_precision = before


@needs_newer
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_the_newer_name_of_the_setting_stays_as_it_was(newer, precision):
    with Arithmetic(precision).used(torch.device("cpu")):
        assert newer.fp32_precision == "tf32"
    newer.fp32_precision = "ieee"
    with Arithmetic(precision).used(torch.device("cpu")):
        assert newer.fp32_precision == ("tf32" if precision == "tf32" else "ieee")
    assert newer.fp32_precision == "ieee"


@needs_newer
def test_kernels_are_named_by_the_newer_setting_too(newer):
    resolve_device("cpu")
    assert "tf32 products on, tf32 convolutions off" in kernel_name(torch.device("cuda"))
    newer.fp32_precision = "ieee"
    assert "tf32 products off, tf32 convolutions off" in kernel_name(torch.device("cuda"))


@pytest.fixture
def everything() -> Iterator[Any]:
    """The setting for everything, where none is made for products alone."""
    matmul, before = torch.backends.cuda.matmul, torch.backends.fp32_precision
    own = matmul.fp32_precision
    matmul.fp32_precision = "none"
    yield torch.backends
    torch.backends.fp32_precision = before
    matmul.fp32_precision = own


@needs_newer
def test_a_setting_for_everything_does_not_round_convolutions(everything):
    everything.fp32_precision = "tf32"
    resolve_device("cpu")
    assert "tf32 products on, tf32 convolutions off" in kernel_name(torch.device("cuda"))


@needs_newer
@pytest.mark.parametrize(("first", "then"), [("tf32", "ieee"), ("ieee", "tf32"), ("none", "tf32")])
def test_a_setting_for_everything_still_counts_afterwards(everything, first, then):
    everything.fp32_precision = first
    with Arithmetic("tf32").used(torch.device("cuda")):
        assert "tf32 products on" in kernel_name(torch.device("cuda"))
    everything.fp32_precision = then
    assert f"tf32 products {'on' if then == 'tf32' else 'off'}" in kernel_name(torch.device("cuda"))


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
