"""`cachetool export` and `cachetool import`, as typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def test_there_and_back(cachetool: Any) -> None:
    cachetool("extract", "tiny-reg", "shapes", "--limit", "6", "--workers", "0", "--layers", "0,12")
    exported = cachetool("export", "shapes/tiny-reg", "a.h5", "--tokens", "cls,registers", "--limit", "4", "--json")
    found = json.loads(exported.out)
    assert {name: found[name] for name in ("file", "images", "layers", "tokens")} == {
        "file": "a.h5", "images": 4, "layers": [0, 12], "tokens": ["cls", "registers"]
    }  # fmt: skip
    assert found["bytes"] == Path("a.h5").stat().st_size
    imported = cachetool("import", "a.h5", "--root", "other", "--json")
    assert json.loads(imported.out)["cache"] == "other/shapes/tiny-reg.zarr"
    assert cachetool("verify", "other/shapes/tiny-reg.zarr").code == 0
    assert cachetool("import", "a.h5", "--name", "second").out.strip() == "activations/shapes/second.zarr"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("export", "shapes/tiny-reg", "a.h5"), "no cache at"),
        (("import", "absent.h5"), "there is no file absent.h5"),
        (("import", "text.h5"), "cannot be read as HDF5"),
    ],
)
def test_bad_input(cachetool: Any, arguments: tuple[str, ...], expected: str) -> None:
    Path("text.h5").write_text("not HDF5")
    outcome = cachetool(*arguments)
    assert outcome.code == 2
    assert expected in outcome.err
    assert "Traceback" not in outcome.err
