"""How products are computed in a replay: exactly as at extraction, or faster and rounded; the certificate measures it.

Only replays have the choice. A cache is what everything is compared with, so it is always computed in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from cachetool.errors import UnknownNameError

PRECISIONS = {
    "float32": "products in float32",
    "tf32": "products of numbers rounded to 10 bits, on CUDA tensor cores",
    "bfloat16": "products of numbers rounded to 7 bits; the residual stream itself stays float32",
}
"""What each precision does."""

BOUNDS = {"float32": 0.0, "tf32": 1e-2, "bfloat16": 6e-2}
"""Relative error of the final tokens that each adds at most to a certificate that is accepted: as for storage in
float16 (as many bits as tf32) and bfloat16."""


@dataclass(frozen=True)
class Arithmetic:
    """Precision of products, and whether blocks are compiled."""

    precision: str = "float32"
    """One of `PRECISIONS`."""
    compiled: bool = False
    """Whether blocks go through `torch.compile`, which takes seconds to begin with."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UnknownNameError(f"--precision {self.precision}: expected one of {', '.join(PRECISIONS)}")

    def check(self, device: torch.device) -> None:
        """Raise `UnknownNameError` where a device has no such products."""
        if self.precision == "tf32" and device.type != "cuda":
            raise UnknownNameError(
                f"--precision tf32: only CUDA devices compute in it, this is {device.type}; choose float32 or bfloat16"
            )

    @contextmanager
    def used(self, device: torch.device) -> Iterator[None]:
        """Compute so within the block."""
        rounding = torch.autocast(device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()
        with _tf32_products() if self.precision == "tf32" else rounding:
            yield

    @property
    def description(self) -> str:
        """What to add to the name of a kernel; empty for the default."""
        rounded = f", {self.precision} products" if self.precision != "float32" else ""
        return rounded + (", compiled blocks" if self.compiled else "")

    @property
    def key_parts(self) -> dict[str, Any]:
        """What to add to the key of a run; empty for the default."""
        return {"arithmetic": self.description.removeprefix(", ")} if self.description else {}


@contextmanager
def _tf32_products() -> Iterator[None]:
    matmul = torch.backends.cuda.matmul
    # The newer name of the setting, from torch 2.9 on, and what is set for everything.
    newer, everything = (getattr(where, "fp32_precision", "") for where in (matmul, torch.backends))
    before: bool | str
    rounded: bool | str
    try:
        name, before, rounded = "allow_tf32", matmul.allow_tf32, True
    except RuntimeError:  # somebody used the newer name: then the older one raises
        name, before, rounded = "fp32_precision", newer, "tf32"
    setattr(matmul, name, rounded)
    try:
        yield
    finally:
        setattr(matmul, name, before)
        if newer:
            # What it says may be what is set for everything: written down here, it would outlast that.
            matmul.fp32_precision = "none" if newer == everything else newer
