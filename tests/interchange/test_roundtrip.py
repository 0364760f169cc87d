"""Store to file to store: the same key and bytes, whatever geometry, dtype and coverage; and what plain readers see."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import cachetool
from cachetool.interchange import export_file, import_file
from cachetool.objects import ObjectPath
from cachetool.objects.filesystem import FileSystem
from cachetool.store import StoreReader, StoreWriter, check_block, check_flags, check_tables, create, to_float32
from tests.interchange.conftest import complete_key
from tests.reference.quick import quick
from tests.store.conftest import examples


def verified(path: Path) -> StoreReader:
    reader = StoreReader(path)
    assert not any(check_tables(path).values())
    assert not any(check_block(path, n) or check_flags(path, n) for n in range(reader.spec.geometry.blocks))
    return reader


@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_any_part_of_any_store_comes_back_to_the_byte(tmp_path_factory, data) -> None:
    example = complete_key(data.draw(examples()))
    spec, folder = example.spec, tmp_path_factory.mktemp("interchange")
    path, images = folder / "photos" / "model.zarr", len(spec.images)
    create(path, spec)
    writer, types = StoreWriter(path), spec.layout.types
    finished = np.zeros((spec.geometry.blocks, len(types), len(spec.layers)), dtype=bool)
    failed = data.draw(st.sets(st.integers(0, images - 1), max_size=3))
    readable = np.ones(images, dtype=bool)
    for block in range(spec.geometry.blocks):
        for row, name in enumerate(types):
            layers = sorted(data.draw(st.sets(st.sampled_from(spec.layers))))
            if layers:
                rows = [image for image in failed if image in spec.geometry.block_range(block)]
                bad = {spec.images.image_id[image]: "no image" for image in rows}
                writer.write_block(block, example.arrays(block, layers, [name], images), layers, failed=bad)
                finished[block, row] = np.isin(spec.layers, layers)
                readable[rows] = False
    limit = data.draw(st.integers(1, images))
    names = sorted(data.draw(st.sets(st.sampled_from(types), min_size=1)))
    blocks = -(-limit // spec.block)
    finished = finished[:blocks] & np.isin(types, names)[:, np.newaxis]
    held = [layer for index, layer in enumerate(spec.layers) if finished[:, :, index].any()]
    options = {"token_types": names, "limit": limit}
    if not held:
        with pytest.raises(cachetool.CachetoolError, match="holds nothing"):
            export_file(path, folder / "a.h5", **options)
        return
    layers = sorted(data.draw(st.sets(st.sampled_from(held), min_size=1)))
    finished &= np.isin(spec.layers, layers)
    done = export_file(path, folder / "a.h5", layers=layers, **options)
    assert (done.images, done.layers) == (limit, tuple(layers))
    reader = verified(import_file(folder / "a.h5", root=folder / "other").path)
    cut = {name: column[:limit] for name, column in spec.images.columns.items()}
    assert reader.spec.images.columns == cut
    for field in ("kind", "key", "layout", "channels", "layers", "dtype", "block"):
        assert getattr(reader.spec, field) == getattr(spec, field)
    assert reader.spec.norm is not None
    np.testing.assert_array_equal(reader.spec.norm.weight, spec.norm.weight)
    assert (reader.complete == finished).all()
    # An image is known to be unreadable once something of its block is finished.
    known = np.repeat(finished.any(axis=(1, 2)), spec.block)[:limit]
    assert (reader.readable == (readable[:limit] | ~known)).all()
    with xr.open_dataset(folder / "a.h5", engine="h5netcdf") as plain, xr.open_zarr(reader.path) as made:
        assert (plain.image_id.values == made.image_id.values).all()
        for name in names:
            seen = plain[name].values.reshape(limit, len(layers), -1, spec.channels)
            for block, row, index in np.argwhere(finished[:, [types.index(name)]]).tolist():
                assert row == 0
                start, stop = block * spec.block, min((block + 1) * spec.block, limit)
                expected = example.values[name][start:stop, index].copy()
                expected[~readable[start:stop]] = 0x7FC0 if spec.dtype == "bfloat16" else np.nan
                found = reader.read(name, spec.layers[index], start, stop)
                assert found.tobytes() == expected.tobytes()
                same = seen[start:stop, layers.index(spec.layers[index])]
                assert same.tobytes() == expected.tobytes()
                seen[start:stop, layers.index(spec.layers[index])] = 0x7FC0 if spec.dtype == "bfloat16" else np.nan
            assert np.isnan(to_float32(np.ascontiguousarray(seen), spec.dtype)).all()


def test_plain_h5py_reads_everything(cache: Path, tmp_path: Path) -> None:
    export_file(cache, tmp_path / "a.h5")
    spec = StoreReader(cache).spec
    with h5py.File(tmp_path / "a.h5") as handle:
        assert [dim.label for dim in handle["patches"].dims] == ["image", "layer", "patch", "channel"]
        assert handle["patches"].dims[1][0][:].tolist() == [0, 1, 2, 3]
        assert handle["patches"].chunks == (4, 1, 6, 5)
        assert handle["image_id"].asstr()[:].tolist() == list(spec.images.image_id)
        assert json.loads(handle.attrs["key"]) == spec.key
        assert handle.attrs["norm_type"] == "layer_norm"
        assert handle["complete"][:].tolist() == StoreReader(cache).complete.astype(int).tolist()
        assert handle["readable"][:].tolist() == [1, 1, 1, 1, 1, 0, 1, 1, 1, 1]
        assert np.isnan(handle["patches"][:, 3]).all()
        assert np.isnan(handle["cls"][5]).all()


def test_runs_come_back_with_what_lies_beside_their_tokens(tmp_path: Path) -> None:
    with quick():
        made = cachetool.extract("tiny-reg", "shapes", limit=12, root=tmp_path / "a", workers=0, layers=range(6, 13))
        run = cachetool.replay(made, cachetool.Edit("registers", "shuffle", 6))
    for number, opened in enumerate((made, run)):
        cachetool.export_hdf5(opened, tmp_path / f"{number}.h5")
        back = cachetool.import_hdf5(tmp_path / f"{number}.h5", root=tmp_path / "b")
        facts = {**opened.attrs["facts"], "imported_from": f"{number}.h5"}
        xr.testing.assert_identical(back.drop_attrs(deep=False).compute(), opened.drop_attrs(deep=False).compute())
        assert back.attrs["facts"] == facts
        assert back.attrs["key"] == opened.attrs["key"]
    runs = cachetool.open_runs(tmp_path / "b" / "shapes" / "tiny-reg.zarr")
    assert runs.replacement.values.tolist() == ["shuffle"]
    with quick():  # what was imported is a cache like any other: it is extended and replayed
        more = cachetool.extract("tiny-reg", "shapes", limit=14, root=tmp_path / "b", workers=0, layers=range(6, 13))
        again = cachetool.replay(more, cachetool.Edit("registers", "zero", 6))
    assert again.sizes["image"] == 14


def test_memory_does_not_grow_with_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At no time more than one state of a block is read for an export, and one block for an import."""
    sizes = []
    read = StoreReader.read

    def watched(self, token_type, layer, start, stop, out=None):
        sizes.append(stop - start)
        return read(self, token_type, layer, start, stop, out)

    monkeypatch.setattr(StoreReader, "read", watched)
    from tests.store.conftest import make_example

    example = complete_key(make_example(images=50, block=4))
    export_file(example.make(tmp_path / "photos" / "model.zarr"), tmp_path / "a.h5")
    assert max(sizes) == 4


def test_an_image_id_of_another_run_of_the_same_name_is_no_reason_to_mix(cache: Path, tmp_path: Path) -> None:
    spec = StoreReader(cache).spec
    edit = {
        "target": "cls", "replacement": "zero", "from_layer": 1, "sustained": True, "until_layer": None, "seed": 0
    }  # fmt: skip
    key = {"cache": "f" * 64, "images": "0" * 64, "edit": edit, "keep": [3], "keep_tokens": ["cls"]}
    run = tmp_path / "elsewhere" / "photos" / "model.runs" / "cls.zero.zarr"
    create(
        run, replace(spec, kind="run", key=key, facts={"depth": 3, "oracle": False}, layers=(3,), token_types=("cls",))
    )
    values = np.ones((1, 4, 5), np.float16)
    StoreWriter(run).write_block(0, {"cls": values}, [3])
    export_file(run, tmp_path / "run.h5")
    with pytest.raises(cachetool.CachetoolError, match="is not the cache that this run was made from"):
        import_file(tmp_path / "run.h5", root=tmp_path / "root")
    assert not list((tmp_path / "root").rglob("*.runs/*"))
    alone = import_file(tmp_path / "run.h5", root=tmp_path / "empty")
    assert alone.kind == "run"
    assert verified(alone.path).coverage("cls") == ()


def test_of_a_published_cache_what_is_exported_is_fetched_alone(cache: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Through fsspec zarr would be given all objects of the store, in memory."""
    fsspec.filesystem("memory").put(str(cache), f"/{tmp_path.name}/", recursive=True)
    published = ObjectPath(f"memory://{tmp_path.name}/{cache.name}")
    read, fetched = FileSystem.get, list[str]()
    monkeypatch.setattr(FileSystem, "get", lambda self, key: fetched.append(key) or read(self, key))
    layer = StoreReader(cache).spec.layers[0]
    export_file(published, tmp_path / "there.h5", layers=[layer], token_types=["cls"])
    assert not [key for key in fetched if "/patches/c" in key or "/cls/c" in key]
    export_file(cache, tmp_path / "here.h5", layers=[layer], token_types=["cls"])
    with h5py.File(tmp_path / "there.h5") as there, h5py.File(tmp_path / "here.h5") as here:
        assert sorted(there) == sorted(here)
        for name in here:
            np.testing.assert_array_equal(there[name][...], here[name][...])
            assert set(there[name].attrs) == set(here[name].attrs)
