"""The made-up table that the figures are tested on."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.analyses.figures.synthetic import study_frame


@pytest.fixture(scope="session")
def whole() -> pd.DataFrame:
    """All tasks of the built-in study."""
    return study_frame()


@pytest.fixture
def frame(whole: pd.DataFrame) -> pd.DataFrame:
    """Two of its tasks, to change at will: fewer panels are drawn faster."""
    return whole[whole["task"].isin(["classification", "segmentation"])].reset_index(drop=True)
