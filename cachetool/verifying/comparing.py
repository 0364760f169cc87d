"""How far what was computed again lies from what is stored, measured by what rounding allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cachetool.store import to_float32
from cachetool.verifying.report import Compared

ROUNDING: Mapping[str, float] = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Largest relative error of one rounding to each dtype; of bfloat16 that of cutting off, which some devices do."""

NOISE = 1e-3
"""What the order of sums may change in one value, relative to the root mean square of its token. Measured on two
models at other batch sizes on one processor: 0. It leaves room for other devices and kernels, and none for a wrong
image, weight, crop or filter."""


@dataclass
class Comparison:
    """The comparison of one image, state by state."""

    image: int
    image_id: str
    dtype: str
    noise: float = NOISE
    """Of products that are rounded on purpose, more than `NOISE`."""
    allowed: float = 0.0
    relative_rms: float = 0.0
    token_type: str = ""
    layer: int = -1
    equal: int = 0
    values: int = 0

    def add(self, token_type: str, layer: int, found: npt.NDArray[Any], stored: npt.NDArray[Any]) -> None:
        """Compare one state of a token type: both (token, channel), in the storage dtype."""
        self.values += stored.size
        self.equal += int((found.view(f"u{found.itemsize}") == stored.view(f"u{stored.itemsize}")).sum())
        here = to_float32(found, self.dtype).astype(np.float64)
        there = to_float32(stored, self.dtype).astype(np.float64)
        difference = np.abs(here - there)
        scale = np.sqrt(np.square(there).mean(axis=-1, keepdims=True))
        absent = np.isnan(here) != np.isnan(there)
        limit = ROUNDING[self.dtype] * 2 * np.abs(there) + self.noise * scale
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(difference > 0, difference / limit, 0.0)
        largest = np.inf if absent.any() else float(np.nanmax(ratio, initial=0.0))
        if largest >= self.allowed:
            self.allowed, self.token_type, self.layer = largest, token_type, layer
            natural = float(np.nansum(np.square(there)))
            squares = float(np.nansum(np.square(difference)))
            self.relative_rms = float(np.sqrt(squares / natural)) if natural > 0 else float(np.sqrt(squares))

    def result(self) -> Compared:
        """What is reported of the image."""
        problem = ""
        if not self.allowed <= 1.0:
            problem = (
                f"{self.token_type} at state {self.layer} is not what is stored: relative error {self.relative_rms:.3g}"
                f", {self.allowed:.3g} times what rounding to {self.dtype} allows"
            )
        return Compared(
            image=self.image,
            image_id=self.image_id,
            problem=problem,
            token_type=self.token_type,
            layer=self.layer,
            relative_rms=self.relative_rms,
            allowed=self.allowed if np.isfinite(self.allowed) else float(np.finfo(np.float64).max),
            bit_equal=self.equal / self.values if self.values else 1.0,
        )


def draw_sample(images: Sequence[int], count: int, seed: int) -> list[int]:
    """Some of the images, ascending, drawn by a seed."""
    random = np.random.Generator(np.random.Philox(key=seed))
    return sorted(images[place] for place in random.permutation(len(images))[:count].tolist())
