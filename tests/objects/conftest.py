"""Buckets and files without a server: of any provider, and of a driver whose answers can be spoilt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

from cachetool.objects import ObjectPath, bucket, filesystem
from tests.objects.failing import Failing


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bucket.Bucket]:
    """Make a bucket of any provider, whose objects lie in memory; functions of obstore can be replaced."""
    obstore = pytest.importorskip("obstore", reason="the extra [s3] is not installed")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "name")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")

    def make(scheme: str, **replaced: Any) -> bucket.Bucket:
        made = bucket.Bucket(scheme, "bucket")
        made._store = obstore.store.MemoryStore()
        made._module = SimpleNamespace(**{**vars(obstore), **replaced})
        return made

    return make


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
