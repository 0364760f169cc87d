"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

COSTLY = ("finished", "reported", "small")
"""Fixtures of a session that take half a minute: with several processes, all tests that use one run in one of them."""

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photographs and weights beside the checkout; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no folder `shared` beside the checkout: real photographs and weights are not at hand")
    return SHARED


@pytest.hookimpl(tryfirst=True)  # before xdist puts the group into the name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for `--dist loadgroup`: those of a costly fixture, else those of a file, which share caches."""
    names: dict[Path, set[str]] = {}
    for item in items:
        names.setdefault(item.path, set()).update(getattr(item, "fixturenames", ()))
    for item in items:
        shared = next((name for name in COSTLY if name in names[item.path]), None)
        item.add_marker(pytest.mark.xdist_group(shared or str(item.path)))
