"""The direction of imports, and what the core may not do: read from the source, so that no test run can miss it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = (
    {"errors", "events", "files", "heaps", "named_models", "tokens"},
    {"packages"},
    {"objects"},
    {"arithmetic", "environment", "places", "plugins", "provenance", "randomness"},
    {"datasets", "store"},
    {"edits", "embedded", "images", "query", "removing"},
    {"accessor", "annotations", "backbones", "calibrating", "interchange", "samples", "streaming", "tree"},
    {"extraction"},
    {"replaying"},
    {"attending"},
    {"distributing"},
    {"api", "classifying", "differing", "plan", "verifying"},
    {"cli"},
)
"""Parts of the package from the bottom up: each may import those below it, and itself."""

FLOOR = {part: floor for floor, parts in enumerate(LAYERS) for part in parts}
SOURCES = sorted((ROOT / "cachetool").rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "cachetool").with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":  # the public face names everything
        return
    assert part in FLOOR, f"{part} has no place among the layers"
    wrong = set()
    for name in imported(path):
        assert not name.startswith("analyses"), f"{path} imports {name}"
        pieces = name.split(".")
        if pieces[0] == "cachetool" and len(pieces) > 1 and pieces[1] in FLOOR:
            other = pieces[1]
            if other != part and FLOOR[other] >= FLOOR[part]:
                wrong.add(name)
    assert not wrong


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_never_prints(path: Path) -> None:
    if part_of(path) in ("cli", "embedded"):
        return
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not calls


def test_the_command_line_starts_without_torch() -> None:
    """`cachetool --help` should answer at once; importing torch takes seconds."""
    import subprocess
    import sys

    script = "import sys, cachetool.cli as cli; cli.build(); print('torch' in sys.modules)"
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "False"
