"""Peak memory of every announced analysis, against the bound that its documentation states.

`python -m tests.benchmarks.memory_of_analyses [--root DIR] [--threads N]` makes caches with random tokens, several
times larger than any bound, runs each analysis in a process of its own, on a quarter of the images and on all of
them, and prints what it took beyond its imports and the opening of the stores.
"""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil, log2
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import cachetool
from analyses.analysis import analyses, find_analysis
from analyses.geometry.moments import SLICE
from cachetool.attending import CHUNK_BYTES
from cachetool.extraction import prepare
from cachetool.store import ImageTable, NormSpec, StoreSpec, StoreWriter, create
from cachetool.tokens import TokenLayout

MEGABYTE = 10**6

ALLOWANCE = 32 * MEGABYTE
"""What every analysis may take beside its bound: code loaded on first use, graphs, buffers of BLAS and of torch. An
analysis of a few tokens takes about 20 MB."""

THREADS = 2
"""dask threads, so that bounds are the same on every machine."""

POLL = 0.002
"""Seconds between two looks at a process: blocks are held for tens of milliseconds."""

STATES, DEPTH = (5, 11, 12), 12
"""States that the stores hold: two that are the input of a block, and the last, which is normalised as it is read."""

PARAMETERS = 1_400_000
"""Parameters of `tiny-reg`, rounded up."""


@dataclass(frozen=True)
class Case:
    """An analysis, what it is run on, and the bound in its documentation."""

    bound: Callable[[xr.Dataset], float]
    """Bytes for an opened store."""
    data: Callable[[xr.Dataset], float]
    """Bytes, as float32, of what it goes through: what it would take if it held all at once."""
    stores: tuple[str, ...] = ("one",)
    """Stores in the order of the function's parameters."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the analysis."""
    limit: int | None = None
    """Use the first images only."""
    grows: bool = False
    """Whether the bound itself grows with the images."""


@dataclass(frozen=True)
class Peak:
    """What was measured."""

    analysis: str
    """Name of the analysis."""
    data: float
    """Bytes that it went through."""
    bound: float
    """Stated bytes."""
    quarter: float
    """Bytes above the baseline on a quarter of the images."""
    whole: float
    """Bytes above the baseline on all of them."""
    seconds: float
    """Time on all of them."""


def block(store: xr.Dataset, token_type: str = "patches") -> float:
    """Bytes of one block of images at one state. B of `analyses.analysis`."""
    return 4 * max(store[token_type].chunksizes["image"]) * store[token_type].isel(image=0, layer=0).size


def matrix(store: xr.Dataset, views: int = 1) -> float:
    """Bytes of a matrix of products of all channels, of one or two stores."""
    return 8 * (views * store.sizes["channel"]) ** 2


def moments(store: xr.Dataset, views: int = 1) -> float:
    """Bytes of pooled moments: matrices that are merged, and tokens in float64. P of `analyses.analysis`."""
    doublings = ceil(log2(max(2, len(store.patches.chunksizes["image"]))))
    per_thread = 4 * matrix(store, views) + 2 * 8 * SLICE * views * store.sizes["channel"]
    return THREADS * per_thread + doublings * matrix(store, views)


def states(store: xr.Dataset, token_type: str = "patches") -> float:
    """Bytes of a token type of all images at all states."""
    return 4 * store[token_type].size


def attention(store: xr.Dataset) -> float:
    """Bytes of the attention of all images in the blocks whose input is stored."""
    return 4 * store.sizes["image"] * (len(STATES) - 1) * 3 * _tokens(store) ** 2


def attending(store: xr.Dataset) -> float:
    """Bytes per thread of one chunk of attention as it is computed, and of the states of its images. A there."""
    chunk = max(CHUNK_BYTES, 4 * 3 * _tokens(store) ** 2)
    images = max(1, CHUNK_BYTES // (4 * 3 * _tokens(store) ** 2))
    return 3 * chunk + 8 * 4 * images * _tokens(store) * store.sizes["channel"]


def _tokens(store: xr.Dataset) -> int:
    return 1 + store.sizes["register"] + store.sizes["patch"]


def _of_registers(store: xr.Dataset) -> float:
    """Bytes of all registers of a state of the store and of as large a training cache, and of one probe."""
    images, channels = store.sizes["image"], store.sizes["channel"]
    return 2 * 2 * 4 * images * store.sizes["register"] * channels + 6 * 8 * images * channels


CASES = {
    "attention-divergence": Case(
        lambda store: 16 * PARAMETERS + THREADS * (attending(store) + 2 * CHUNK_BYTES),
        lambda store: 2 * attention(store),
        ("one", "other"),
        limit=256,
    ),
    "attention-flow": Case(lambda store: 12 * PARAMETERS + THREADS * attending(store), attention, limit=384),
    "attention-maps": Case(
        # Of every map 261 x 261 attentions are computed, and 5 x 256 kept.
        lambda store: 12 * PARAMETERS + THREADS * attending(store) + 2 * attention(store) * 5 / 261,
        attention,
        options={"images": range(480)},
        limit=480,
    ),
    "cka-between-layers": Case(
        lambda store: THREADS * 3 * block(store) + moments(store), states, options={"tokens": "patches"}
    ),
    "cka-between-runs": Case(
        lambda store: THREADS * 4 * block(store) + moments(store, 2),
        lambda store: 2 * states(store),
        ("one", "other"),
    ),
    "effective-rank": Case(lambda store: THREADS * 2 * block(store) + moments(store), states),
    "nearest-patches": Case(
        lambda store: THREADS * (2 + 10 * store.sizes["register"] / store.sizes["channel"]) * block(store), states
    ),
    "patch-colours": Case(
        lambda store: THREADS * 2 * block(store) + moments(store),
        lambda store: states(store) / len(STATES),
        ("other", "one"),
    ),
    "patch-similarity": Case(
        lambda store: THREADS * 4 * block(store), lambda store: 2 * states(store), ("one", "other")
    ),
    "register-cosine": Case(
        lambda store: THREADS * 5 * block(store, "registers"), lambda store: states(store, "registers"), ("wide",)
    ),
    "register-probes": Case(
        _of_registers,
        lambda store: 2 * states(store, "registers"),
        ("wide", "wide"),
        {"strength": 1.0},
        limit=256,
        grows=True,
    ),
    "token-norms": Case(lambda store: THREADS * block(store), states),
}


def make_stores(root: Path, images: int = 2304) -> None:
    """Two caches of one model with random tokens, and one of many wide registers, all of the same images."""
    spec = prepare("tiny-reg", "shapes", limit=1, image_size=128, root=root).spec
    # Blocks of 12.6 MB as float32: one more per thread than stated is more than the allowance.
    spec = replace(spec, images=_image_table(images), block=128)
    for seed, name in enumerate(("one", "other")):
        _fill(root / f"{name}.zarr", spec, seed)
    channels = 1536
    norm = NormSpec("layer_norm", 1e-6, np.ones(channels, np.float32), np.zeros(channels, np.float32))
    layout = TokenLayout(cls=1, registers=16, rows=1, columns=1)
    _fill(root / "wide.zarr", replace(spec, layout=layout, channels=channels, block=64, norm=norm), 2)


def _image_table(images: int) -> ImageTable:
    return ImageTable(
        image_id=tuple(f"{index:05}.png" for index in range(images)),
        sha256=tuple(f"{index:064x}" for index in range(images)),
        label=tuple(index % 2 for index in range(images)),
        class_name=tuple(("even", "odd")[index % 2] for index in range(images)),
    )


def _fill(path: Path, spec: StoreSpec, seed: int) -> None:
    create(path, spec)
    writer = StoreWriter(path)
    generator = np.random.default_rng(seed)
    drawn = {
        name: generator.standard_normal(
            (len(STATES), spec.block, *spec.geometry.array(name).inner_shape), np.float32
        ).astype(np.float16)
        for name in spec.layout.types
    }
    for number in range(spec.geometry.blocks):
        rows = len(spec.geometry.block_range(number))
        arrays = {name: np.roll(values, number, axis=-1)[:, :rows] for name, values in drawn.items()}
        writer.write_block(number, {name: np.ascontiguousarray(one) for name, one in arrays.items()}, STATES)


def measure(name: str, root: Path) -> Peak:
    """Peak of one analysis in a new process."""
    case = CASES[name]
    store = cachetool.open(root / f"{case.stores[0]}.zarr").isel(image=slice(case.limit))
    # By default glibc keeps much of what was freed (see `analyses.analysis`), which would count as if it were in use.
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": str(MEGABYTE), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.memory_of_analyses", "--child", name, "--root", str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env=environment,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "ready\n", f"{name} failed; its error is above"
        baseline = anonymous_bytes(process.pid)
        peaks = []
        for images in (store.sizes["image"] // 4, store.sizes["image"]):
            started = time.monotonic()
            process.stdin.write(f"{images}\n")
            process.stdin.flush()
            peaks.append(peak_until_answer(process) - baseline)
            seconds = time.monotonic() - started
        process.stdin.close()
    quarter, whole = peaks
    return Peak(name, case.data(store), case.bound(store), quarter, whole, seconds)


def peak_until_answer(process: subprocess.Popen[str], poll: float = POLL) -> int:
    """Largest anonymous memory of a process until it answers `done`, looked at every `poll` seconds."""
    assert process.stdout is not None
    peak = 0
    # A line is read once a part of it is there, and then to its end: where Python does not buffer
    # (PYTHONUNBUFFERED), `print` writes it in two pieces.
    while not select.select([process.stdout], [], [], poll)[0]:
        peak = max(peak, anonymous_bytes(process.pid))
    assert process.stdout.readline() == "done\n", "the analysis failed; its error is above"
    return peak


def anonymous_bytes(process: int) -> int:
    """Memory that no file backs: mapped pages of shards do not count, since the kernel can drop them."""
    text = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("RssAnon"))


def run_child(name: str, root: Path) -> None:
    """Import and open everything, then run the analysis on as many images as each line of standard input says."""
    import dask
    import torch

    case, analysis = CASES[name], find_analysis(name)
    torch.set_num_threads(1)
    opened = [cachetool.open(root / f"{store}.zarr") for store in case.stores]
    with dask.config.set(num_workers=THREADS):
        print("ready", flush=True)
        for line in sys.stdin:
            images = int(line)
            options = case.options | ({"images": range(images)} if "images" in case.options else {})
            analysis.function(*(store.isel(image=slice(images)) for store in opened), **options).load()
            print("done", flush=True)


def table(peaks: list[Peak]) -> str:
    """One line per analysis, in megabytes."""
    header = f"{'analysis':22}{'data':>8}{'bound':>8}{'quarter':>9}{'all':>8}{'all/bound':>11}{'seconds':>9}"
    lines = [
        f"{peak.analysis:22}"
        + "".join(f"{value / MEGABYTE:8.0f}" for value in (peak.data, peak.bound))
        + f"{peak.quarter / MEGABYTE:9.0f}{peak.whole / MEGABYTE:8.0f}"
        + f"{peak.whole / peak.bound:11.2f}{peak.seconds:9.1f}"
        for peak in peaks
    ]
    return "\n".join([header, *lines])


def main() -> None:
    """Measure all announced analyses, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("analysis", nargs="*", help="by default all that are announced")
    parser.add_argument("--root", type=Path, help="where the stores lie, or are made; by default a temporary folder")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        run_child(given.child, given.root)
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = (given.root or Path(temporary)).resolve()
        if not (root / "wide.zarr").exists():
            make_stores(root)
        print(table([measure(name, root) for name in given.analysis or analyses()]))


if __name__ == "__main__":
    main()
