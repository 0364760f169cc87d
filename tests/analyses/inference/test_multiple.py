from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyses.inference import holm


def test_the_example_by_hand() -> None:
    """Four hypotheses: 4 x 0.005, 3 x 0.01, 2 x 0.03, 1 x 0.04, made monotone."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert holm([]).shape == (0,)


def test_missing_tests_do_not_count() -> None:
    adjusted = holm([np.nan, 0.01, np.nan, 0.04])
    assert np.isnan(adjusted[[0, 2]]).all()
    assert adjusted[[1, 3]] == pytest.approx([0.02, 0.04])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.999))
def test_rejections_are_those_of_the_stepwise_procedure(p_values: list[float], level: float) -> None:
    """Holm's own description: test the smallest at level / m, the next at level / (m - 1), until one is kept."""
    order, rejected = np.argsort(p_values, kind="stable"), np.zeros(len(p_values), dtype=bool)
    for step, position in enumerate(order):
        if p_values[position] * (len(p_values) - step) > level:
            break
        rejected[position] = True
    assert ((holm(p_values) <= level) == rejected).all()
