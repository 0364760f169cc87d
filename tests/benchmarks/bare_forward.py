"""timm's forward pass of decoded batches in a process of its own, as a script without cachetool runs it.

In a process that has loaded a backbone of cachetool it takes less time: see `cachetool.backbones.allocation`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import load_file


@contextmanager
def bare_forward(architecture: str, weights: Path, images: Path, batch: int) -> Iterator[Callable[[], None]]:
    """A call that has the pass run over all of `images`, a NumPy file (image, rgb, row, column); warm when given."""
    command = [sys.executable, "-m", "tests.benchmarks.bare_forward", architecture, str(weights), str(images)]
    with subprocess.Popen([*command, str(batch)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def run() -> None:
            print(file=requests, flush=True)
            if not answers.readline():
                raise RuntimeError(f"the process of timm's forward pass ended with {process.wait()}")

        if not answers.readline():
            raise RuntimeError(f"the process of timm's forward pass ended with {process.wait()}")
        yield run
        requests.close()


def _serve(architecture: str, weights: str, images: str, batch: str) -> None:
    model = timm.create_model(architecture, pretrained=False, img_size=224, num_classes=0).eval()
    model.load_state_dict(load_file(weights))
    batches = torch.from_numpy(np.load(images)).split(int(batch))
    with torch.inference_mode():
        model.forward_features(batches[0])
        print("ready", flush=True)
        for _request in sys.stdin:
            for each in batches:
                model.forward_features(each)
            print("done", flush=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
