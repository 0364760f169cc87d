"""Values that were computed again are compared with those that are stored."""

from __future__ import annotations

import numpy as np

from cachetool.verifying.comparing import Comparison


def test_rounding_is_allowed_and_more_is_not() -> None:
    random = np.random.default_rng(0)
    exact = random.normal(size=(5, 64)).astype(np.float32)
    for dtype, stored in (("float16", exact.astype(np.float16)), ("float32", exact)):
        same = Comparison(0, "a", dtype)
        same.add("patches", 3, stored, stored)
        assert (same.result().problem, same.result().bit_equal) == ("", 1.0)
        near = Comparison(0, "a", dtype)
        near.add("patches", 3, np.nextafter(stored, stored.dtype.type(9)), stored)
        assert (near.result().problem, near.result().bit_equal) == ("", 0.0)
        far = Comparison(0, "a", dtype)
        wrong = stored.copy()
        wrong[2, 5] += 0.02
        far.add("patches", 3, wrong, stored)
        assert "patches at state 3" in far.result().problem
        absent = Comparison(0, "a", dtype)
        wrong[2, 5] = np.nan
        absent.add("patches", 3, wrong, stored)
        assert absent.result().problem
