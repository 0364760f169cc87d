"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photographs and weights beside the checkout; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no folder `shared` beside the checkout: real photographs and weights are not at hand")
    return SHARED
