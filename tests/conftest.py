"""Fixtures that every test may use, and which tests run in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

TOGETHER = (
    ("tests/analyses/study/",),
    ("tests/analyses/report/",),
    (
        "tests/analyses/attention/", "tests/analyses/evaluation/", "tests/analyses/examples/",
        "tests/analyses/geometry/test_geometry", "tests/analyses/geometry/test_register",
        "tests/analyses/test_analyze",
    ),
    ("tests/replaying/",),
    ("tests/verifying/",),
)  # fmt: skip
"""Beginnings of paths of tests that share what takes seconds to make: a cache and its runs, a study, a model."""

FIRST = (
    "tests/distributing/test_lost_workers", "tests/distributing/test_object_stores", "tests/reference/test_replays",
    "tests/benchmarks/", "tests/faults/", "tests/analyses/study/", "tests/analyses/report/", "tests/analyses/",
    "tests/test_wheel", "tests/test_how_to", "tests/test_tutorial",
)  # fmt: skip
"""Beginnings of paths of the tests that take longest and begin first: none is then left to one process at the end."""

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photographs and weights beside the checkout; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no folder `shared` beside the checkout: real photographs and weights are not at hand")
    return SHARED


@pytest.fixture(scope="session")
def object_server() -> Iterator[Any]:
    """An S3 server on loopback with a bucket `bucket`; skips where obstore or moto is not installed."""
    pytest.importorskip("obstore", reason="the extra [s3] is not installed")
    pytest.importorskip("moto", reason="moto is not installed, an S3 server for tests")
    from tests.objects.server import running

    with running() as server:
        server.make_bucket("bucket")
        yield server


@pytest.fixture
def object_root(object_server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A new place in that bucket, and variables by which it is found."""
    from cachetool.objects import ObjectPath
    from cachetool.objects.bucket import connected

    for name, value in object_server.environment.items():
        monkeypatch.setenv(name, value)
    connected.cache_clear()
    yield ObjectPath(f"s3://bucket/{uuid4().hex[:8]}")
    connected.cache_clear()


@pytest.fixture
def object_proxy(object_server: Any, object_root: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What counts and spoils requests to that place; tests without it are spared the way through it."""
    from cachetool.objects.bucket import connected
    from tests.objects.server import Proxy

    proxy = Proxy(object_server.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    connected.cache_clear()
    yield proxy
    proxy.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put `FIRST` first, each file whole."""

    def place(item: pytest.Item) -> int:
        return next((index for index, path in enumerate(FIRST) if item.nodeid.startswith(path)), len(FIRST))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Keep the tests of a file, or of a group of `TOGETHER`, in one process: they share what they make."""
    from xdist.scheduler import LoadScopeScheduling

    class Sharing(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return next((together[0] for together in TOGETHER if file.startswith(together)), file)

    config.option.loadscopereorder = False  # by their numbers of tests, which say little about the time they take
    return Sharing(config, log)
