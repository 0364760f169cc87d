"""Opened caches and runs: equal to what zarr-python reads, lazy, in float32, joined, normalised as torch does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr
import zarr

import cachetool
from cachetool import Edit
from cachetool.errors import InvalidEditError, MissingDataError
from cachetool.query import store_path
from cachetool.store import StoreReader
from tests.reference.plain_models import plain_tiny_reg, stored_array
from tests.reference.quick import quick

TYPES = ("cls", "registers", "patches")
EDITS = [
    Edit("registers", "zero", 6),
    Edit("registers", "shuffle", 6, fresh_per_layer=True),
    Edit("registers", "shuffle", 9, fresh_per_layer=True),
    Edit("registers", "shuffle", 6),
    Edit("cls", "mean", 6, until_layer=8),
    Edit("cls", "class-mean", 9, sustained=False),
]


@pytest.fixture(scope="module", autouse=True)
def quick_module() -> Iterator[None]:
    with quick(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("cachetool.extraction.request.default_block", lambda *arguments: 8)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, quick_module: None) -> Path:
    return tmp_path_factory.mktemp("query")


@pytest.fixture(scope="module")
def caches(root: Path) -> dict[str, xr.Dataset]:
    return {
        dtype: cachetool.extract("tiny-reg", "shapes", root=root, name=dtype, limit=12, dtype=dtype, workers=0)
        for dtype in ("float32", "float16", "bfloat16")
    }


def decoded(cache: xr.Dataset, name: str) -> np.ndarray:
    stored = stored_array(cache.attrs["cachetool_path"], name)
    if stored.dtype == np.uint16:
        return torch.from_numpy(stored).view(torch.bfloat16).float().numpy()
    return stored.astype(np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_equals_what_zarr_reads_and_is_lazy(caches: dict[str, xr.Dataset], dtype: str) -> None:
    cache = caches[dtype]
    for name in TYPES:
        assert isinstance(cache[name].data, da.Array)
        assert cache[name].dtype == np.float32
        assert np.array_equal(cache[name].values, decoded(cache, name))
    assert cache.cls.dims == ("image", "layer", "channel")
    assert cache.patches.dims == ("image", "layer", "patch", "channel")
    assert cache.row.values.reshape(8, 8)[:, 3].tolist() == list(range(8))
    assert cache.col.values.reshape(8, 8)[3].tolist() == list(range(8))


def test_agrees_with_plain_xarray(caches: dict[str, xr.Dataset]) -> None:
    cache = caches["float16"]
    stored = cachetool.open(cache.attrs["cachetool_path"], dtype="stored")
    with xr.open_zarr(cache.attrs["cachetool_path"]) as plain:
        for name in TYPES:
            assert stored[name].dtype == np.float16
            assert np.array_equal(stored[name].values, plain[name].values)
        for name in ("image_id", "label", "class_name", "readable", "layer"):
            assert plain[name].values.tolist() == cache[name].values.tolist()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_chunks_are_those_of_shards_and_are_decoded_when_asked(
    caches: dict[str, xr.Dataset], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images are cut where shards end; a chunk is one state of a shard, so that no other state is read with it."""
    path = Path(caches[dtype].attrs["cachetool_path"])
    reads = []
    read = StoreReader.read_float32

    def counted(self: StoreReader, *arguments: Any) -> Any:
        reads.append(arguments)
        return read(self, *arguments)

    monkeypatch.setattr(StoreReader, "read_float32", counted)
    cache = cachetool.open(path)
    for name in TYPES:
        files = sorted((path / name).glob("c.*"), key=lambda file: int(file.name.split(".")[1]))
        shard = zarr.open_array(path / name, mode="r").shards[0]
        assert len(files) == len(cache[name].chunksizes["image"]) == 2
        assert cache[name].chunksizes["image"] == (shard, 12 - shard) == (8, 4)
        assert set(cache[name].chunksizes["layer"]) == {1}
    mean = cache.registers.sel(layer=6).isel(image=slice(8, None)).mean("image")
    assert reads == []
    expected = decoded(cache, "registers")[8:, 6].mean(0, dtype=np.float64)
    assert np.allclose(mean.values, expected, rtol=1e-5, atol=1e-6)
    assert reads == [("registers", 6, 8, 12)]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_selections_and_means(caches: dict[str, xr.Dataset], dtype: str) -> None:
    cache = caches[dtype]
    registers, cls = decoded(cache, "registers"), decoded(cache, "cls")
    mean = cache.registers.sel(layer=6).mean("image")
    assert np.allclose(mean.values, registers[:, 6].mean(axis=0, dtype=np.float64), rtol=1e-5, atol=1e-6)
    label = int(cache.label[0])
    of_class = cache.cls.isel(image=np.flatnonzero(cache.label.values == label)).mean("image")
    expected = cls[cache.label.values == label].mean(axis=0, dtype=np.float64)
    assert np.allclose(of_class.values, expected, rtol=1e-5, atol=1e-6)
    assert np.array_equal(cache.cls.isel(image=9).values, cls[9])
    by_name = cache.set_index(image="image_id").cls.sel(image="val/00009", layer=4)
    assert np.array_equal(by_name.values, cls[9, 4])


def test_states_that_one_type_lacks_are_nan(root: Path) -> None:
    options: dict[str, Any] = {"root": root, "name": "partly", "limit": 12, "workers": 0}
    cachetool.extract("tiny-reg", "shapes", layers=(3,), tokens=("cls",), **options)
    cache = cachetool.extract("tiny-reg", "shapes", layers=(5,), tokens=("registers",), **options)
    assert cache.layer.values.tolist() == [3, 5]
    assert "patches" not in cache
    assert np.isfinite(cache.cls.sel(layer=3)).all()
    assert np.isnan(cache.cls.sel(layer=5)).all()
    assert np.isnan(cache.registers.sel(layer=3)).all()


def test_depth_is_that_of_the_model_whatever_is_held(root: Path) -> None:
    inner = cachetool.extract(
        "tiny-reg", "shapes", root=root, name="inner", limit=4, layers=[3, 6], tokens=["cls"], workers=0
    )
    assert inner.layer.values.tolist() == [3, 6]
    assert inner.attrs["depth"] == 12
    whole = cachetool.extract("tiny-reg", "shapes", root=root, name="whole", limit=4, layers=[6, 12], workers=0)
    run = cachetool.replay(whole, Edit("cls", "zero", 6), keep=[6, 7])
    assert run.layer.values.tolist() == [6, 7]
    assert run.attrs["depth"] == 12


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_normalize_equals_torch(caches: dict[str, xr.Dataset], dtype: str) -> None:
    cache, norm = caches[dtype], plain_tiny_reg().norm
    for name in TYPES:
        found = cachetool.normalize(cache[name].sel(layer=12), cache)
        assert isinstance(found.data, da.Array)
        with torch.inference_mode():
            expected = norm(torch.from_numpy(decoded(cache, name)[:, 12])).numpy()
        assert found.dtype == np.float32
        assert np.allclose(found.values, expected, rtol=1e-5, atol=2e-6)


def test_normalize_of_stored_float16_does_not_overflow(caches: dict[str, xr.Dataset]) -> None:
    tokens = xr.DataArray(np.linspace(-2000, 6000, 96, dtype=np.float16), dims="channel")
    with torch.inference_mode():
        expected = plain_tiny_reg().norm(torch.from_numpy(tokens.values.astype(np.float32))).numpy()
    assert np.allclose(cachetool.normalize(tokens, caches["float16"]).values, expected, rtol=1e-5, atol=1e-5)


def test_rms_norm() -> None:
    store = xr.Dataset({"norm_weight": ("channel", np.array([1, 2, 3, 4], dtype=np.float32))})
    store.attrs["norm"] = {"type": "rms_norm", "epsilon": 1e-5}
    tokens = torch.tensor([[1.0, -2.0, 3.0, 0.5]])
    expected = torch.nn.functional.rms_norm(tokens, (4,), torch.tensor([1.0, 2.0, 3.0, 4.0]), 1e-5)
    found = cachetool.normalize(xr.DataArray(tokens.numpy(), dims=("image", "channel")), store)
    assert np.allclose(found.values, expected.numpy(), rtol=1e-6)


def test_runs_are_joined(caches: dict[str, xr.Dataset]) -> None:
    cache = caches["float32"]
    with pytest.raises(MissingDataError, match="no finished run"):
        cachetool.open_runs(cache)
    opened = cachetool.replay(cache, EDITS)
    runs = cachetool.open_runs(cache, [run.attrs["cachetool_path"] for run in opened])
    assert runs.sizes["run"] == len(EDITS)
    for number, (edit, run) in enumerate(zip(EDITS, opened, strict=True)):
        one = runs.isel(run=number)
        described = (str(one.target.values), str(one.replacement.values), int(one.from_layer), bool(one.sustained))
        assert described == (edit.target, edit.replacement, edit.from_layer, edit.sustained)
        assert int(one.until_layer) == (-1 if edit.until_layer is None else edit.until_layer)
        assert bool(one.oracle) == (edit.replacement == "class-mean")
        for name in TYPES:
            stored = stored_array(run.attrs["cachetool_path"], name)
            assert np.array_equal(one[name].values, stored)
        normal = cachetool.normalize(one.cls, runs)
        assert normal.dims == ("image", "layer", "channel")
        assert np.array_equal(one.edited.values, stored_array(run.attrs["cachetool_path"], "edited"))
    assert runs.edited.dtype == bool
    assert runs.edited_layer.values.tolist() == list(range(6, 13))
    assert runs.image_id.dims == ("image",)
    zeros = runs.isel(run=(runs.replacement == "zero").values)
    assert (zeros.registers.values == 0).all()
    shift = np.abs(zeros.cls - cache.cls).mean(("image", "channel"))
    assert shift.dims == ("run", "layer")
    assert (shift.sel(layer=12) > 1e-3).all()


def test_runs_before_and_after_the_cache_grew_are_joined(root: Path) -> None:
    options: dict[str, Any] = {"root": root, "name": "growing", "dtype": "float32", "workers": 0}
    for limit in (6, 12):
        cache = cachetool.extract("tiny-reg", "shapes", limit=limit, **options)
        cachetool.replay(cache, Edit("registers", "zero", 6))
    runs = cachetool.open_runs(cache)
    assert runs.sizes == {**runs.sizes, "run": 2, "image": 12}
    assert runs.image_id.values.tolist() == cache.image_id.values.tolist()
    assert runs.label.values.tolist() == cache.label.values.tolist()
    short = np.isnan(runs.cls.values).any(axis=(1, 2, 3))
    assert sorted(short) == [False, True]
    assert np.isnan(runs.cls.values[short][:, 6:]).all()
    assert np.allclose(runs.cls.values[short][:, :6], runs.cls.values[~short][:, :6], rtol=1e-4, atol=1e-5)


def test_path_of_what_was_opened(caches: dict[str, xr.Dataset]) -> None:
    cache = caches["float32"]
    assert store_path(cache) == store_path(cache.attrs["cachetool_path"])
    with pytest.raises(InvalidEditError, match=r"cachetool\.open"):
        store_path(xr.Dataset())
