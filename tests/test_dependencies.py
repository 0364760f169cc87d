"""Dependencies are declared, described, and imported where the page says: `docs/dependencies.md` against the source."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
SOURCES = sorted([*(ROOT / "cachetool").rglob("*.py"), *(ROOT / "analyses").rglob("*.py")])

FOR_DEVELOPERS = ("dev", "fuzz", "mutation", "peers")
MODULES = {
    "google-crc32c": "google_crc32c",
    "huggingface-hub": "huggingface_hub",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
}
"""Modules that are not called as their package is."""

NEVER_IMPORTED = {"h5netcdf": "named as an engine to xarray", "torchvision": "imported by timm"}
FIGURES = ("analyses/figures/", "analyses/report/")
"""Folders that only commands import which have looked for the packages of `[report]` first."""


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", text)[0] for text in requirements}  # type: ignore[index]


CORE = names(PROJECT["dependencies"])
EXTRAS = {name: names(requirements) for name, requirements in PROJECT["optional-dependencies"].items() if name != "all"}


def imported(path: Path, *, eagerly: bool = False) -> set[str]:
    """Packages that a file imports; `eagerly` leaves out what functions and `TYPE_CHECKING` import."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
        lazy = isinstance(node, ast.FunctionDef) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        )
        if not (eagerly and lazy):
            waiting += ast.iter_child_nodes(node)
    return found


def test_the_page_describes_all_that_is_declared_and_nothing_else() -> None:
    core, extras = PAGE.split("## Extras")
    assert set(re.findall(r"^\| `([\w-]+)` \|", core, re.MULTILINE)) == CORE
    listed = set(re.findall(r"^\| `(\w+)` \| `([\w-]+)` \|", extras, re.MULTILINE))
    assert listed == {(name, one) for name, found in EXTRAS.items() if name not in FOR_DEVELOPERS for one in found}


def test_all_is_every_extra_that_a_command_needs() -> None:
    wanted = {f"cachetool[{name}]" for name in EXTRAS if name not in FOR_DEVELOPERS}
    assert set(PROJECT["optional-dependencies"]["all"]) == wanted
    assert "cachetool[all]" in PROJECT["optional-dependencies"]["dev"], "`make demo` and `make test` need them"


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    known = {*sys.stdlib_module_names, "cachetool", "analyses", "zarrs"}
    used = set().union(*map(imported, SOURCES)) - known
    packages = {module: package for package, module in MODULES.items()} | {"markupsafe": "jinja2"}  # of one maker
    optional = set().union(*(found for name, found in EXTRAS.items() if name not in FOR_DEVELOPERS))
    assert {packages.get(module, module) for module in used} == (CORE | optional) - set(NEVER_IMPORTED)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_optional_packages_are_imported_where_they_were_looked_for(path: Path) -> None:
    if str(path.relative_to(ROOT)).startswith(FIGURES):
        return
    optional = set().union(*(found for name, found in EXTRAS.items() if name not in FOR_DEVELOPERS))
    assert not imported(path, eagerly=True) & optional
