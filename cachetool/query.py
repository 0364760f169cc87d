"""Caches and runs as lazy xarray objects: nothing is read until a result is asked for.

Chunks are one block of images at one state of one token type: one contiguous read of a shard, and the unit at which
dask reductions run near the speed of memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any, Literal

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import tokenize

from cachetool import places
from cachetool.errors import InvalidEditError, MissingDataError, StaleRunWarning
from cachetool.events import Events
from cachetool.objects import AnyPlace, Place, place
from cachetool.provenance import FINISHED, RUN, check_provenance
from cachetool.store import StateDigests, StoreReader, StoreSpec, key_digest

PATH_ATTRIBUTE = "cachetool_path"
"""Attribute of an opened data set that names its store."""

_TOKEN_DIMENSION = {"cls": None, "registers": "register", "patches": "patch"}


def open_store(path: AnyPlace, dtype: Literal["float32", "stored"] = "float32") -> xr.Dataset:
    """Open a cache or a run lazily, with its coordinates, restricted to the states that are finished for all images.

    Parameters
    ----------
    path
        Path of the cache or run.
    dtype
        `float32` converts each chunk as it is read, so that sums over many images do not lose precision or overflow as
        they would in float16; `stored` gives float16 as it is stored (bfloat16 is always converted).

    Returns
    -------
    Data set with `cls` (image, layer, channel), `registers` (image, layer, register, channel) and `patches`
    (image, layer, patch, channel) as far as the store holds them, dask-backed, and the coordinates `layer`, `image_id`,
    `label`, `class_name`, `readable`, `row`, `col`. Its attributes hold the store's key and facts, and `depth`, the
    number of the model's blocks and so of its last state, whether or not that is among the states held; and `digests`,
    which tell the values of each state by token type from others.

    Raises
    ------
    StoreError
        There is no store at the path, or it is of another format.
    """
    reader = StoreReader(place(path))
    spec = reader.spec
    check_provenance(reader.path, spec.key, spec.facts, *(RUN if spec.kind == "run" else ()))
    coverage = {name: reader.coverage(name) for name in spec.token_types}
    layers = sorted({layer for covered in coverage.values() for layer in covered})
    variables: dict[str, Any] = {
        name: (_dimensions(name), _lazy_tokens(reader, name, layers, covered, dtype))
        for name, covered in coverage.items()
        if covered
    }
    variables |= {
        name: xr.Variable(dimensions, reader.array(name), attributes)
        for name, (dimensions, attributes) in reader.beside.items()
    }
    data = xr.Dataset(variables, coords={"layer": ("layer", layers), **_coordinates(reader)})
    if "edited_layer" in data.sizes:
        first = spec.key["edit"]["from_layer"]
        data = data.assign_coords(edited_layer=np.arange(first, first + data.sizes["edited_layer"]))
    data.attrs = {
        PATH_ATTRIBUTE: str(path),
        "kind": spec.kind,
        "key": dict(spec.key),
        "facts": dict(spec.facts),
        # A cache declares all states of the model, a run those that it keeps.
        "depth": int(spec.facts.get("depth", spec.layers[-1])),
        "digests": StateDigests(path).of(coverage),
        "norm": {"type": "none"} if spec.norm is None else {"type": spec.norm.type, "epsilon": spec.norm.epsilon},
    }
    return data


def runs(
    cache: AnyPlace | xr.Dataset, paths: Sequence[AnyPlace] | None = None, *, events: Events | None = None
) -> list[xr.Dataset]:
    """Open the finished runs of a cache, each lazily as `open_store` gives it, in the order of their names.

    Parameters
    ----------
    cache
        The cache, as a path or opened.
    paths
        Runs to open; by default all that lie beside the cache.
    events
        Told of runs that are left out because values of the cache changed since; without it, `StaleRunWarning` warns.

    Returns
    -------
    The runs that are finished and were made from this very cache, and not from another that lay at its place before,
    nor from other values than it holds now.
    """
    base = store_path(cache)
    chosen = [place(path) for path in paths] if paths is not None else places.list_runs(base)
    own = StoreReader(base).spec
    opened = [data for data in map(open_store, chosen) if data.attrs["facts"].get("finished") and _belongs(data, own)]
    for data in opened:
        check_provenance(store_path(data), data.attrs["key"], data.attrs["facts"], *FINISHED)
    digests = StateDigests(base)
    stale = {
        data.attrs[PATH_ATTRIBUTE]: changed
        for data in opened
        if (changed := changed_since(data.attrs["facts"], digests))
    }
    if stale:
        listing = "\n".join(f"  {PurePath(path).name}: {', '.join(changed)}" for path, changed in stale.items())
        text = (
            f"{len(stale)} of {len(opened)} runs are left out, because values of {base} that they were made from have "
            f"changed since:\n{listing}\nreplay them again, or remove them"
        )
        warnings.warn(text, StaleRunWarning, stacklevel=2) if events is None else events.message(text)
    return [data for data in opened if data.attrs[PATH_ATTRIBUTE] not in stale]


def changed_since(facts: Mapping[str, Any], cache: StateDigests) -> list[str]:
    """States of a cache that a run read, by its facts, and whose values are others now, such as `cls at state 6`.

    Empty where a run does not say what it read.
    """
    read = facts.get("read")
    return [] if read is None else cache.changed(read["states"], read["images"])


def open_runs(cache: AnyPlace | xr.Dataset, paths: Sequence[AnyPlace] | None = None) -> xr.Dataset:
    """Open the runs of a cache lazily as one data set with a `run` dimension.

    Parameters
    ----------
    cache
        The cache, as a path or opened.
    paths
        Runs to open; by default all finished runs of the cache.

    Returns
    -------
    Data set as of `open_store` with a first dimension `run` and the coordinates `target`, `replacement`, `from_layer`,
    `sustained`, `until_layer` (-1 for the last state), `seed`, `oracle` and `run_path` along it, so that
    `runs.isel(run=runs.replacement == "zero")` finds runs, and xarray's alignment on `image` joins them with the cache.

    Raises
    ------
    MissingDataError
        The cache has no finished run.
    """
    base = store_path(cache)
    opened = runs(base, paths)
    if not opened:
        raise MissingDataError(
            f"no finished run in {places.runs_directory(base)}; make one with `cachetool replay {base} --ablation zero`"
        )
    edits = [data.attrs["key"]["edit"] for data in opened]
    # A cache grows at its end only, so runs of fewer images lack the last ones, and the longest names all of them.
    longest = max(opened, key=lambda data: data.sizes["image"])
    per_image = [name for name, coordinate in longest.coords.items() if coordinate.dims == ("image",)]
    shared = [*per_image, *(name for name in ("norm_weight", "norm_bias") if name in longest)]
    joined = xr.concat(
        [
            data.drop_vars(shared).drop_attrs(deep=False).assign_coords(image=np.arange(data.sizes["image"]))
            for data in opened
        ],
        dim="run",
        join="outer",
        data_vars="all",
        coords="minimal",
        compat="override",
        fill_value={"edited": False, "donor": -1},
    )
    joined = joined.drop_vars("image").assign({name: longest.variables[name] for name in shared})
    joined = joined.set_coords(per_image)
    joined.attrs = {"norm": longest.attrs["norm"]}
    return joined.assign_coords(
        target=("run", [edit["target"] for edit in edits]),
        replacement=("run", [edit["replacement"] for edit in edits]),
        from_layer=("run", [edit["from_layer"] for edit in edits]),
        sustained=("run", [edit["sustained"] for edit in edits]),
        until_layer=("run", [-1 if edit["until_layer"] is None else edit["until_layer"] for edit in edits]),
        seed=("run", [edit["seed"] for edit in edits]),
        oracle=("run", [bool(data.attrs["facts"]["oracle"]) for data in opened]),
        run_path=("run", [data.attrs[PATH_ATTRIBUTE] for data in opened]),
    )


def normalize(tokens: xr.DataArray, store: xr.Dataset) -> xr.DataArray:
    """Apply the model's final norm to tokens of the last state, without weights or model.

    Parameters
    ----------
    tokens
        Any shape with a `channel` dimension, such as `cache.cls.sel(layer=12)`.
    store
        The opened cache or run, which holds `norm_weight`, `norm_bias` and the norm's type and epsilon.

    Returns
    -------
    Same shape, float32, lazy as before. Layer norm: Ba, Kiros and Hinton, arXiv 1607.06450, equation 4 with learned
    scale and shift; RMS norm: Zhang and Sennrich, arXiv 1910.07467, equation 4.
    """
    weight, bias = (store[name].values if name in store else None for name in ("norm_weight", "norm_bias"))
    function = partial(_normalized, norm=store.attrs["norm"], weight=weight, bias=bias)

    def apply(values: Any) -> Any:
        if not isinstance(values, da.Array):
            return function(values)
        # `dask="parallelized"` would copy every block: it joins the chunks along `channel`, even a single one.
        return values.rechunk({-1: -1}).map_blocks(function, dtype=np.float32)  # type: ignore[no-untyped-call]

    found: xr.DataArray = xr.apply_ufunc(
        apply, tokens, input_core_dims=[["channel"]], output_core_dims=[["channel"]], dask="allowed"
    )
    return found.transpose(*tokens.dims)


def _normalized(
    tokens: npt.NDArray[Any],
    *,
    norm: Mapping[str, Any],
    weight: npt.NDArray[np.float32] | None,
    bias: npt.NDArray[np.float32] | None,
) -> npt.NDArray[np.float32]:
    """Tokens (..., channel) after the norm; one copy, changed in place, since every dask thread holds its own."""
    found = tokens.astype(np.float32)  # the squares of float16 overflow
    if norm["type"] == "layer_norm":
        found -= found.mean(axis=-1, keepdims=True)
    if norm["type"] != "none":
        squares = np.einsum("...c,...c->...", found, found, dtype=np.float64)
        found /= np.sqrt(squares / found.shape[-1] + norm["epsilon"]).astype(np.float32)[..., np.newaxis]
    if weight is not None:
        found *= weight
    if bias is not None:
        found += bias
    return found


def _belongs(run: xr.Dataset, cache: StoreSpec) -> bool:
    """Whether a run was made from this cache, and not from another that lay at the same place before."""
    digests = tuple(run.content_sha256.values.tolist())
    return run.attrs["key"]["cache"] == key_digest(cache.key) and cache.images.sha256[: len(digests)] == digests


def store_path(cache: AnyPlace | xr.Dataset) -> Place:
    """Path of a cache given as a path or as what `open_store` returned.

    Raises
    ------
    InvalidEditError
        The data set was not opened by cachetool.
    """
    if not isinstance(cache, xr.Dataset):
        return place(cache)
    if PATH_ATTRIBUTE not in cache.attrs:
        raise InvalidEditError("this data set was not opened with cachetool.open; pass the cache's path instead")
    return place(cache.attrs[PATH_ATTRIBUTE])


def _dimensions(token_type: str) -> tuple[str, ...]:
    token = _TOKEN_DIMENSION[token_type]
    return ("image", "layer", *((token,) if token else ()), "channel")


def _lazy_tokens(
    reader: StoreReader, token_type: str, layers: Sequence[int], covered: Sequence[int], dtype: str
) -> da.Array:
    """One dask chunk per block and state; states that this token type lacks are NaN."""
    spec = reader.spec
    count = spec.layout.count(token_type)
    target = np.dtype(np.float32) if dtype == "float32" or spec.dtype == "bfloat16" else np.dtype(spec.dtype)
    images, size = len(spec.images), spec.block
    tail = (spec.channels,) if token_type == "cls" else (count, spec.channels)

    def read(layer: int, first: int, last: int) -> npt.NDArray[Any]:
        if layer not in covered:
            return np.full((last - first, 1, *tail), np.nan, dtype=target)
        tokens = reader.read_float32 if target == np.float32 else reader.read
        return tokens(token_type, layer, first, last).reshape(last - first, 1, *tail)

    name = f"{token_type}-{tokenize(str(reader.path), spec.key, token_type, list(layers), str(target), images)}"
    origin = (0,) * len(tail)
    graph = {
        (name, block, column, *origin): (read, layer, block * size, min((block + 1) * size, images))
        for block in range(-(-images // size))
        for column, layer in enumerate(layers)
    }
    rows = tuple(min(size, images - first) for first in range(0, images, size))
    chunks = (rows, (1,) * len(layers), *((length,) for length in tail))
    return da.Array(graph, name, chunks, dtype=target)  # type: ignore[no-untyped-call]


def _coordinates(reader: StoreReader) -> dict[str, Any]:
    images, layout = reader.spec.images, reader.spec.layout
    found: dict[str, Any] = {
        "image_id": ("image", np.array(images.image_id, dtype=object)),
        "content_sha256": ("image", np.array(images.sha256, dtype=object)),
        "readable": ("image", reader.readable),
    }
    if images.label is not None:
        found["label"] = ("image", np.array(images.label, dtype=np.int64))
    if images.class_name is not None:
        found["class_name"] = ("image", np.array(images.class_name, dtype=object))
    if "patches" in reader.spec.token_types:
        row, column = np.divmod(np.arange(layout.patches), layout.columns)
        found |= {"row": ("patch", row), "col": ("patch", column)}
    return found
