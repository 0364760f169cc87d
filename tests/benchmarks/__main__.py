"""One table of all ratios: `make bench`, or `python -m tests.benchmarks NAME...` for some."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks import (
    extraction,
    geometry,
    gpu,
    overhead,
    peers_extraction,
    peers_reading,
    peers_replay,
    replays,
    storage,
    study,
)
from tests.benchmarks.ratios import Comparison

PARTS = {
    "storage": storage.measure,
    "extraction": extraction.measure,
    "replays": replays.measure,
    "overhead": overhead.measure,
    "geometry": geometry.measure,
    "gpu": gpu.measure,
    "study": study.measure,
    "peers-extraction": peers_extraction.measure,
    "peers-replay": peers_replay.measure,
    "peers-nnsight": peers_replay.measure_nnsight,
    "peers-reading": peers_reading.measure,
}


def main(names: list[str]) -> None:
    unknown = sorted(set(names) - set(PARTS))
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    found: list[Comparison] = []
    for name in names or PARTS:
        with tempfile.TemporaryDirectory(prefix="cachetool-benchmark-") as folder:
            for one in PARTS[name](Path(folder)):
                found.append(one)
                print(f"{one.what} / {one.against}: {one.ratio:.2f} {one.unit} {_details(one)}", file=sys.stderr)
    processors, memory = psutil.cpu_count(), psutil.virtual_memory().total / 2**30
    table = Table(
        "what", "against", "ratio", "reach", "seconds, median", "counts",
        title=f"{processors} processors, {memory:.0f} GB, {torch.get_num_threads()} threads, torch {torch.__version__}",
    )  # fmt: skip
    for one in found:
        sign = "at most" if one.unit == "times the time" else "at least"
        table.add_row(
            one.what, one.against, f"{one.ratio:.2f} {one.unit}", f"{sign} {one.reach:g} {'✓' if one.reached else '✗'}",
            *_details(one),
        )  # fmt: skip
    Console(width=190).print(table)


def _details(one: Comparison) -> tuple[str, str]:
    """Seconds of both sides, and what was counted."""
    counts = ", ".join(f"{name} {value}" for name, value in one.counts.items())
    return f"{one.seconds[0]:.3g} / {one.seconds[1]:.3g}", counts


if __name__ == "__main__":
    main(sys.argv[1:])
