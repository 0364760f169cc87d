"""Readouts: which tokens of which state become the one vector by which a task knows an image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import xarray as xr

from analyses.tasks.states import missing_state, read_state
from cachetool.errors import IncompleteError, UnknownNameError

Source = Literal["cls", "registers", "patches", "cls+patches"]
"""Tokens of a readout: [CLS], the mean register, the mean patch, or [CLS] followed by the mean patch."""

_PATTERN = re.compile(r"(?P<source>cls\+patches|cls|patches|registers(?::(?P<register>\d+))?)(?:@(?P<layer>\d+))?")
_EACH = {"registers": "register", "patches": "patch"}


@dataclass(frozen=True)
class Readout:
    """Tokens that are read as features, written `cls`, `registers:2`, `registers`, `patches` or `cls+patches`.

    `cls@9` reads state 9 as it is stored: the final norm was learned for the last state alone, and a probe
    standardises each feature, so that the scale of an inner state does not matter. Without `@` the last state of the
    store is read after the model's final norm, as the model itself reads it.
    """

    source: Source
    """Which tokens."""
    register: int | None = None
    """The one register that is read; None for the mean of all."""
    layer: int | None = None
    """State that is read as stored; None for the last one after the final norm."""

    @classmethod
    def parse(cls, text: str) -> Readout:
        """Turn the written form into a readout. Raises `UnknownNameError` for any other text."""
        found = _PATTERN.fullmatch(text)
        if found is None:
            raise UnknownNameError(
                f"unknown readout {text!r}; expected `cls`, `registers:2`, `registers` (their mean), `patches` (their "
                "mean) or `cls+patches`, each with `@9` behind it to read state 9 instead of the last one"
            )
        source = cast(Source, found["source"].partition(":")[0])
        register, layer = (int(found[name]) if found[name] else None for name in ("register", "layer"))
        return cls(source, register, layer)

    def __str__(self) -> str:
        register = "" if self.register is None else f":{self.register}"
        layer = "" if self.layer is None else f"@{self.layer}"
        return f"{self.source}{register}{layer}"

    @property
    def tokens(self) -> tuple[str, ...]:
        """Token types that are read."""
        return tuple(self.source.split("+"))

    def obstacle(self, store: xr.Dataset) -> str | None:
        """Why a store does not give this readout; None where it does. Reads at most one block."""
        absent = [name for name in self.tokens if name not in store]
        if absent:
            held = ", ".join(name for name in ("cls", "registers", "patches") if name in store)
            return f"readout {self} needs {' and '.join(absent)}, and the store holds {held or 'no tokens'}"
        if self.register is not None and self.register >= store.sizes["register"]:
            return f"readout {self} needs register {self.register}, and registers run to {store.sizes['register'] - 1}"
        if (reason := missing_state(store, self.layer)) is not None:
            return f"readout {self}: {reason}"
        sample = self._lazy(store.isel(image=np.flatnonzero(store.readable.values)[:1])).values
        if not np.isfinite(sample).all():
            layer = store.layer.values[-1] if self.layer is None else self.layer
            return f"readout {self} needs tokens of state {layer} that the store lacks, or that an edit removed"
        return None

    def read(self, store: xr.Dataset) -> npt.NDArray[np.float32]:
        """Features of every image, float32 (image, feature), loaded block by block.

        Images that could not be decoded are NaN. Removed registers and patches are left out of means.

        Raises
        ------
        IncompleteError
            The store lacks the tokens, the register or the state.
        """
        if (obstacle := self.obstacle(store)) is not None:
            raise IncompleteError(f"{obstacle}; choose another readout, or extract or replay with what it needs")
        return np.asarray(self._lazy(store).values, dtype=np.float32)

    def _lazy(self, store: xr.Dataset) -> xr.DataArray:
        parts = [self._tokens(store, name) for name in self.tokens]
        return parts[0] if len(parts) == 1 else xr.concat(parts, dim="channel", coords="minimal", compat="override")

    def _tokens(self, store: xr.Dataset, name: str) -> xr.DataArray:
        """One vector per image of one token type, (image, channel), lazy."""
        chosen: dict[str, Any] = {} if self.register is None else {"register": self.register}
        # Chosen before the norm, which would read all registers.
        tokens = read_state(store.isel(chosen), name, self.layer)
        each = _EACH.get(name)
        return tokens.mean(each) if each in tokens.dims else tokens


def readable_features(readout: Readout, store: xr.Dataset) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Read the images that could be decoded.

    Returns
    -------
    Positions in the store, int64 (readable image,), and features, float32 (readable image, feature).

    Raises
    ------
    IncompleteError
        The store does not give the readout, or an image that could be decoded has features that are not finite.
    """
    rows = np.flatnonzero(store.readable.values)
    features = readout.read(store)[rows]
    broken = rows[~np.isfinite(features).all(axis=1)]
    if len(broken):
        named = ", ".join(store.image_id.values[broken[:5]])
        more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise IncompleteError(
            f"readout {readout} of {len(broken)} readable images is not finite: {named}{more}; "
            "check the store with `cachetool verify`"
        )
    return rows, features
