"""Annotations of a cache: the data set's own, in the cache's order and geometry, and refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import cachetool
from cachetool.datasets import Transform, open_dataset
from cachetool.errors import DatasetError, InvalidEditError, MissingDataError
from tests.reference.plain_models import write_folder
from tests.reference.quick import quick


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    with quick():
        return cachetool.extract("tiny-reg", "shapes#val", root=tmp_path_factory.mktemp("a"), limit=40, workers=0)


def test_labels_masks_and_pairs_are_those_of_the_images(cache: xr.Dataset) -> None:
    found, dataset = cachetool.open_annotations(cache), open_dataset("shapes")
    assert found.image_ids == dataset.image_ids[:40]
    assert found.labels is not None
    assert found.labels.tolist() == list(dataset.labels[:40]) == cache.label.values.tolist()
    assert found.class_names == dataset.class_names
    assert found.mask_names == ("background", *dataset.class_names)
    assert np.array_equal(found.mask(17), dataset.mask(17))
    assert found.size(3) == (128, 128)
    expected = [pair for pair in dataset.pairs if pair.source < 40 and pair.target < 40]
    assert 0 < len(expected) < len(dataset.pairs)
    assert [(pair.source, pair.target) for pair in found.pairs] == [(pair.source, pair.target) for pair in expected]


def test_geometry_is_that_of_the_extraction(cache: xr.Dataset) -> None:
    found = cachetool.open_annotations(cache)
    assert (found.rows, found.columns, found.patch_size) == (8, 8, 8.0)
    # 128 to 64 pixels, edge to edge: the centre of the first pixel moves by a quarter of an input pixel.
    assert np.allclose(found.geometry(128, 128).forward([[0.0, 0.0], [127.0, 63.5]]), [[-0.25, -0.25], [63.25, 31.5]])


def test_crop_is_kept(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", classes=3, per_class=1)
    with quick():
        cache = cachetool.extract("tiny-reg", f"imagefolder:{tmp_path / 'photos'}", root=tmp_path, workers=0)
    stored = cachetool.open_annotations(cache).transform
    assert isinstance(stored, Transform)
    assert stored.crop == "center"
    assert stored.to_json().items() <= cache.attrs["key"]["transform"].items()


def test_relative_names_hold_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "photos", classes=3, per_class=1)
    monkeypatch.chdir(tmp_path)
    with quick():
        cache = cachetool.extract("tiny-reg", "imagefolder:photos", root=tmp_path / "root", workers=0)
    monkeypatch.chdir("/")
    assert len(cachetool.open_annotations(cache).image_ids) == 3


def test_moved_and_other_data_sets(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", classes=3, per_class=1)
    with quick():
        cache = cachetool.extract("tiny-reg", f"imagefolder:{tmp_path / 'photos'}", root=tmp_path / "root", workers=0)
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(MissingDataError, match="there is no folder"):
        cachetool.open_annotations(cache)
    moved = cachetool.open_annotations(cache, f"imagefolder:{tmp_path / 'moved'}")
    assert moved.image_ids == tuple(cache.image_id.values)
    first = moved.dataset.path(0)  # type: ignore[attr-defined]
    first.rename(first.with_name("zz-other.png"))
    with pytest.raises(DatasetError, match=r"other images at 0 \(class2/001\.png\); name the data set"):
        cachetool.open_annotations(cache, f"imagefolder:{tmp_path / 'moved'}")


def test_a_run_is_refused(cache: xr.Dataset) -> None:
    with quick():
        run = cachetool.replay(cache, cachetool.Edit("registers", "zero", 12))
    with pytest.raises(InvalidEditError, match="is a run"):
        cachetool.open_annotations(run)
