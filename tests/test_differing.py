"""Two stores side by side: every part of the key, every kind of image, coverage, facts and values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cachetool
from cachetool import Edit
from cachetool.errors import StoreError
from cachetool.store import ImageTable, StoreReader, StoreSpec, StoreWriter, create, from_float32
from cachetool.tokens import TokenLayout
from tests.reference.quick import quick

LAYOUT = TokenLayout(cls=1, registers=2, rows=2, columns=2)
SPEC = StoreSpec(
    kind="cache",
    key={"architecture": "x", "dtype": "float16", "transform": {"size": 8}},
    facts={"batch_size": 8, "environment": {"torch": "2.0"}},
    layout=LAYOUT,
    channels=3,
    layers=(0, 1, 2),
    token_types=("cls", "registers", "patches"),
    dtype="float16",
    block=4,
    images=ImageTable(tuple(f"{i}.png" for i in range(10)), tuple(f"{i:064x}" for i in range(10)), tuple(range(10))),
)
VALUES = np.random.default_rng(0).normal(size=(10, 3, LAYOUT.tokens, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def quickly() -> Iterator[None]:
    with quick():
        yield


def make(path: Path, spec: StoreSpec = SPEC, values: Any = VALUES, layers: tuple[int, ...] | None = None) -> Path:
    """A store of the images of a spec; image `i.png` has the values of row i."""
    create(path, spec)
    rows = [int(name.split(".")[0]) for name in spec.images.image_id]
    chosen = spec.layers if layers is None else layers
    for block in range(spec.geometry.blocks):
        part = values[rows][block * spec.block : (block + 1) * spec.block][:, list(chosen)].swapaxes(0, 1)
        arrays = {
            name: from_float32(np.ascontiguousarray(part[:, :, LAYOUT.slice(name)]), spec.dtype)
            for name in spec.token_types
        }
        arrays["cls"] = arrays["cls"][:, :, 0]
        StoreWriter(path).write_block(block, arrays, chosen)
    return path


def images(ids: list[int], **columns: Any) -> ImageTable:
    table = ImageTable(tuple(f"{i}.png" for i in ids), tuple(f"{i:064x}" for i in ids), tuple(ids))
    return replace(table, **columns)


def test_a_store_and_its_copy_are_the_same(tmp_path: Path) -> None:
    found = cachetool.diff(make(tmp_path / "a.zarr"), make(tmp_path / "b.zarr"), values=True)
    assert found.same
    assert (found.key, found.coverage, found.facts) == ([], [], [])
    assert found.values is not None
    assert len(found.values) == 9
    assert {(one.relative_rms, one.largest, one.bit_equal, one.unmatched) for one in found.values} == {(0, 0, 1, 0)}
    assert json.loads(json.dumps(found.to_json()))["same"] is True
    assert "values" not in cachetool.diff(tmp_path / "a.zarr", tmp_path / "b.zarr").to_json()


def test_images_that_are_added_missing_changed_moved_and_relabelled(tmp_path: Path) -> None:
    a = make(tmp_path / "a.zarr")
    table = images([1, 0, 2, 3, 4, 5, 6, 11])
    sha256 = (*table.sha256[:3], "f" * 64, *table.sha256[4:])
    table = replace(table, sha256=sha256, label=(*(table.label or ())[:5], 77, *(table.label or ())[6:]))
    b = make(tmp_path / "b.zarr", replace(SPEC, images=table), np.concatenate([VALUES, VALUES]))
    found = cachetool.diff(a, b, values=True)
    assert not found.same
    assert found.images.added == ("11.png",)
    assert found.images.missing == ("7.png", "8.png", "9.png")
    assert found.images.other_content == ("3.png",)
    assert found.images.other_order
    assert found.images.other_label == ("5.png",)
    assert found.values is not None
    assert {(one.images, one.bit_equal) for one in found.values} == {(6, 1.0)}, "images 0, 1, 2, 4, 5, 6 in any order"
    assert cachetool.diff(
        a, make(tmp_path / "c.zarr", replace(SPEC, images=images([*range(10)], label=None)))
    ).images == (replace(type(found.images)(), other_label=tuple(f"{i}.png" for i in range(10))))


def test_coverage_and_facts(tmp_path: Path) -> None:
    a = make(tmp_path / "a.zarr", layers=(0, 2))
    spec = replace(SPEC, token_types=("cls", "patches"), facts={"batch_size": 4, "environment": {"torch": "2.1"}})
    b = make(tmp_path / "b.zarr", spec, layers=(0, 1))
    found = cachetool.diff(a, b)
    assert found.coverage == [
        "cls: states 2 only here", "cls: states 1 only there", "registers: states 0, 2 only here",
        "patches: states 2 only here", "patches: states 1 only there",
    ]  # fmt: skip
    assert found.facts == ["batch size: 8 here, 4 there", "environment, torch: 2.0 here, 2.1 there"]
    assert not found.same
    recorded_only = cachetool.diff(make(tmp_path / "c.zarr"), make(tmp_path / "d.zarr", replace(SPEC, facts={})))
    assert recorded_only.same
    assert recorded_only.facts


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_values_by_an_independent_computation(tmp_path: Path, dtype: str) -> None:
    changed = VALUES.copy()
    changed[2:7, 1, 3:] += np.float32(0.125)
    changed[9, 2, 0] = np.nan
    spec = replace(SPEC, dtype=dtype, key={**SPEC.key, "dtype": dtype})
    a, b = make(tmp_path / "a.zarr", spec), make(tmp_path / "b.zarr", spec, changed)
    found = {(one.token_type, one.layer): one for one in cachetool.diff(a, b, values=True).values or []}

    def stored(path: Path, name: str, layer: int) -> np.ndarray:
        return StoreReader(path).read_float32(name, layer, 0, 10).astype(np.float64)

    for (name, layer), one in found.items():
        here, there = stored(a, name, layer), stored(b, name, layer)
        difference = np.nan_to_num(here - there)
        assert one.relative_rms == pytest.approx(np.sqrt((difference**2).sum() / (here**2).sum()), rel=1e-12)
        assert one.largest == pytest.approx(abs(difference).max())
        assert one.bit_equal == (here == there).mean()
        assert one.unmatched == (3 if (name, layer) == ("cls", 2) else 0)
    assert found["patches", 1].bit_equal < 1.0 == found["patches", 0].bit_equal


def test_dtypes_differ_in_key_and_by_rounding(tmp_path: Path) -> None:
    a = make(tmp_path / "a.zarr", replace(SPEC, dtype="float32", key={**SPEC.key, "dtype": "float32"}))
    found = cachetool.diff(a, make(tmp_path / "b.zarr"), values=True)
    assert found.key == ["dtype: float32 here, float16 there"]
    assert found.coverage == ["dtype: float32 here, float16 there"]
    assert found.values is not None
    assert all(0 < one.relative_rms < 2**-11 for one in found.values)


def test_other_shapes_have_no_values_in_common(tmp_path: Path) -> None:
    a = make(tmp_path / "a.zarr")
    b = make(tmp_path / "b.zarr", replace(SPEC, channels=2), VALUES[..., :2])
    assert cachetool.diff(a, b).coverage == ["channels: 3 here, 2 there"]
    with pytest.raises(StoreError, match="no common shape"):
        cachetool.diff(a, b, values=True)


def test_runs_differ_by_their_edit(tmp_path: Path) -> None:
    cache = cachetool.extract("tiny-reg", "shapes", root=tmp_path, limit=6, workers=0)
    first, second = cachetool.replay(cache, [Edit("registers", "zero", 9), Edit("registers", "shuffle", 9, seed=3)])
    found = cachetool.diff(first, second, values=True)
    assert "edit, replacement: zero here, shuffle there" in found.key
    assert "edit, seed: 0 here, 3 there" in found.key
    assert found.images == type(found.images)()
    assert found.values is not None
    assert all(one.relative_rms > 0 for one in found.values)
    assert cachetool.diff(cache, first).key[0].startswith("architecture: ")
    assert "kind: cache here, run there" in cachetool.diff(cache, first).key
