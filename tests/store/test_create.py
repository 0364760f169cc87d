from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import xarray

from cachetool.errors import MissingDataError, StoreError
from cachetool.store import StoreReader, StoreWriter, create


def test_a_new_store_is_plain_zarr_full_of_nan(tmp_path, example) -> None:
    path = tmp_path / "data set" / "model.zarr"
    create(path, example.spec)
    with xarray.open_zarr(path) as dataset:
        assert np.isnan(dataset.patches).all()
        assert not dataset.complete.any()
        assert dataset.readable.all()
        assert dataset.patches.dims == ("image", "layer", "patch", "channel")
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
    with pytest.raises(StoreError, match=text):
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
