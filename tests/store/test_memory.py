"""Memory for results: any shape and dtype, large ones from a page on, and as much of it as was asked for."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from cachetool.store import empty_for_reading
from cachetool.store.memory import LARGE


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint16"])
@pytest.mark.parametrize(
    "shape", [(3, LARGE // 4, 1), (1, LARGE // 2 + 3, 3), (2, 3, 4), (0, 5)], ids=["large", "odd", "small", "empty"]
)
def test_arrays_are_as_asked_for(shape: tuple[int, ...], dtype: str) -> None:
    array = empty_for_reading(shape, dtype)
    assert (array.shape, array.dtype, array.flags.c_contiguous) == (shape, np.dtype(dtype), True)
    array[...] = 7
    assert (array == 7).all()


@pytest.mark.parametrize("values", [LARGE // 2, LARGE // 2 + 1, LARGE])
def test_large_arrays_begin_at_a_page(values: int) -> None:
    arrays = [empty_for_reading((values,), np.float16) for _ in range(4)]
    assert [array.ctypes.data % mmap.PAGESIZE for array in arrays] == [0] * 4


def test_more_than_there_is_is_refused_as_numpy_does() -> None:
    with pytest.raises((MemoryError, ValueError)):
        empty_for_reading((2**40, 2**20), np.float32)
