"""Storage dtypes: how float32 activations become stored values and back, and how Zarr names them.

bfloat16 has no data type in the Zarr core specification, so it is stored as its upper 16 bits (uint16) with an array
attribute that says so: plain readers get integers, and `to_float32` is one shift.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

DTYPES = ("float32", "float16", "bfloat16")
"""Names of the dtypes that activations can be stored in."""

DTYPE_ATTRIBUTE = "cachetool_dtype"
"""Array attribute that marks uint16 arrays as bfloat16."""

BFLOAT16_NAN = 0x7FC0
"""The quiet NaN of bfloat16: what unfinished data reads as."""

_STORAGE = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}


def storage_dtype(name: str) -> np.dtype[Any]:
    """NumPy dtype of stored values: little-endian float32, float16, or uint16 for bfloat16."""
    return np.dtype(_STORAGE[name])


def zarr_data_type(name: str) -> str:
    """Name of the Zarr data type that holds this dtype."""
    return "uint16" if name == "bfloat16" else name


def zarr_fill_value(name: str) -> str | int:
    """JSON fill value: NaN in the dtype's own terms."""
    return BFLOAT16_NAN if name == "bfloat16" else "NaN"


def fill_value(name: str) -> np.generic[Any]:
    """What unfinished or unreadable data holds: NaN as a scalar of the storage dtype."""
    dtype = storage_dtype(name)
    scalar: np.generic[Any] = dtype.type(BFLOAT16_NAN if name == "bfloat16" else np.nan)
    return scalar


def largest(name: str) -> float:
    """The largest finite value of a dtype."""
    if name == "bfloat16":
        return float(np.array(0x7F7F << 16, dtype=np.uint32).view(np.float32))
    return float(np.finfo(name).max)


def to_float32(
    array: npt.NDArray[Any], dtype_name: str, out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """Decode stored values to float32 (exact), into `out` where one is given; same shape."""
    # Imported here, so that opening a store does not cost the seconds that torch takes to load. It decodes about ten
    # times as fast as NumPy, and warns about arrays that it must not write to: hence the copy of views of a file.
    import torch

    if out is None:
        out = np.empty(array.shape, dtype=np.float32)
    source = torch.from_numpy(array if array.flags.writeable else array.copy())
    torch.from_numpy(out).copy_(source.view(torch.bfloat16) if dtype_name == "bfloat16" else source)
    return out


def from_float32(array: npt.NDArray[np.float32], dtype_name: str) -> npt.NDArray[Any]:
    """Encode float32 to stored values, round to nearest even; same shape.

    A value beyond the dtype's range becomes infinite: callers check with `beyond_range`, since only they can name the
    layer and the image.
    """
    if dtype_name != "bfloat16":
        with np.errstate(over="ignore"):
            return array.astype(storage_dtype(dtype_name))
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    return np.where(np.isnan(array), np.uint16(BFLOAT16_NAN), rounded.astype(np.uint16))


def beyond_range(array: npt.NDArray[np.float32], stored: npt.NDArray[Any], dtype_name: str) -> npt.NDArray[np.bool_]:
    """Which finite values of `array` became infinite in `stored` (as `from_float32` returned it); same shape."""
    bits = np.uint16(0x7FFF), np.uint16(0x7F80)
    infinite = (stored & bits[0]) == bits[1] if dtype_name == "bfloat16" else np.isinf(stored)
    return np.asarray(infinite & np.isfinite(array))
