from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cachetool.store import DTYPES, beyond_range, from_float32, largest, storage_dtype, to_float32
from cachetool.store.dtypes import fill_value, zarr_data_type, zarr_fill_value

TORCH = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@pytest.mark.parametrize("dtype", DTYPES)
@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
@settings(deadline=None)
def test_rounding_equals_torch_for_any_bits(dtype, bits) -> None:
    values = np.array(bits, dtype=np.uint32).view(np.float32)
    expected = torch.from_numpy(values.copy()).to(TORCH[dtype]).float().numpy()
    stored = from_float32(values, dtype)
    np.testing.assert_array_equal(to_float32(stored, dtype), expected)
    np.testing.assert_array_equal(beyond_range(values, stored, dtype), np.isfinite(values) & np.isinf(expected))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_all_16_bit_patterns_decode_and_encode_back(dtype) -> None:
    stored = np.arange(2**16, dtype=np.uint16).view(np.float16 if dtype == "float16" else np.uint16)
    decoded = to_float32(stored, dtype)
    numbers = ~np.isnan(decoded)
    again = from_float32(decoded, dtype)
    np.testing.assert_array_equal(again.view(np.uint16)[numbers], stored.view(np.uint16)[numbers])
    assert np.isnan(to_float32(again[~numbers], dtype)).all()


def test_largest_is_the_largest_finite_value() -> None:
    assert {name: largest(name) for name in DTYPES} == {name: torch.finfo(TORCH[name]).max for name in DTYPES}


def test_what_zarr_is_told_of_a_dtype_and_what_unfinished_data_reads_as() -> None:
    assert [zarr_data_type(name) for name in DTYPES] == ["float32", "float16", "uint16"]
    assert [zarr_fill_value(name) for name in DTYPES] == ["NaN", "NaN", 0x7FC0]
    for name in DTYPES:
        fill = fill_value(name)
        assert fill.dtype == storage_dtype(name)
        assert np.isnan(to_float32(np.full(3, fill), name)).all()


def test_decoding_reads_views_that_may_not_be_written_and_fills_strided_targets() -> None:
    stored = np.frombuffer(np.arange(12, dtype=np.float16).tobytes(), np.float16).reshape(2, 6)
    out = np.zeros((2, 3, 6), dtype=np.float32)
    to_float32(stored, "float16", out=out[:, 1])
    np.testing.assert_array_equal(out[:, 1], stored)
    assert not out[:, [0, 2]].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_beyond_the_range_become_infinite_and_are_told_from_those_that_were(dtype) -> None:
    top = np.float32(largest(dtype))
    halfway = {"float16": np.float32(65520), "bfloat16": np.array(0x7F7F8000, np.uint32).view(np.float32)}.get(dtype)
    values = np.array([top, -top, np.inf, -np.inf, np.nan, 0], np.float32)
    stored = from_float32(values, dtype)
    np.testing.assert_array_equal(to_float32(stored, dtype), values)
    assert not beyond_range(values, stored, dtype).any()
    if halfway is None:
        return
    values = np.array([halfway, -halfway, np.nextafter(halfway, np.float32(0)), np.inf], np.float32)
    stored = from_float32(values, dtype)
    np.testing.assert_array_equal(to_float32(stored, dtype), np.array([np.inf, -np.inf, top, np.inf], np.float32))
    assert beyond_range(values, stored, dtype).tolist() == [True, True, False, False]
