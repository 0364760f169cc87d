"""Every page is listed by its purpose, its links lead somewhere, its commands can be typed, its examples are tried."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.documentation.command_line import commands
from tests.documentation.pages import DOCS, MADE, PAGES, ROOT, anchors, command_lines, links, spans, words

IDS = [str(page.relative_to(ROOT)) for page in PAGES]

EXECUTED = {
    "README.md": "tests/test_how_to.py",
    "docs/extending.md": "tests/analyses/test_extending.py",
    "docs/format.md": "tests/test_how_to.py",
    **{f"docs/how-to/{page.name}": "tests/test_how_to.py" for page in DOCS.glob("how-to/*.md")},
}
"""Pages with fenced examples, and the tests that carry them out."""


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.name)
def test_what_is_made_from_the_code_is_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == MADE[path](), "write it again: python -m tests.documentation"


def test_the_index_lists_every_page_once() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = [link for link in links(index) if not link.startswith("../")]
    pages = {str(page.relative_to(DOCS)) for page in [*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")]} - {"index.md"}
    assert sorted(listed) == sorted(pages)


def test_the_citation_is_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    given = dict(re.findall(r"^([\w-]+): *(\S.*)?$", citation, re.MULTILINE))
    assert {"cff-version", "message", "title", "authors"} <= set(given), "what the schema requires"
    assert (given["title"], given["version"], given["license"]) == tuple(
        project[key] for key in ("name", "version", "license")
    )


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page.read_text(encoding="utf-8")):
        place, _, anchor = link.partition("#")
        if "://" in place:
            continue
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_can_be_typed(page: Path) -> None:
    """Those of blocks are whole; those within a line may leave out what has to be named."""
    text, known = page.read_text(encoding="utf-8"), commands()
    for line, whole in [*((one, True) for one in command_lines(text)), *((one, False) for one in spans(text))]:
        name, *arguments = words(line)[1:]
        if page in MADE and "[OPTIONS]" in arguments:
            continue
        assert name in known, line
        try:
            known[name].make_context(name, arguments)
        except Exception as error:
            if whole or type(error).__name__ != "MissingParameter":
                pytest.fail(f"{line}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_examples_are_carried_out(page: Path) -> None:
    name = str(page.relative_to(ROOT))
    if re.search(r"^```(python|console)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        assert (ROOT / EXECUTED[name]).is_file()
