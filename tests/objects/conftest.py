"""Files of a driver whose answers can be spoilt."""

from __future__ import annotations

from collections.abc import Iterator

import fsspec
import pytest

from cachetool.objects import ObjectPath, filesystem
from tests.objects.failing import Failing


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectPath]:
    """A file of ten bytes, read through the driver `Failing` without pauses."""
    monkeypatch.setattr(filesystem, "FIRST_PAUSE", 0.0)
    fsspec.register_implementation("failing", Failing, clobber=True)
    Failing.store.clear()
    Failing.fail, Failing.short, Failing.made = staticmethod(lambda what: None), 0, 0
    path = ObjectPath("failing://host/folder/one")
    Failing().pipe("/folder/one", b"0123456789")
    path.source.look_anew()
    yield path
    Failing.fail, Failing.short = staticmethod(lambda what: None), 0
