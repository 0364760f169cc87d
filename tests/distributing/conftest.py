"""Two workers as threads of the test's process: what they do is what worker processes do, without their start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reference.quick import quick

TIMES = ("seconds",)
"""Facts that no two computations share; nor need they share the number of threads."""


@pytest.fixture(scope="session", autouse=True)
def distributed() -> Any:
    return pytest.importorskip("distributed", reason="the extra [distributed] is not installed")


@pytest.fixture(scope="session", autouse=True)
def quick_session() -> Iterator[None]:
    with quick():
        yield


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cachetool.extraction.request.default_block", lambda *arguments: 4)
        yield


@pytest.fixture(scope="session")
def client(distributed: Any) -> Iterator[Any]:
    options = {"processes": False, "n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster, set_as_default=False) as connected:
        yield connected


def stored(root: Path) -> dict[str, Any]:
    """All files below a root by path, as bytes; of root documents what they say, without their checksum and times."""
    found: dict[str, Any] = {}
    for file in sorted(root.rglob("*")):
        if not file.is_file() or file.name == "guard":
            continue
        name = file.relative_to(root).as_posix()
        found[name] = file.read_bytes()
        if file.name == "zarr.json" and (file.parent / ".cachetool").is_dir():
            document = json.loads(file.read_bytes())
            about = document["attributes"]["cachetool"]
            about["facts"] = {key: value for key, value in about["facts"].items() if key not in TIMES}
            about["facts"].get("environment", {}).pop("threads", None)
            about.pop("crc32c", None)
            found[name] = document
    return found


@pytest.fixture
def contents() -> Any:
    """The helper of this file, since test files cannot import it."""
    return stored
