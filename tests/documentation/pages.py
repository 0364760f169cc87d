"""The pages of the documentation: where they lie, their links and commands, and which are made from the code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from tests.documentation import command_line, python_names

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"

MADE: dict[Path, Callable[[], str]] = {
    REFERENCE / "command-line.md": command_line.page,
    REFERENCE / "python.md": python_names.page,
}
"""Pages that are made from the code, and what makes them."""

PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])


def prose(text: str) -> str:
    """A page without its code: neither fenced or indented blocks nor spans."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^    .*$", "", text, flags=re.MULTILINE))


def links(text: str) -> list[str]:
    """What the links and images of a page point to."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as hosts of repositories make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def command_lines(text: str) -> list[str]:
    """Lines of fenced and indented blocks that call cachetool, continued ones joined, without what a shell adds."""
    blocks = re.findall(r"^```(?:console)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    calls = [re.match(r"\s*(?:\$ )?(cachetool [a-z].*)", line) for line in lines]
    return [part.strip() for call in calls if call for part in call[1].split("&&")]


def words(line: str) -> list[str]:
    """The words of a call, without comment, redirection and pipe; the `#` of `shapes#train` begins no comment."""
    return shlex.split(re.split(r"\s#|[>|]", line)[0])


def spans(text: str) -> list[str]:
    """Calls of cachetool that stand in a line of text."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`(cachetool [a-z][^`]*)`", outside)
