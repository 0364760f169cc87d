"""Stores in memory with dask chunks of any size, and the tokens they hold as NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

ROWS, COLUMNS, REGISTERS, CHANNELS, DEPTH = 2, 3, 2, 5, 4


def tokens(images: int = 9, layers: int = 2, seed: int = 0, unreadable: int | None = 3) -> dict[str, npt.NDArray[Any]]:
    """Random tokens, float32, NaN for one image."""
    generator = np.random.default_rng(seed)
    shapes = {"cls": (), "registers": (REGISTERS,), "patches": (ROWS * COLUMNS,)}
    found = {
        name: generator.normal(1, 2, (images, layers, *shape, CHANNELS)).astype(np.float32)
        for name, shape in shapes.items()
    }
    if unreadable is not None:
        for values in found.values():
            values[unreadable] = np.nan
    return found


def store(
    values: dict[str, npt.NDArray[Any]], chunk: int | None = None, layers: tuple[int, ...] = (1, 3)
) -> xr.Dataset:
    """A store of states below the last, which no norm changes."""
    dims = {"cls": (), "registers": ("register",), "patches": ("patch",)}
    images = len(next(iter(values.values())))
    row, column = np.divmod(np.arange(ROWS * COLUMNS), COLUMNS)
    found = xr.Dataset(
        {name: (("image", "layer", *dims[name], "channel"), array) for name, array in values.items()},
        {
            "layer": list(layers),
            "image_id": ("image", np.array([f"image {index}" for index in range(images)], dtype=object)),
            "row": ("patch", row),
            "col": ("patch", column),
        },
        {"depth": DEPTH, "norm": {"type": "none"}, "kind": "cache"},
    )
    return found.chunk(image=chunk or images, layer=1)
