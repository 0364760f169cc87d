"""What distinguishes two stores: their keys, images, labels, coverage and values; and, apart, what is recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from cachetool.errors import StoreError
from cachetool.events import Events, Silent
from cachetool.objects import AnyPlace, Place
from cachetool.query import store_path
from cachetool.store import ImageTable, StoreReader, StoreSpec, differences, to_float32
from cachetool.tokens import TOKEN_TYPES

UNTOLD = ("read", "seconds", "finished")
"""Facts that are not compared: digests of values, which say nothing by themselves, and how a run went."""


@dataclass(frozen=True)
class ImageDifference:
    """How two lists of images differ; ids."""

    added: tuple[str, ...] = ()
    """Only in the second."""
    missing: tuple[str, ...] = ()
    """Only in the first."""
    other_content: tuple[str, ...] = ()
    """In both, with other bytes."""
    other_order: bool = False
    """Whether those in both come in another order."""
    other_label: tuple[str, ...] = ()
    """In both, with another label or class name, or with one in one of them alone."""
    other_readable: tuple[str, ...] = ()
    """In both, but decoded in one of them alone."""


@dataclass(frozen=True)
class ValueDifference:
    """How far one state of one token type lies apart over the images that both stores hold."""

    token_type: str
    layer: int
    images: int
    """Shared images of the same content."""
    relative_rms: float
    """Root mean square of the difference over that of the first store's values."""
    largest: float
    """Largest absolute difference."""
    bit_equal: float
    """Share of equal values: to the bit, or where dtypes differ, in float32."""
    unmatched: int
    """Values that only one of the stores has (the other is NaN)."""


@dataclass(frozen=True)
class Difference:
    """What `diff` found."""

    a: Place
    b: Place
    key: list[str] = field(default_factory=list)
    """Parts of the keys that differ, the first store as `here`; of runs the edit too."""
    images: ImageDifference = field(default_factory=ImageDifference)
    coverage: list[str] = field(default_factory=list)
    """Token types and states that only one of them holds, and shapes that differ."""
    facts: list[str] = field(default_factory=list)
    """What is recorded otherwise: versions, device, kernel, batch size, model name. Stores may differ in it alone."""
    values: list[ValueDifference] | None = None
    """By token type and state; None where values were not compared."""

    @property
    def same(self) -> bool:
        """Whether nothing differs but what is recorded."""
        values = all(one.bit_equal == 1.0 for one in self.values or [])
        return not self.key and not self.coverage and self.images == ImageDifference() and values

    def to_json(self) -> dict[str, Any]:
        """The difference as JSON values."""
        found = {**asdict(self), "a": str(self.a), "b": str(self.b), "same": self.same}
        return {name: value for name, value in found.items() if not (name == "values" and value is None)}


def diff(
    a: AnyPlace | xr.Dataset, b: AnyPlace | xr.Dataset, *, values: bool = False, events: Events | None = None
) -> Difference:
    """Name what distinguishes two caches or runs.

    Parameters
    ----------
    values
        Compare stored values too, over the images that both hold, block by block in bounded memory.
    events
        Told of progress, in images.

    Raises
    ------
    StoreError
        One of them is no cache or run; values were asked for, and one of them is damaged.
    """
    first, second = StoreReader(store_path(a)), StoreReader(store_path(b))
    here, there = first.spec, second.spec
    pairs = _shared(here.images, there.images)
    return Difference(
        a=first.path,
        b=second.path,
        key=differences({"kind": here.kind, **here.key}, {"kind": there.kind, **there.key}),
        images=_image_difference(first, second, pairs),
        coverage=_coverage_difference(first, second),
        facts=differences(_told(here.facts), _told(there.facts)),
        values=_value_differences(first, second, pairs, events or Silent()) if values else None,
    )


def _told(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in UNTOLD}


def _shared(here: ImageTable, there: ImageTable) -> npt.NDArray[np.int64]:
    """Positions of images of the same id in both, (image, 2), in the order of the first."""
    position = {image_id: row for row, image_id in enumerate(there.image_id)}
    pairs = [(row, position[image_id]) for row, image_id in enumerate(here.image_id) if image_id in position]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _image_difference(first: StoreReader, second: StoreReader, pairs: npt.NDArray[np.int64]) -> ImageDifference:
    here, there = first.images, second.images
    ours, theirs = set(here.image_id), set(there.image_id)

    def differing(one: Sequence[Any] | None, other: Sequence[Any] | None) -> tuple[str, ...]:
        if one is None and other is None:
            return ()
        rows = pairs.tolist()
        unknown = one is None or other is None
        return tuple(here.image_id[i] for i, j in rows if unknown or one[i] != other[j])  # type: ignore[index]

    labels = {*differing(here.label, there.label), *differing(here.class_name, there.class_name)}
    return ImageDifference(
        added=tuple(name for name in there.image_id if name not in ours),
        missing=tuple(name for name in here.image_id if name not in theirs),
        other_content=differing(here.sha256, there.sha256),
        other_order=bool((np.diff(pairs[:, 1]) < 0).any()),
        other_label=tuple(name for name in here.image_id if name in labels),
        other_readable=differing(first.readable.tolist(), second.readable.tolist()),
    )


def _coverage_difference(first: StoreReader, second: StoreReader) -> list[str]:
    here, there = first.spec, second.spec
    lines = differences(_shape(here), _shape(there))
    for name in TOKEN_TYPES:
        ours, theirs = set(first.coverage(name)), set(second.coverage(name))
        for word, states in (("here", ours - theirs), ("there", theirs - ours)):
            if states:
                lines.append(f"{name}: states {', '.join(map(str, sorted(states)))} only {word}")
    return lines


def _shape(spec: StoreSpec) -> dict[str, Any]:
    """What decides the shape of a token array."""
    return {"channels": spec.channels, "dtype": spec.dtype, "tokens": asdict(spec.layout)}


def _value_differences(
    first: StoreReader, second: StoreReader, pairs: npt.NDArray[np.int64], events: Events
) -> list[ValueDifference]:
    here, there = first.spec, second.spec
    if (here.layout, here.channels) != (there.layout, there.channels):
        raise StoreError(
            f"values of {first.path} and {second.path} have no common shape ({here.layout}, {here.channels} channels "
            f"and {there.layout}, {there.channels} channels); compare them without --values"
        )
    same = [here.images.sha256[i] == there.images.sha256[j] for i, j in pairs.tolist()]
    pairs = pairs[np.array(same, dtype=bool)]
    states = [
        (name, layer) for name in TOKEN_TYPES for layer in sorted({*first.coverage(name)} & {*second.coverage(name)})
    ]
    sums = {state: _Sums() for state in states}
    events.start("compare", len(pairs))
    for rows in _by_block(pairs, here.block):
        for (name, layer), found in sums.items():
            found.add(_read(first, name, layer, rows[:, 0]), _read(second, name, layer, rows[:, 1]), here, there)
        events.advance(len(rows))
    return [found.result(name, layer, len(pairs)) for (name, layer), found in sums.items()]


def _by_block(pairs: npt.NDArray[np.int64], block: int) -> Iterator[npt.NDArray[np.int64]]:
    """The pairs of each block of the first store."""
    bounds = np.flatnonzero(np.diff(pairs[:, 0] // block)) + 1
    yield from (rows for rows in np.split(pairs, bounds) if len(rows))


def _read(reader: StoreReader, name: str, layer: int, images: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Images in any order, (image, token, channel), in storage dtype; ranges are read at once."""
    bounds = np.flatnonzero(np.diff(images) != 1) + 1
    spans = [(int(part[0]), int(part[-1]) + 1) for part in np.split(images, bounds)]
    return np.concatenate([reader.read(name, layer, start, stop) for start, stop in spans])


@dataclass
class _Sums:
    """Sums over the images so far."""

    squares: float = 0.0
    natural: float = 0.0
    largest: float = 0.0
    equal: int = 0
    values: int = 0
    unmatched: int = 0

    def add(self, one: npt.NDArray[Any], other: npt.NDArray[Any], here: StoreSpec, there: StoreSpec) -> None:
        """Take in values of the same images."""
        a, b = to_float32(one, here.dtype), to_float32(other, there.dtype)
        absent_a, absent_b = np.isnan(a), np.isnan(b)
        if here.dtype == there.dtype:
            equal = one.view(f"u{one.itemsize}") == other.view(f"u{other.itemsize}")
        else:
            equal = (a == b) | (absent_a & absent_b)
        difference = np.subtract(a, b, dtype=np.float64)
        difference[absent_a | absent_b] = 0.0
        self.squares += float(np.square(difference).sum())
        self.natural += float(np.square(np.where(absent_a, 0, a), dtype=np.float64).sum())
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))
        self.equal += int(equal.sum())
        self.values += a.size
        self.unmatched += int((absent_a != absent_b).sum())

    def result(self, token_type: str, layer: int, images: int) -> ValueDifference:
        """The difference over all of them."""
        ratio = self.squares / self.natural if self.natural > 0 else self.squares
        return ValueDifference(
            token_type, layer, images, float(np.sqrt(ratio)), self.largest,
            self.equal / self.values if self.values else 1.0, self.unmatched,
        )  # fmt: skip
