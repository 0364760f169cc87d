from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachetool.edits.moments import Moments


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any), st.floats(-1e6, 1e6), st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_chunks_merge_to_the_moments_of_all_rows(sizes, offset, seed):
    rows = np.random.default_rng(seed).normal(offset, 1, (sum(sizes), 4)).astype(np.float32)
    plain, full = Moments(4), Moments(4, covariance=True)
    for chunk in np.split(rows, np.cumsum(sizes)[:-1]):
        plain.add(chunk)
        full.add(chunk)
    exact = rows.astype(np.float64)
    assert plain.count == len(rows)
    np.testing.assert_allclose(plain.mean, exact.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(plain.variance, exact.var(axis=0), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(full.variance, plain.variance, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(full.covariance, np.cov(exact, rowvar=False, ddof=0), rtol=1e-6, atol=1e-8)


def test_covariances_must_be_asked_for():
    with pytest.raises(ValueError, match="covariance=True"):
        Moments(3).covariance  # noqa: B018
