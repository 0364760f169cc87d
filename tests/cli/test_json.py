"""`--json` of every command: one JSON object on standard output, and nothing else there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.documentation.command_line import commands
from tests.reference.quick import quick

ROOT = Path(__file__).parents[2]
CACHE = "shapes/tiny-reg"
SMALL = ("--limit", "12", "--workers", "0", "--layers", "11,12")

CALLS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("models",), "models"),
    (("datasets",), "datasets"),
    (("extract", "tiny-reg", "shapes", *SMALL, "--dry-run"), "disk_bytes"),
    (("extract", "tiny-reg", "shapes", *SMALL), "cache"),
    (("info",), "caches"),
    (("info", CACHE), "key_sha256"),
    (("calibrate", CACHE), "calibration"),
    (("replay", CACHE, "--ablation", "zero", "--from-layer", "11", "--tokens", "cls"), "runs"),
    (("diff", CACHE, CACHE), "same"),
    (("verify", CACHE, "--recompute", "0"), "problems"),
    (("analyze",), "analyses"),
    (("study", "--list"), "studies"),
    (("export", CACHE, "cls.h5", "--tokens", "cls"), "file"),
    (("import", "cls.h5", "--root", "received"), "cache"),
    (("remove", "received/shapes/tiny-reg.zarr", "--yes"), "removed"),
)
"""Commands that follow each other, and a name that is in what each of them prints."""

ELSEWHERE = {
    "demo": "tests/test_wheel.py",
    "evaluate": "tests/analyses/evaluation/test_evaluate.py",
    "report": "tests/analyses/report/test_command.py",
}
"""Commands that take longer, and tests that read what they print."""


def test_every_command_has_it_and_is_tried() -> None:
    assert {name for name, one in commands().items() if any("--json" in option.opts for option in one.params)} == set(
        commands()
    )
    assert {arguments[0] for arguments, _ in CALLS} | set(ELSEWHERE) == set(commands())
    for name, file in ELSEWHERE.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        assert '"--json"' in text, name
        assert name in text, name


@pytest.mark.slow
def test_it_prints_one_object(cachetool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with quick():
        for arguments, name in CALLS:
            outcome = cachetool(*arguments, "--json")
            assert outcome.code == 0, (arguments, outcome.err)
            document = json.loads(outcome.out)
            assert isinstance(document, dict)
            assert name in document, (arguments, list(document))
            assert outcome.out.count("\n") == 1
