"""How cost grows with images, states, blocks, edits, tokens and image size: `python -m tests.benchmarks.scaling`.

Child processes say what it took: seconds, processor seconds (which say more on a busy machine), bytes read from disk
(files are forgotten before), blocks run, and the largest anonymous memory beyond imports, for which every number of
images has a process of its own. `--figure FILE` draws it.
`--model dinov2-reg-s` measures memory and time against images with ViT-S/14, random weights and JPEG files instead.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.memory_of_analyses import MEGABYTE, anonymous_bytes, peak_until_answer
from tests.benchmarks.storage import forget

TINY, SMALL = "tiny-reg", "dinov2-reg-s"
FROM_LAYER = 6
"""First edited state, where that is not what changes."""
POLL = 0.01
"""Seconds between two looks at a process: often enough to see a block, seldom enough not to slow it down."""
IMAGES = 256
"""Images, where their number is not what changes."""
MOST_PHOTOS = 1536
"""A multiple of the images of a run's largest block (128 of ViT-S), by which memory must have stopped to grow."""


@dataclass(frozen=True)
class Series:
    """One operation, measured at several values of one quantity."""

    operation: str
    """`extract` or `replay`."""
    against: str
    """The quantity, as a label of an axis."""
    values: tuple[float, ...]
    """Its values."""
    points: tuple[dict[str, Any], ...]
    """What a child is asked for, by value."""

    def measured(self, root: Path) -> Measured:
        """Measure all points, each in a process of its own where memory is compared: against images."""
        if self.operation == "replay" and (missing := [point for point in self.points if not _cache(root, point)]):
            run_child("prepare", missing, root)
        parts = [(point,) for point in self.points] if self.against == "images" else [self.points]
        return Measured(self, tuple(cost for points in parts for cost in run_child(self.operation, points, root)))


@dataclass(frozen=True)
class Measured:
    """A series with what was found."""

    series: Series
    costs: tuple[dict[str, float], ...]
    """`seconds`, `cpu_seconds` (of all threads), `read_bytes`, `stored_bytes`, `blocks` (blocks times images) and
    `peak_bytes`, by value."""

    def column(self, cost: str) -> np.ndarray:
        """One cost at all values, float64 (value,)."""
        return np.array([found[cost] for found in self.costs])

    def fit(self, cost: str) -> tuple[float, float, float]:
        """Intercept and slope of the straight line through a cost, and the share of variance it explains (R²)."""
        x, y = np.array(self.series.values, dtype=np.float64), self.column(cost)
        slope, intercept = np.polyfit(x, y, 1)
        residual = np.square(y - slope * x - intercept).sum()
        total = np.square(y - y.mean()).sum()
        return float(intercept), float(slope), float(1 - residual / total) if total else 1.0

    def exponent(self, cost: str) -> float:
        """Exponent of the power law through a cost: 1 where it is proportional, 0 where it does not grow."""
        if not (self.column(cost) > 0).all():
            return float("nan")
        return float(np.polyfit(np.log(self.series.values), np.log(self.column(cost)), 1)[0])


def series_of_images(model: str) -> list[Series]:
    """Extraction and replay against images; the smallest holds one block or less."""
    counts = (64, 256, 768, 1536) if model == TINY else (64, 256, 512, MOST_PHOTOS)
    point = {"model": model, "edits": 2}
    return [
        Series(name, "images", counts, tuple({**point, "images": count} for count in counts))
        for name in ("extract", "replay")
    ]


def other_series() -> list[Series]:
    """Everything else, on the embedded model."""
    point = {"model": TINY, "images": IMAGES, "edits": 2}
    stored = (1, 7, 13)
    blocks = (1, 4, 8, 12)
    edits = (1, 2, 4)
    tokens = {1: ["cls"], 5: ["cls", "registers"], 69: None}
    sizes = (64, 96, 128, 192)
    per_size = {"model": TINY, "images": 64, "edits": 2}
    return [
        Series("extract", "states stored", stored, tuple({**point, "layers": _last(count)} for count in stored)),
        Series("replay", "blocks replayed", blocks, tuple({**point, "from_layer": 12 - count} for count in blocks)),
        Series("replay", "edits", edits, tuple({**point, "edits": count} for count in edits)),
        Series(
            "replay", "tokens kept per image", tuple(tokens),
            tuple({**point, "from_layer": 11, "keep_tokens": kept} for kept in tokens.values()),
        ),
        *(
            Series(
                name, "tokens of the sequence", tuple((size // 8) ** 2 + 5 for size in sizes),
                tuple({**per_size, "image_size": size} for size in sizes),
            )
            for name in ("extract", "replay")
        ),
    ]  # fmt: skip


def _last(count: int) -> list[int]:
    """The last states, so that all blocks run whatever is stored."""
    return list(range(13 - count, 13))


def run_child(operation: str, points: Sequence[dict[str, Any]], root: Path) -> list[dict[str, float]]:
    """Costs of points, one after the other in one new process."""
    # By default glibc keeps much of what was freed (see `analyses.analysis`), which would count as if it were in use.
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.scaling", "--child", operation, "--root", str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        # Threads that wait for each other on a busy machine count as busy too, so there is one.
        env=os.environ | {"MALLOC_TRIM_THRESHOLD_": str(MEGABYTE), "OMP_NUM_THREADS": "1"},
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    costs = []
    with process:
        assert process.stdout.readline() == "ready\n", f"{operation} failed; its error is above"
        baseline = anonymous_bytes(process.pid)
        for point in points:
            forget(root)
            process.stdin.write(json.dumps(point) + "\n")
            process.stdin.flush()
            peak = peak_until_answer(process, POLL) - baseline
            costs.append({**json.loads(process.stdout.readline()), "peak_bytes": peak})
        process.stdin.close()
    return costs


def _folder(root: Path, point: dict[str, Any]) -> Path:
    """Where the cache lies that a point replays."""
    return root / f"{point['images']}-{point.get('image_size')}"


def _cache(root: Path, point: dict[str, Any]) -> list[Path]:
    return list(_folder(root, point).glob("*/*.calibrations"))


def run_points(operation: str, root: Path) -> None:
    """The child: import everything, then do what each line of standard input says."""
    import cachetool
    from cachetool.backbones.base import Backbone

    blocks = 0
    run = Backbone.run

    def counting(self: Any, state: Any, start: int, stop: int, *rest: Any, **named: Any) -> Any:
        nonlocal blocks
        blocks += (stop - start) * len(state)
        return run(self, state, start, stop, *rest, **named)

    Backbone.run = counting  # type: ignore[method-assign]
    cachetool.extract(TINY, "shapes", root=root / f"first-{os.getpid()}", limit=8, workers=0)
    print("ready", flush=True)
    for line in sys.stdin:
        point = json.loads(line)
        folder = root / "extracted" if operation == "extract" else _folder(root, point)
        if operation == "extract":
            shutil.rmtree(folder, ignore_errors=True)
        for runs in folder.glob("*/*.runs"):
            shutil.rmtree(runs)
        blocks, read, started, used = 0, _bytes_from_disk(), time.perf_counter(), time.process_time()
        _replay(folder, point) if operation == "replay" else _extract(folder, point, root)
        times = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - used}
        if operation == "prepare" and not _cache(root, point):
            cachetool.calibrate(next(folder.glob("*/*.zarr")))
        stores = folder.glob("*/*.zarr" if operation == "extract" else "*/*.runs/*.zarr")
        stored = sum(file.stat().st_size for store in stores for file in store.rglob("c.*") if file.is_file())
        found = {**times, "read_bytes": _bytes_from_disk() - read, "stored_bytes": stored, "blocks": blocks}
        print("done", flush=True)
        print(json.dumps(found), flush=True)


def _extract(folder: Path, point: dict[str, Any], root: Path) -> None:
    import cachetool
    from cachetool.extraction import request

    if "block" in point:
        request.default_block = lambda *arguments: point["block"]
    tiny = point["model"] == TINY
    # Scenes are drawn, and photographs decoded, in this process: what other processes hold would not be seen.
    cachetool.extract(
        point["model"], "shapes#train" if tiny else f"imagefolder:{root / 'photos'}", root=folder,
        limit=point["images"], layers=point.get("layers"), image_size=point.get("image_size"),
        weights=None if tiny else root / "weights.safetensors", workers=0,
    )  # fmt: skip


def _replay(folder: Path, point: dict[str, Any]) -> None:
    import cachetool

    layer = point.get("from_layer", FROM_LAYER)
    cachetool.replay(
        next(folder.glob("*/*.zarr")),
        [cachetool.Edit("registers", "shuffle", layer, seed=seed) for seed in range(point["edits"])],
        calibration=next(folder.glob("*/*.calibrations/*.zarr")),
        keep_tokens=point.get("keep_tokens"),
    )


def _bytes_from_disk() -> int:
    text = Path("/proc/self/io").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("read_bytes"))


def table(found: Sequence[Measured]) -> str:
    """One line per point, and under each series its fits."""
    lines = []
    for one in found:
        lines.append(f"{one.series.operation} against {one.series.against}")
        lines.append(
            f"{'value':>8}{'seconds':>10}{'CPU s':>10}{'read MB':>10}{'stored MB':>11}{'blocks':>9}{'peak MB':>9}"
        )
        for value, cost in zip(one.series.values, one.costs, strict=True):
            lines.append(
                f"{value:8g}{cost['seconds']:10.2f}{cost['cpu_seconds']:10.2f}{cost['read_bytes'] / MEGABYTE:10.1f}"
                f"{cost['stored_bytes'] / MEGABYTE:11.2f}{cost['blocks']:9.0f}{cost['peak_bytes'] / MEGABYTE:9.0f}"
            )
        for cost, unit, name in (
            ("cpu_seconds", 1, "s"),
            ("stored_bytes", MEGABYTE, "MB"),
            ("peak_bytes", MEGABYTE, "MB"),
        ):
            start, slope, explained = one.fit(cost)
            lines.append(
                f"    {cost}: {start / unit:.3g} + {slope / unit:.3g} x {name}, R² {explained:.4f}, "
                f"exponent {one.exponent(cost):.2f}"
            )
    return "\n".join(lines)


def draw(found: Sequence[Measured], path: Path) -> None:
    """Six panels: time and memory against images, and time or bytes against everything else."""
    from matplotlib.figure import Figure

    from analyses.figures.style import BLUE, GREY, VERMILION, entitle, save, tidy

    by_name = {(one.series.operation, one.series.against): one for one in found}
    figure = Figure(figsize=(9.5, 6.6), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    colours = {"extract": BLUE, "replay": VERMILION}

    def line(axes: Any, key: tuple[str, str], cost: str, unit: float = 1.0, label: str | None = None) -> None:
        one = by_name[key]
        x = np.array(one.series.values)
        axes.plot(x, one.column(cost) / unit, "o", ms=4, color=colours[key[0]], label=label or key[0])
        if cost != "peak_bytes" and key[1] != "tokens of the sequence":
            start, slope, _ = one.fit(cost)
            axes.plot(x, (start + slope * x) / unit, "-", lw=1, color=colours[key[0]])
        else:
            axes.plot(x, one.column(cost) / unit, "-", lw=0.8, color=GREY, zorder=0)

    for axes, against, cost, unit, label in (
        (panels[0], "images", "cpu_seconds", 1, "processor seconds"),
        (panels[1], "images", "peak_bytes", MEGABYTE, "peak memory (MB)"),
        (panels[2], "blocks replayed", "cpu_seconds", 1, "processor seconds"),
        (panels[3], "edits", "cpu_seconds", 1, "processor seconds"),
        (panels[4], "states stored", "stored_bytes", MEGABYTE, "stored (MB)"),
        (panels[5], "tokens of the sequence", "cpu_seconds", 1, "processor seconds"),
    ):
        for operation in colours:
            if (operation, against) in by_name:
                line(axes, (operation, against), cost, unit)
        axes.set_xlabel(against, fontsize=8)
        axes.set_ylabel(label, fontsize=8)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        tidy(axes)
    panels[0].legend(frameon=False, fontsize=8)
    entitle(
        figure,
        "Cost against what is asked for",
        f"tiny-reg on scenes of shapes, one thread. {IMAGES:,} images and two edits of registers from state "
        f"{FROM_LAYER}, where these are not what changes; 64 images in the last panel. Lines are straight-line fits; "
        "in the panels of memory and image size they only join points. Memory is anonymous memory beyond imports.",
    )
    save(figure, path)


def prepare_photos(root: Path) -> None:
    """Photographs and random weights of ViT-S/14."""
    from tests.benchmarks.models import ARCHITECTURE, make_photos
    from tests.reference.plain_models import random_vit, save_weights

    make_photos(root / "photos", MOST_PHOTOS)
    save_weights(random_vit(ARCHITECTURE, seed=0), root / "weights.safetensors")


def main() -> None:
    """Measure, print, and draw if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=(TINY, SMALL), default=TINY)
    parser.add_argument("--figure", type=Path, help="where to draw it")
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        run_points(given.child, given.root)
        return
    with tempfile.TemporaryDirectory(prefix="cachetool-scaling-") as folder:
        root = Path(folder)
        if given.model == SMALL:
            prepare_photos(root)
        series = series_of_images(given.model) + (other_series() if given.model == TINY else [])
        found = []
        for one in series:
            found.append(one.measured(root))
            print(table(found[-1:]), flush=True)
    if given.figure:
        draw(found, given.figure)


if __name__ == "__main__":
    main()
