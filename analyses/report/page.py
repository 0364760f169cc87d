"""The report as one file: text, pictures, charts and the program that draws them, and nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from analyses.report.headline import RULE
from analyses.report.report import Report
from analyses.table_files import check_directory
from cachetool.errors import StoreError


def render(report: Report) -> str:
    """The page. Every text that comes from data is escaped, and the page's policy lets no other script run."""
    folder = files("analyses.report") / "page"
    template, style, script = (
        (folder / name).read_text(encoding="utf-8") for name in ("report.html.jinja", "report.css", "report.js")
    )
    plotly = get_plotlyjs()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        report=report,
        rule=RULE,
        version=version("cachetool"),
        style=Markup(style),
        plotly=Markup(plotly),
        script=Markup(script),
        # Browsers run a script only if its digest is among these: not even a mistake in escaping would run another.
        digests=[_digest(plotly), _digest(script)],
    )


def write_report(report: Report, path: Path) -> None:
    """Write the page beside its place and move it there. Raises `StoreError` where that cannot be done."""
    check_directory(path.parent)
    page = render(report)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)  # noqa: PTH105 - Path.replace does the same, but faults are injected into `os`
    except OSError as error:
        raise StoreError(f"{path} could not be written ({error}); free some space or name another --output") from error
    finally:
        temporary.unlink(missing_ok=True)


def _digest(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
