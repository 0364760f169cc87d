"""All tests of this folder run with quick models and a quick disk."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.reference.quick import quick


@pytest.fixture(scope="session", autouse=True)
def quick_session() -> Iterator[None]:
    with quick():
        yield
