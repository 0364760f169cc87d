"""Where the time goes: `python -m tests.benchmarks.profiles [extract] [replay] [query] [study]`, all four by default.

Python's own profiler watches the main thread, which runs the blocks; what reader, writer and decoding processes do at
the same time shows as waiting, where it is waited for. Sizes are those of the other benchmarks: ViT-S/14 with four
registers, random weights, JPEG files; the study is the embedded one.
"""

from __future__ import annotations

import cProfile
import pstats
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

import cachetool
from analyses.study.loading import load_study
from analyses.study.narrowing import narrow
from analyses.study.run import run_study
from analyses.study.table import write_study
from cachetool import Edit
from cachetool.extraction import extract, prepare
from tests.benchmarks.models import ARCHITECTURE, BATCH, EDITS, FROM_LAYER, MODEL, make_photos
from tests.benchmarks.study import IMAGES
from tests.reference.plain_models import random_vit, save_weights

BUILT_IN = {
    "linear": "blocks: products with weights",
    "scaled_dot_product_attention": "blocks: attention",
    "gelu": "blocks: GELU",
    "layer_norm": "blocks: layer norm",
    "acquire": "waiting for other threads and processes",
    "poll": "waiting for other threads and processes",
    "fsync": "files: fsync",
    "posix.": "files: other calls of the system",
    "_io.": "files: other calls of the system",
    "method 'read' of": "files: other calls of the system",
    "copy_": "states: rounding and copying",
    "'to' of": "states: rounding and copying",
    "index_put": "states: edits",
    "torch": "torch: all else",
    "Tensor": "torch: all else",
}
"""Groups of functions written in C, by a part of their names; the first that fits counts."""
PACKAGES = (
    "cachetool", "analyses", "torch", "timm", "xarray", "dask", "zarr", "numpy", "scipy", "sklearn", "matplotlib",
)  # fmt: skip
PROFILED = 256
"""Images of the extraction and of the replay."""
LEAST = 0.01
"""Share of the time from which on a group has a row of its own."""


def main(names: list[str]) -> None:
    """Profile what is named, and print a table for each."""
    unknown = sorted(set(names) - set(PARTS))
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    for name in names or PARTS:
        with tempfile.TemporaryDirectory(prefix="cachetool-profile-") as folder, PARTS[name](Path(folder)) as work:
            profile = cProfile.Profile()
            profile.runcall(work)
        Console(width=100).print(_table(name, pstats.Stats(profile)))


@contextmanager
def _extraction(folder: Path) -> Iterator[Callable[[], object]]:
    data = f"imagefolder:{make_photos(folder / 'photos')}"
    weights = save_weights(random_vit(ARCHITECTURE, seed=0), folder / "weights.safetensors")
    cachetool.extract(MODEL, data, root=folder / "warm", weights=weights, limit=BATCH)
    yield lambda: extract(prepare(MODEL, data, root=folder / "caches", weights=weights, limit=PROFILED))


@contextmanager
def _cached(folder: Path) -> Iterator[Path]:
    with _extraction(folder) as work:
        work()
    yield next((folder / "caches").rglob(f"{MODEL}.zarr"))


@contextmanager
def _replay(folder: Path) -> Iterator[Callable[[], object]]:
    edits = [Edit("registers", one, FROM_LAYER) for one in EDITS]
    with _cached(folder) as path:
        artefact = cachetool.calibrate(path).attrs["cachetool_path"]
        yield lambda: cachetool.replay(path, edits, calibration=artefact)


@contextmanager
def _query(folder: Path) -> Iterator[Callable[[], object]]:
    """Registers of all layers, then the mean of all patches of one layer, through xarray and dask."""
    with _cached(folder) as path:

        def work() -> None:
            opened = cachetool.open(path)
            opened.registers.load()
            opened.patches.sel(layer=FROM_LAYER).mean(("image", "patch")).compute()

        yield work


@contextmanager
def _study(folder: Path) -> Iterator[Callable[[], object]]:
    study = narrow(load_study("zero-ablation"), limit=IMAGES)
    yield lambda: write_study(run_study(study, root=folder / "activations"), folder / "study")
    shutil.rmtree(folder / "study")


PARTS = {"extract": _extraction, "replay": _replay, "query": _query, "study": _study}


def _table(name: str, stats: pstats.Stats) -> Table:
    """Shares of groups of functions in the time of the main thread, by the time spent in themselves."""
    groups: Counter[str] = Counter()
    for (file, _line, function), (_calls, _all, own, _below, _callers) in stats.stats.items():  # type: ignore[attr-defined]
        groups[_group(file, function)] += own
    total = sum(groups.values())
    table = Table("where", "share", "seconds", title=f"{name}: {total:.1f} s in the main thread, under the profiler")
    for group, seconds in groups.most_common():
        if seconds >= LEAST * total:
            table.add_row(group, f"{100 * seconds / total:.0f} %", f"{seconds:.2f}")
    rest = sum(seconds for seconds in groups.values() if seconds < LEAST * total)
    table.add_row("all else", f"{100 * rest / total:.0f} %", f"{rest:.2f}")
    return table


def _group(file: str, function: str) -> str:
    if file == "~":
        return next((group for part, group in BUILT_IN.items() if part in function), "Python and other extensions")
    parts = Path(file).parts
    return next((f"code of {package}" for package in PACKAGES if package in parts), "Python and other packages")


if __name__ == "__main__":
    main(sys.argv[1:])
