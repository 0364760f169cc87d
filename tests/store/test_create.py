from __future__ import annotations

import errno
import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray

from cachetool.errors import MissingDataError, StoreError
from cachetool.store import StoreReader, StoreWriter, create


def test_a_new_store_is_plain_zarr_full_of_nan(tmp_path, example) -> None:
    path = tmp_path / "caches" / "data set" / "model.zarr"
    create(path, example.spec)
    with xarray.open_zarr(path) as dataset:
        assert np.isnan(dataset.patches).all()
        assert not dataset.complete.any()
        assert dataset.readable.all()
        assert dataset.patches.dims == ("image", "layer", "patch", "channel")
        assert [dataset[name].dims for name in ("layer", "token_type", "row", "col", "norm_weight", "norm_bias")] == [
            (name,) for name in ("layer", "token_type", "patch", "patch", "channel", "channel")
        ]
        assert set(dataset.coords) == {
            *("image_id", "content_sha256", "label", "class_name", "readable"),
            *("layer", "token_type", "row", "col"),
        }
        assert tuple(dataset.image_id.values) == example.spec.images.image_id
        assert tuple(dataset.class_name.values) == example.spec.images.class_name
        assert dataset.row.values.tolist() == [0, 0, 0, 1, 1, 1]
        assert dataset.col.values.tolist() == [0, 1, 2, 0, 1, 2]
        assert dataset.attrs["norm_epsilon"] == 1e-6
        np.testing.assert_array_equal(dataset.norm_weight, np.arange(5))
        assert dataset.attrs["cachetool"]["key"] == example.spec.key


def test_a_store_reads_back_as_the_spec_it_was_made_from(tmp_path, kit) -> None:
    example = kit.make_example(token_types=("patches", "cls"), dtype="bfloat16")
    create(tmp_path / "a.zarr", example.spec)
    for spec in (StoreReader(tmp_path / "a.zarr").spec, StoreWriter(tmp_path / "a.zarr").spec):
        assert spec.images == example.spec.images
        assert spec.geometry == example.spec.geometry
        assert spec.token_types == ("cls", "patches")
        assert (spec.kind, spec.key, spec.facts) == ("cache", example.spec.key, {})
        assert (spec.norm.type, spec.norm.epsilon) == ("layer_norm", 1e-6)
        np.testing.assert_array_equal(spec.norm.bias, example.spec.norm.bias)


def test_what_is_there_is_never_overwritten(tmp_path, example) -> None:
    create(tmp_path / "a.zarr", example.spec)
    with pytest.raises(StoreError, match="something is there already"):
        create(tmp_path / "a.zarr", example.spec)


@pytest.mark.parametrize(("code", "text"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only")])
def test_a_failing_disk_leaves_nothing(tmp_path, example, monkeypatch, code, text) -> None:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(StoreError, match=rf"^Cannot write {tmp_path / 'a.zarr'}: .*{text}"):
        create(tmp_path / "a.zarr", example.spec)
    assert list(tmp_path.iterdir()) == []


def test_no_store_no_format_newer_format(tmp_path, example) -> None:
    with pytest.raises(MissingDataError, match="no store at"):
        StoreReader(tmp_path / "absent.zarr")
    create(tmp_path / "a.zarr", example.spec)
    root = Path(tmp_path / "a.zarr" / "zarr.json")
    text = root.read_text()
    root.write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(StoreError, match="format version 2; this cachetool reads up to 1"):
        StoreReader(tmp_path / "a.zarr")
    root.write_text(text.replace('"cachetool":', '"other":'))
    with pytest.raises(StoreError, match="lacks the attribute"):
        StoreReader(tmp_path / "a.zarr")


def test_a_new_store_has_a_document_for_every_array_and_a_digest_for_every_table(tmp_path, example) -> None:
    path = tmp_path / "a.zarr"
    create(path, example.spec)
    root = json.loads((path / "zarr.json").read_text())
    arrays = root["consolidated_metadata"]["metadata"]
    assert list(arrays) == sorted(arrays)
    for name, document in arrays.items():
        assert json.loads((path / name / "zarr.json").read_text()) == document
    about = root["attributes"]["cachetool"]
    assert set(about["tables"]) == set(arrays) - {"cls", "registers", "patches", "complete", "readable"}
    assert {name: value for name, value in about.items() if name not in ("tables", "crc32c")} == {
        "format": 1,
        "kind": "cache",
        "key": example.spec.key,
        "facts": {},
        "channels": 5,
        "dtype": "float16",
        "block": 4,
        "layout": {"cls": 1, "registers": 2, "rows": 2, "columns": 3},
    }
    assert (root["attributes"]["norm_type"], root["attributes"]["norm_epsilon"]) == ("layer_norm", 1e-6)
    shapes = {name: (arrays[name]["shape"], grid(arrays[name])) for name in ("complete", "readable", "image_id", "row")}
    assert shapes == {
        "complete": ([3, 3, 4], [1, 3, 4]),
        "readable": ([10], [4]),
        "image_id": ([10], [4096]),
        "row": ([6], [6]),
    }
    assert (arrays["complete"]["fill_value"], arrays["readable"]["fill_value"]) == (False, True)
    assert {file.name for file in (path / "row").iterdir()} == {"zarr.json", "c.0"}
    assert list((path / ".cachetool" / "blocks").iterdir()) == []


def grid(document):
    return document["chunk_grid"]["configuration"]["chunk_shape"]


def test_columns_and_a_norm_that_are_not_there_are_left_out(tmp_path, example, kit) -> None:
    bare = replace(example.spec, images=replace(kit.image_table(10), label=None, class_name=None), norm=None)
    create(tmp_path / "a.zarr", bare)
    document = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    assert not {"label", "class_name", "norm_weight", "norm_bias"} & set(document["consolidated_metadata"]["metadata"])
    assert not {"norm_type", "norm_epsilon"} & set(document["attributes"])
    assert StoreReader(tmp_path / "a.zarr").spec == replace(bare, token_types=("cls", "registers", "patches"))


def test_what_was_left_of_a_store_that_was_never_finished_is_removed(tmp_path, example, kit) -> None:
    dead = tmp_path / f"a.zarr.partial-{socket.gethostname()}-{2**22 + 1}"
    mine = tmp_path / f"a.zarr.partial-{socket.gethostname()}-{os.getpid()}"
    other = tmp_path / f"b.zarr.partial-{socket.gethostname()}-{2**22 + 1}"
    for folder in (dead, mine, other):
        folder.mkdir()
        (folder / "left").write_text("")
    create(tmp_path / "a.zarr", example.spec)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["a.zarr", other.name])
    assert not (tmp_path / "a.zarr" / "left").exists()
