"""The embedded study, from nothing to its table, against as many bare forward passes as it measures arms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from analyses.study.loading import load_study
from analyses.study.narrowing import narrow
from analyses.study.parts import take_apart
from analyses.study.run import run_study
from analyses.study.table import write_study
from cachetool.backbones import load
from tests.benchmarks.ratios import Comparison, slower, timed

IMAGES = 50
"""Images of each of the three data sets: training, calibration and evaluation."""

REACH = 20
"""On so few images, fitting heads, resampling and small files take longer than the replays."""


def measure(folder: Path) -> Iterator[Comparison]:
    """The study of one model on four tasks, once: it takes a minute."""
    study = narrow(load_study("zero-ablation"), limit=IMAGES)
    arms = [len(part.edits) for part in take_apart(study, root=folder / "planned")]

    def ours() -> None:
        write_study(run_study(study, root=folder / "activations"), folder / "study")

    backbone = load("tiny-reg")
    images = torch.zeros(IMAGES, 3, backbone.image_size, backbone.image_size)

    def forward_passes() -> None:
        with torch.inference_mode():
            for _ in range(sum(arms)):
                backbone.run(backbone.embed(images), 0, backbone.depth)

    seconds = timed(ours), timed(forward_passes)
    yield slower(
        f"`study zero-ablation --limit {IMAGES}`, fresh folder",
        "a full forward pass of every arm",
        seconds,
        REACH,
        {"arms": str(sum(arms)), "images": str(IMAGES)},
    )
