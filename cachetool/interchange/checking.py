"""What an HDF5 file from somebody else says, believed only as far as it fits together; nothing in it is ever executed.

Sizes against declared shapes, names against places, key and flags against the values that are there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cachetool.errors import StoreError
from cachetool.interchange.containment import contained
from cachetool.interchange.names import (
    BOOL_ATTRIBUTE,
    COLUMNS,
    ENCODING_ATTRIBUTE,
    OWN,
    VERSION,
    VERSION_ATTRIBUTE,
    Place,
)
from cachetool.store import DTYPES, ArraySpec, ImageTable, NormSpec, StoreSpec, storage_dtype
from cachetool.store.dtypes import DTYPE_ATTRIBUTE
from cachetool.tokens import TOKEN_TYPES, TokenLayout

LARGEST_BLOCK = 4096
"""Images a block; stores are made with 8 to 256, and a block is padded in memory to its full length."""

KEY_PARTS: Mapping[str, Mapping[str, type | tuple[type, ...]]] = {
    "cache": {
        "architecture": str,
        "weights_sha256": str,
        "position_embedding": str,
        "transform": dict,
        "dataset": str,
        "dtype": str,
    },
    "run": {"cache": str, "images": str, "edit": dict, "keep": list, "keep_tokens": list},
}
"""Parts that the key of every store has, and their types."""

EDIT_PARTS: Mapping[str, type | tuple[type, ...]] = {
    "target": str,
    "replacement": str,
    "from_layer": int,
    "sustained": bool,
    "until_layer": (int, type(None)),
    "seed": int,
}

_STUMBLES = (KeyError, TypeError, ValueError, OverflowError, RuntimeError, OSError, MemoryError)
"""What h5py and Python raise for what is absent, damaged, of another type or beyond their limits."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Contents:
    """What a file holds, checked."""

    place: Place
    spec: StoreSpec
    """The store to make: all its states, the token types that the file has."""
    layers: tuple[int, ...]
    """States in the file."""
    complete: npt.NDArray[np.bool_]
    """What is finished, (block, token_type, layer), token types of the model, states of the file."""
    readable: npt.NDArray[np.bool_]
    """Whether each image could be decoded, (image,)."""
    tokens: Mapping[str, Any]
    """Open data set of each token type."""
    extras: Mapping[str, tuple[tuple[str, ...], npt.NDArray[Any], dict[str, Any]]]
    """Dimensions, values and attributes of the arrays beside the tokens."""


def check(handle: Any, source: str) -> Contents:
    """Read everything but the tokens from an open file. Raises `StoreError` naming all that does not fit."""
    try:
        version = handle.attrs.get(VERSION_ATTRIBUTE)
    except _STUMBLES as error:
        raise StoreError(f"{source} cannot be read as HDF5: {error}") from error
    if not isinstance(version, np.integer):
        raise StoreError(f"{source} is no export of cachetool: it lacks the attribute {VERSION_ATTRIBUTE}")
    if version > VERSION:
        raise StoreError(
            f"{source} has layout version {version}, this cachetool reads up to {VERSION}; install a newer"
        )
    problems: list[str] = []
    try:
        datasets = contained(handle, problems)
        if not problems:
            return _Reading(handle, datasets, problems).contents()
    except StoreError as error:
        problems.append(str(error))
    except _STUMBLES as error:
        problems.append(f"{type(error).__name__}: {error}")
    listing = "".join(f"\n  {problem}" for problem in problems)
    raise StoreError(
        f"{source} cannot be imported:{listing}\nexport it again, from a store that `cachetool verify` passes"
    )


class _Reading:
    """One pass over the attributes and small arrays of a file, collecting what is wrong."""

    def __init__(self, handle: Any, datasets: Mapping[str, Any], problems: list[str]) -> None:
        self._handle, self._datasets, self._problems = handle, datasets, problems

    def contents(self) -> Contents:
        """All of it. Raises `StoreError` and whatever wrong types lead to."""
        place = Place.parse(self._text("place"))
        layout = TokenLayout(**_numbers(_json(self._text("layout")), ("cls", "registers", "rows", "columns")))
        block, channels = self._number("block"), self._number("channels")
        layers = tuple(map(int, self._column("layer", "iu")))
        states = tuple(np.asarray(self._handle.attrs["all_layers"], dtype=np.int64).ravel().tolist())
        spec = StoreSpec(
            kind=self._text("kind"),
            key=_json(self._text("key")),
            facts=_json(self._text("facts")),
            layout=layout,
            channels=channels,
            layers=states,
            token_types=tuple(name for name in TOKEN_TYPES if name in self._datasets),
            dtype=self._text("dtype"),
            block=block,
            images=self._images(),
            norm=self._norm(channels),
        )
        geometry = spec.geometry
        self._expect(layout.cls in (0, 1), f"layout: 0 or 1 [CLS], not {layout.cls}")
        self._expect(min(layout.registers, layout.rows, layout.columns) >= 0, f"layout: {layout} counts below 0")
        self._expect(block <= LARGEST_BLOCK, f"block: at most {LARGEST_BLOCK} images, not {block}")
        self._expect(layers == tuple(sorted({*layers} & {*states})) != (), f"layer: {layers} are no states of {states}")
        self._check_key(spec, place)
        self._check_axes(layout)
        shape = (geometry.blocks, len(layout.types), len(layers))
        complete, readable = self._flags("complete", shape), self._flags("readable", (len(spec.images),))
        stored = np.isin(layout.types, spec.token_types)
        self._expect(not complete[:, ~stored].any(), "complete: flags token types that the file does not have")
        for name in spec.token_types:
            self._check_tokens(geometry.array(name), (len(spec.images), len(layers)), spec)
        extras = {name: self._extra(name) for name in self._datasets if name not in OWN}
        if self._problems:
            raise StoreError(self._problems.pop())
        tokens = {name: self._datasets[name] for name in spec.token_types}
        return Contents(place, spec, layers, complete, readable, tokens, extras)

    def _expect(self, fits: bool, problem: str) -> None:
        if not fits:
            self._problems.append(problem)

    def _text(self, name: str) -> str:
        value = self._handle.attrs[name]
        if not isinstance(value, str):
            raise StoreError(f"the attribute {name} must be text, found {type(value).__name__}")
        value.encode()  # h5py keeps bytes that are no UTF-8 as surrogates
        return value

    def _number(self, name: str) -> int:
        value = self._handle.attrs[name]
        if not isinstance(value, np.integer):
            raise StoreError(f"the attribute {name} must be an integer, found {value!r}")
        return int(value)

    def _column(self, name: str, kinds: str) -> npt.NDArray[Any]:
        """An array of one dimension; text is decoded."""
        if name not in self._datasets:
            raise StoreError(f"there is no data set {name}")
        dataset = self._datasets[name]
        if dataset.ndim != 1 or dataset.dtype.kind not in kinds:
            raise StoreError(f"{name} is {dataset.dtype} {dataset.shape}; expected one dimension of kind {kinds}")
        return _values(dataset)

    def _images(self) -> ImageTable:
        kinds = {"label": "i"}
        columns = {
            name: tuple(self._column(name, kinds.get(name, "S")).tolist()) for name in COLUMNS if name in self._datasets
        }
        wrong = [text for text in columns["content_sha256"] if not _SHA256.fullmatch(text)]
        self._expect(not wrong, f"content_sha256: {len(wrong)} entries are not 64 hexadecimal digits")
        self._expect("" not in columns["image_id"], "image_id: an image has no name")
        return ImageTable(
            columns["image_id"], columns["content_sha256"], columns.get("label"), columns.get("class_name")
        )

    def _norm(self, channels: int) -> NormSpec | None:
        if "norm_type" not in self._handle.attrs:
            return None
        kind, epsilon = self._text("norm_type"), self._handle.attrs["norm_epsilon"]
        self._expect(kind in ("layer_norm", "rms_norm"), f"norm_type: layer_norm or rms_norm, not {kind!r}")
        self._expect(
            isinstance(epsilon, np.floating) and bool(epsilon >= 0), f"norm_epsilon: a number, not {epsilon!r}"
        )
        vectors = {
            name: self._column(name, "f").astype(np.float32)
            for name in ("norm_weight", "norm_bias")
            if name in self._datasets
        }
        for name, vector in vectors.items():
            self._expect(len(vector) == channels, f"{name}: {len(vector)} numbers for {channels} channels")
        return NormSpec(kind, float(epsilon), vectors.get("norm_weight"), vectors.get("norm_bias"))

    def _check_key(self, spec: StoreSpec, place: Place) -> None:
        if spec.kind not in KEY_PARTS:
            self._problems.append(f"kind: cache or run, not {spec.kind!r}")
            return
        self._problems += _misfits("key", spec.key, KEY_PARTS[spec.kind])
        self._expect((spec.kind == "run") == (place.run is not None), f"place: {place} is not that of a {spec.kind}")
        if spec.kind == "cache":
            same = spec.key.get("dtype") == spec.dtype
            self._expect(same, f"key: dtype {spec.key.get('dtype')} for values of {spec.dtype}")
        else:
            edit = spec.key.get("edit")
            self._problems += _misfits("edit", edit if isinstance(edit, dict) else {}, EDIT_PARTS)
            self._problems += _misfits("facts", spec.facts, {"depth": int, "oracle": bool})

    def _check_axes(self, layout: TokenLayout) -> None:
        types = tuple(self._column("token_type", "S").tolist())
        self._expect(types == layout.types, f"token_type: {types}, but the layout has {layout.types}")
        for name in ("row", "col"):
            found = len(self._column(name, "i"))
            self._expect(found == layout.patches, f"{name}: {found} entries for {layout.patches} patches")

    def _flags(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        if name not in self._datasets:
            raise StoreError(f"there is no data set {name}")
        dataset = self._datasets[name]
        if dataset.shape != shape or dataset.dtype.kind not in "iub" or dataset.dtype.itemsize != 1:
            raise StoreError(f"{name} is {dataset.dtype} {dataset.shape}; expected int8 {shape}")
        return np.asarray(dataset[...] != 0)

    def _check_tokens(self, array: ArraySpec, outer: tuple[int, int], spec: StoreSpec) -> None:
        dataset, dtype = self._datasets[array.name], storage_dtype(spec.dtype) if spec.dtype in DTYPES else None
        shape = (*outer, *array.inner_shape)
        if dataset.shape != shape or dataset.dtype != dtype:
            found = f"{dataset.dtype} {dataset.shape}"
            self._problems.append(f"{array.name}: expected {dtype} {shape}, found {found}")
            return
        if (spec.dtype == "bfloat16") != (dataset.attrs.get(DTYPE_ATTRIBUTE) == "bfloat16"):
            self._problems.append(f"{array.name}: the attribute {DTYPE_ATTRIBUTE} contradicts the dtype {spec.dtype}")
        whole = (spec.block, len(spec.layers), *array.inner_shape)
        if dataset.chunks and any(chunk > size for chunk, size in zip(dataset.chunks, whole, strict=True)):
            self._problems.append(f"{array.name}: chunks {dataset.chunks} are larger than a block, {whole}")

    def _extra(self, name: str) -> tuple[tuple[str, ...], npt.NDArray[Any], dict[str, Any]]:
        dataset = self._datasets[name]
        dimensions = tuple(dataset.dims[axis].label for axis in range(dataset.ndim))
        if not all(dimensions):
            raise StoreError(f"{name}: its dimensions have no labels")
        attributes = {
            key: value if isinstance(value, str) else value.item()
            for key, value in dataset.attrs.items()
            if key not in ("NAME", "CLASS", BOOL_ATTRIBUTE, ENCODING_ATTRIBUTE)
            and (
                isinstance(value, str | np.integer | np.bool_)
                or (isinstance(value, np.floating) and np.isfinite(value))
            )
        }
        return dimensions, _values(dataset), attributes


def _values(dataset: Any) -> npt.NDArray[Any]:
    """A small array as a whole, text decoded and flags as bool."""
    values: npt.NDArray[Any] = dataset[...]
    if values.dtype.kind == "S":
        return np.array([text.decode() for text in values.ravel().tolist()], dtype=object).reshape(values.shape)
    return values.astype(bool) if dataset.attrs.get(BOOL_ATTRIBUTE) == "bool" else values


def _json(text: str) -> dict[str, Any]:
    found = json.loads(text, parse_constant=_refuse_constant)
    if not isinstance(found, dict):
        raise StoreError(f"expected a JSON object, found {text[:80]}")
    return found


def _refuse_constant(text: str) -> None:
    raise StoreError(f"{text} is no number in JSON")


def _numbers(found: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, int]:
    if found.keys() != set(names) or not all(type(value) is int for value in found.values()):
        raise StoreError(f"layout: expected integers for {', '.join(names)}, found {found}")
    return dict(found)


def _misfits(where: str, found: Mapping[str, Any], expected: Mapping[str, type | tuple[type, ...]]) -> list[str]:
    """Parts that are absent or of another type."""
    return [
        f"{where}: {name} is {'absent' if name not in found else repr(found[name])}"
        for name, kind in expected.items()
        if name not in found or not isinstance(found[name], kind)
    ]
