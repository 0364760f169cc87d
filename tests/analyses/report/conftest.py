"""One small cache with all that a report shows: runs that kept states, analyses, a table; and the page of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

import cachetool
from analyses.analyze import analyze
from analyses.evaluation.evaluate import evaluate
from analyses.evaluation.rows import write_table
from analyses.netcdf import write_netcdf
from analyses.report.page import write_report
from analyses.report.report import Report, build_report
from cachetool import Edit
from cachetool.places import analyses_directory
from tests.analyses.conftest import path_of
from tests.reference.quick import quick

IMAGES = 40
KEPT = (6, 11, 12)
MEASURED = ("token-norms", "attention-flow", "register-cosine", "nearest-patches", "patch-similarity", "effective-rank")


@dataclass(frozen=True)
class Reported:
    """A cache, its table, and the report of both."""

    root: Path
    cache: Path
    table: Path
    report: Report
    page: Path


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """Tests read it, and must not change it."""
    root = tmp_path_factory.mktemp("reported")
    with quick():
        cache = path_of(cachetool.extract("tiny-reg", "shapes#val", root=root / "activations", limit=IMAGES, workers=0))
        # Another cache under the same root, which no table names.
        cachetool.extract("tiny-reg", "shapes#train", root=root / "activations", limit=4, layers=[12], workers=0)
        edits = [
            Edit("registers", "none", 6),
            *(Edit("registers", name, 6) for name in ("zero", "mean", "shuffle")),
            *(Edit("cls", name, 6, until_layer=11) for name in ("zero", "mean")),
        ]
        cachetool.replay(cache, edits, keep=KEPT)
        cachetool.replay(cache, [Edit("registers", "noise", 6)])
        rows = evaluate(cache, tasks=["retrieval", "correspondence"], resamples=200)
        table, _ = write_table(rows, root / "table" / "table")
        for name in MEASURED:
            layers = None if name == "patch-similarity" else [6, 11] if name == "attention-flow" else KEPT
            write_netcdf(analyze(name, cache, layers=layers), analyses_directory(cache) / f"{name}.nc")
        report = build_report([cache], [table], images=2)
        page = root / "report.html"
        write_report(report, page)
    return Reported(root, cache, table, report, page)
