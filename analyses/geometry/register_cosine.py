"""How alike registers are: cosines between them and with [CLS], by layer."""

from __future__ import annotations

import numpy as np
import xarray as xr

from analyses.geometry.tokens_of import tokens_of


def register_cosine(store: xr.Dataset) -> xr.Dataset:
    """Cosines between the registers of an image, and of each with its [CLS].

    Parameters
    ----------
    store
        A cache or run with registers; [CLS] is used where it is held.

    Returns
    -------
    `register_cosine` (image, layer, register, other_register) and `cls_cosine` (image, layer, register), lazy,
    float32; NaN for images that could not be read. The last state is read after the final norm. Memory: T x 5 B of
    registers (see `analyses.analysis`).

    Raises
    ------
    MissingDataError
        The store holds no registers.
    """
    registers = _unit(tokens_of(store, "registers"))
    between = xr.dot(registers, registers.rename(register="other_register"), dim="channel")
    found = {"register_cosine": between.assign_attrs(long_name="cosine between registers", units="1")}
    if "cls" in store:
        with_cls = xr.dot(registers, _unit(tokens_of(store, "cls")), dim="channel")
        found["cls_cosine"] = with_cls.assign_attrs(long_name="cosine of a register with [CLS]", units="1")
    return xr.Dataset(found)


def _unit(tokens: xr.DataArray) -> xr.DataArray:
    tokens = tokens.astype(np.float32)
    return tokens / (tokens**2).sum("channel", skipna=False) ** 0.5
