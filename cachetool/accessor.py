"""`dataset.cachetool`: what is asked of opened caches and runs again and again, as an accessor of xarray."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from cachetool.errors import MissingDataError, UnknownNameError
from cachetool.packages import FIGURES, require
from cachetool.tokens import TOKEN_TYPES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage


@xr.register_dataset_accessor("cachetool")  # type: ignore[no-untyped-call]
class CacheAccessor:
    """Tokens, images and patch grids of an opened cache or run; everything stays lazy."""

    def __init__(self, data: xr.Dataset) -> None:
        self._data = data

    def tokens(self, token_type: str, layer: int | None = None, *, normalized: bool = False) -> xr.DataArray:
        """Tokens of one type, at one state or at all.

        Parameters
        ----------
        token_type
            `cls`, `registers` or `patches`.
        layer
            The state; by default all, along `layer`.
        normalized
            Apply the model's final norm.

        Raises
        ------
        UnknownNameError
            There are no such tokens.
        MissingDataError
            There is no such state; names those that there are.
        """
        if token_type not in self._types:
            raise UnknownNameError(f"there are no {token_type} here, only {', '.join(self._types) or 'no tokens'}")
        found = self._at(self._data[token_type], layer)
        if not normalized:
            return found
        from cachetool.query import normalize

        return normalize(found, self._data)

    def image(self, which: int | str) -> xr.Dataset:
        """One image by its position, or by its id.

        Raises `MissingDataError` where there is none.
        """
        count = self._data.sizes.get("image", 0)
        if isinstance(which, str):
            found = np.flatnonzero(self._data["image_id"].values == which)
            if not len(found):
                raise MissingDataError(f"there is no image {which!r} here; ids are those of `image_id`")
            return self._data.isel(image=int(found[0]))
        if not -count <= which < count:
            raise MissingDataError(f"there is no image at {which}; there are {count}")
        return self._data.isel(image=which)

    def grid(self, layer: int | None = None) -> xr.DataArray:
        """Patches with the dimensions `row` and `col` in place of `patch`, at one state or at all.

        Raises as `tokens` does.
        """
        patches = self.tokens("patches", layer)
        rows, columns = (int(self._data[name].max()) + 1 for name in ("row", "col"))
        axis = patches.get_axis_num("patch")
        shape, names = list(patches.shape), list(patches.dims)
        shape[axis : axis + 1], names[axis : axis + 1] = [rows, columns], ["row", "col"]
        kept = {name: one for name, one in patches.coords.items() if "patch" not in one.dims}
        kept |= {"row": np.arange(rows), "col": np.arange(columns)}
        return xr.DataArray(patches.data.reshape(shape), kept, names, patches.name, patches.attrs)

    def plot_map(self, image: int | str = 0, layer: int | None = None, *, ax: Axes | None = None) -> AxesImage:
        """Draw the norms of the patches of one image over its grid: outlier patches stand out.

        Parameters
        ----------
        image
            Position or id.
        layer
            The state; by default the last.
        ax
            Axes of matplotlib to draw into; by default new ones.

        Returns
        -------
        What was drawn; its axes are `.axes`. Raises as `image` and `tokens` do, and `MissingPackageError`.
        """
        require("plot_map", FIGURES, "report")
        import matplotlib.pyplot as plt

        state = int(self._data["layer"].values[-1]) if layer is None else layer
        one = self.image(image)
        norms = np.sqrt((one.cachetool.grid(state).astype(np.float64) ** 2).sum("channel", skipna=False))
        axes = plt.subplots()[1] if ax is None else ax
        drawn = axes.imshow(norms.transpose("row", "col").values)
        axes.set(title=f"{one['image_id'].item()}, state {state}", xlabel="column", ylabel="row")
        axes.figure.colorbar(drawn, ax=axes, label="norm of the patch token")
        return drawn

    @property
    def _types(self) -> list[str]:
        return [name for name in TOKEN_TYPES if name in self._data]

    def _at(self, array: xr.DataArray, layer: int | None) -> xr.DataArray:
        if layer is None:
            return array
        states = np.atleast_1d(self._data["layer"].values).tolist()
        if layer not in states:
            raise MissingDataError(f"there is no state {layer} here, only {', '.join(map(str, states))}")
        return array.sel(layer=layer)

    def _facts(self) -> dict[str, Any]:
        """What the short representations show."""
        attributes = self._data.attrs
        facts, key = attributes.get("facts", {}), attributes.get("key", {})
        edit = key.get("edit", {})
        sizes = {name: self._data.sizes.get(dim, 1) for name, dim in (("registers", "register"), ("patches", "patch"))}
        found = {
            attributes.get("kind", "tokens"): attributes.get("cachetool_path", "not opened by cachetool"),
            "model": facts.get("model"),
            "data set": facts.get("dataset"),
            "edit": f"{edit['target']}, {edit['replacement']} from state {edit['from_layer']}" if edit else None,
            "images": self._data.sizes.get("image"),
            "states": ", ".join(map(str, np.atleast_1d(self._data["layer"].values))) if "layer" in self._data else None,
            "tokens": ", ".join(f"{name} ({sizes.get(name, 1)})" for name in self._types),
            "channels": self._data.sizes.get("channel"),
        }
        return {name: value for name, value in found.items() if value is not None}

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self._facts().items())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(str(name))}</th>"
            f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
            for name, value in self._facts().items()
        )
        return f"<table>{rows}</table>"
