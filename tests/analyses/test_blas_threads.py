"""BLAS is held to one thread within, and then has its own number again."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from analyses.blas_threads import one_blas_thread

np.linalg.eigvalsh(np.eye(2))  # BLAS is loaded


def threads() -> list[int]:
    return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]


def test_one_thread_within_and_as_many_as_before_after() -> None:
    before = threads()
    with one_blas_thread():
        with one_blas_thread():
            assert set(threads()) == {1}
        assert set(threads()) == {1}
    assert threads() == before


def test_what_is_raised_within_ends_it() -> None:
    before = threads()
    with pytest.raises(ZeroDivisionError), one_blas_thread():
        _ = 1 / 0
    assert threads() == before
