"""`add`: a direction from a file is added to the running token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cachetool.edits.base import Replacement
from cachetool.edits.edit import Edit
from cachetool.edits.grammar import format_number, parse_number
from cachetool.edits.selection import Selection
from cachetool.edits.sources import Sources
from cachetool.errors import InvalidEditError, MissingDataError


class Add(Replacement):
    """Adds scale x direction to the selected tokens at every edited state.

    The file is a NumPy `.npy`, or a `.safetensors` with one tensor: (channel,) for the same direction at every state,
    or (layer, channel) with one row for each state 0 to depth. The values are what is added, not the sum.
    """

    name = "add"
    description = "a direction from a .npy or .safetensors file is added to the token"
    usage = "add:FILE[:SCALE]"
    kind = "add"

    def __init__(self, path: str, scale: float) -> None:
        """Add `scale` times the direction in the file at `path`."""
        self.path = path
        self.scale = scale
        self.argument = path if scale == 1 else f"{path}:{format_number(scale)}"

    @classmethod
    def parse(cls, argument: str | None) -> Self:
        """Read FILE[:SCALE]."""
        match = re.fullmatch(r"(.+\.(?:npy|safetensors))(?::(.*))?", argument or "", re.DOTALL)
        scale = 1.0 if match is None or match[2] is None else parse_number(match[2])
        if match is None or scale is None or not np.isfinite(scale):
            raise InvalidEditError(
                f"'add' needs a .npy or .safetensors file and, where wanted, a finite scale, as in "
                f"'add:direction.npy:2'; found {argument or 'nothing'!r}"
            )
        return cls(match[1], scale)

    @cached_property
    def direction(self) -> NDArray[np.float32]:
        """What the file holds, float32 (channel,) or (layer, channel)."""
        path = Path(self.path)
        if not path.is_file():
            raise MissingDataError(f"'add' needs the direction in {self.path!r}, but there is no such file")
        try:
            loaded = _read(path)
        except InvalidEditError:
            raise
        except Exception as error:  # NumPy and safetensors raise whatever a damaged file makes them stumble over
            raise InvalidEditError(f"'add' cannot read a direction from {self.path!r}: {error}") from error
        if loaded.dtype.kind not in "fiu":
            raise InvalidEditError(f"'add' needs real numbers, but {self.path!r} holds {loaded.dtype}")
        with np.errstate(over="ignore"):
            direction = np.asarray(loaded, dtype=np.float32)
        if not np.isfinite(direction).all():
            raise InvalidEditError(
                f"'add' needs finite numbers in the range of float32, but {self.path!r} holds NaN or larger ones"
            )
        return direction

    def check_early(self, image_ids: Sequence[str]) -> None:
        """Refuse a file that is absent or holds no direction."""
        _ = self.direction

    def check(self, sources: Sources, edit: Edit) -> None:
        """Refuse a direction of another shape than the model's states."""
        fitting = ((sources.channels,), (sources.depth + 1, sources.channels))
        if self.direction.shape not in fitting:
            raise InvalidEditError(
                f"'add' needs a direction of shape (channel,) = {fitting[0]} or (layer, channel) = {fitting[1]}, but "
                f"{self.path!r} holds {self.direction.shape}"
            )

    def key_parts(self, sources: Sources, edit: Edit) -> dict[str, str]:
        """SHA-256 of the direction's numbers."""
        direction = np.ascontiguousarray(self.direction, dtype="<f4")
        return {"direction": sha256(str(direction.shape).encode() + direction.tobytes()).hexdigest()}

    def values(
        self, sources: Sources, edit: Edit, layer: int, images: NDArray[np.int64], selection: Selection
    ) -> NDArray[np.float32]:
        """What is added, float32 (pair, channel)."""
        row = self.direction if self.direction.ndim == 1 else self.direction[layer]
        return np.broadcast_to(np.float32(self.scale) * row, (len(selection), sources.channels))


def _read(path: Path) -> NDArray[np.generic]:
    """The one array of a file, as data alone: pickled objects are refused, and a shape that the file cannot hold."""
    if path.suffix == ".npy":
        mapped: NDArray[np.generic] = np.lib.format.open_memmap(path, mode="r")
        return mapped
    from safetensors.numpy import load_file  # only where such a file is used

    tensors: dict[str, NDArray[np.generic]] = load_file(path)
    if len(tensors) != 1:
        raise InvalidEditError(
            f"'add' needs a file with one tensor, but {str(path)!r} holds {len(tensors)}: "
            f"{', '.join(sorted(tensors)) or 'none'}; save the direction on its own"
        )
    return next(iter(tensors.values()))
