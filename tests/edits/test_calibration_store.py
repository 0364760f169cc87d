"""What a calibration says of itself on disk, and what is refused of one that was changed, word by word."""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pytest
import zarr

from cachetool.edits import Calibration
from cachetool.errors import DamagedError, InvalidEditError
from cachetool.objects import ObjectPath
from tests.objects.web import WebServer

ARRAYS = {
    "layer": np.array([2, 5]),
    "image_id": np.array(["ä", "b", "c"], dtype=object),
    "content_sha256": np.array(["00", "11", "22"], dtype=object),
    "label": np.array([0, 7, 7]),
    "class": np.array([0, 7]),
    "class_name": np.array(["owl", "猫"], dtype=object),
    "registers_count": np.array(3),
    "registers_mean": np.arange(24.0).reshape(2, 3, 4),
    "registers_variance": np.arange(24.0).reshape(2, 3, 4) + 1,
    "registers_class_mean": np.arange(48, dtype=np.float32).reshape(2, 2, 3, 4),
    "registers_reference_fit": np.array([True, False]),
}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    Calibration(ARRAYS, {"architecture": "x"}, {"images": 3}).write(tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def change(path, name, **parts):
    """Change the document of an array in the root document, as somebody would who knows of no checksum."""
    document = json.loads((path / "zarr.json").read_text())
    del document["attributes"]["cachetool"]["crc32c"]
    document["consolidated_metadata"]["metadata"][name].update(parts)
    (path / "zarr.json").write_text(json.dumps(document))


def test_the_digest_is_over_names_kinds_and_values():
    digest = hashlib.sha256()
    for name in sorted(ARRAYS):
        values = ARRAYS[name]
        if values.dtype == object:
            digest.update(json.dumps([name, values.tolist()]).encode())
        else:
            kind = {"int64": "<i8", "float64": "<f8", "float32": "<f4", "bool": "|b1"}[values.dtype.name]
            digest.update(f"{name} {kind} {values.shape}\n".encode() + values.tobytes())
    assert Calibration(ARRAYS, {}, {}).content_sha256 == digest.hexdigest()


def test_what_is_read_has_the_digest_of_what_was_written(path):
    found = Calibration.read(path)
    assert found.facts == {"images": 3, "content_sha256": Calibration(ARRAYS, {}, {}).content_sha256}
    assert found.recompute_content() == found.content_sha256


def test_the_folders_above_its_place_are_made(path):
    found = Calibration.read(path)
    found.write(path.parent / "b" / "c" / "a.zarr")
    assert Calibration.read(path.parent / "b" / "c" / "a.zarr").recompute_content() == found.content_sha256
    assert [file.name for file in (path.parent / "b" / "c").iterdir()] == ["a.zarr"]


def test_means_lie_one_state_a_chunk_and_the_rest_in_one(path):
    files = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.name != "zarr.json"}
    layered = {f"registers_{name}/c/{layer}/0/0" for name in ("mean", "variance") for layer in (0, 1)}
    assert {file for file in files if (path / file).is_file()} == {
        *layered,
        *(f"registers_class_mean/c/{layer}/0/0/0" for layer in (0, 1)),
        *(f"{name}/c/0" for name in ARRAYS if ARRAYS[name].ndim == 1),
        "registers_count/c",
    }


@pytest.mark.parametrize("name", ["registers_mean", "registers_class_mean"])
def test_states_that_changed_places_are_refused(path, name):
    early, late = sorted(file for file in (path / name / "c").rglob("*") if file.is_file())
    early.rename(path / "aside")
    late.rename(early)
    (path / "aside").rename(late)
    found = Calibration.read(path)
    for layer in (2, 5):
        with pytest.raises(DamagedError) as caught:
            (found.mean if name == "registers_mean" else found.class_mean)(layer, "registers")
        assert str(caught.value) == (
            f"{path / name} is damaged (its values are not those that were written); "
            "remove the calibration and compute it again"
        )
    with pytest.raises(DamagedError, match=f"{name} is damaged .its values are not those"):
        found.recompute_content()


def test_names_of_another_array_in_its_place_are_refused(path):
    (path / "content_sha256" / "c" / "0").write_bytes((path / "image_id" / "c" / "0").read_bytes())
    with pytest.raises(DamagedError, match=r"content_sha256 is damaged \(its values are not those that were written"):
        _ = Calibration.read(path).sha256


def test_dimensions_of_another_name_are_named(path):
    change(path, "registers_mean", dimension_names=["state", "slot", "channel"])
    with pytest.raises(DamagedError) as caught:
        Calibration.read(path)
    assert str(caught.value) == (
        f"{path / 'zarr.json'} is damaged: registers_mean must have the dimensions layer, register, channel, found "
        "state, slot, channel; remove the calibration and compute it again"
    )


def test_a_size_that_its_files_cannot_hold_is_refused(path):
    grid = {"name": "regular", "configuration": {"chunk_shape": [2**31]}}
    change(path, "registers_reference_fit", shape=[2**31], chunk_grid=grid)
    held = sum(file.lstat().st_size for file in (path / "registers_reference_fit").rglob("*"))
    with pytest.raises(DamagedError) as caught:
        Calibration.read(path)
    assert str(caught.value) == (
        f"{path / 'registers_reference_fit'} is damaged: it is declared as bool (2147483648,), of which its files hold "
        f"{held} bytes; remove the calibration and compute it again"
    )


def test_arrays_are_no_larger_than_their_type_says(path, monkeypatch):
    monkeypatch.setattr("cachetool.edits.calibration_store.MOST_FILLED", 0)
    large = ARRAYS | {"registers_class_mean": np.ones((2, 2, 3, 2**14), dtype=np.float32)}
    large |= {f"registers_{name}": np.ones((2, 3, 2**14)) for name in ("mean", "variance")}
    large |= {"registers_reference_fit": np.ones(2**18, dtype=np.bool_)}
    Calibration(large, {}, {}).write(path.with_name("b.zarr"))
    assert Calibration.read(path.with_name("b.zarr")).class_mean(5, "registers").shape == (2, 3, 2**14)


def test_one_on_a_web_server_is_looked_for_by_the_names_of_its_chunks(path, monkeypatch, tmp_path):
    """Nobody says there what its files hold."""
    pytest.importorskip("obstore", reason="the extra [s3] is not installed")
    web = WebServer(tmp_path)
    try:
        url = ObjectPath(f"{web.url}/a.zarr")
        monkeypatch.setattr("cachetool.edits.calibration_store.MOST_FILLED", 8)
        found = Calibration.read(url).class_mean(5, "registers")
        np.testing.assert_array_equal(found, ARRAYS["registers_class_mean"][1])
        grid = {"name": "regular", "configuration": {"chunk_shape": [2**31]}}
        change(path, "registers_reference_fit", shape=[2**31], chunk_grid=grid)
        with pytest.raises(DamagedError, match=r"registers_reference_fit is damaged: .* its files hold \d bytes"):
            Calibration.read(url)
    finally:
        web.close()


def test_documents_of_zarr_format_2_beside_are_passed_over(path):
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    assert Calibration.read(path).layers == (2, 5)


def test_what_is_written_is_of_zarr_format_3_whatever_the_default(tmp_path):
    with zarr.config.set({"default_zarr_format": 2}):
        Calibration(ARRAYS, {}, {}).write(tmp_path / "a.zarr")
        assert Calibration.read(tmp_path / "a.zarr").layers == (2, 5)
    assert not list(tmp_path.rglob(".z*"))


def test_all_that_was_not_calibrated_is_named(path):
    found = Calibration.read(path)
    with pytest.raises(InvalidEditError) as caught:
        found.check_covers("patches", [1, 2, 3])
    assert str(caught.value) == (
        "the calibration lacks token type patches and state 1, 3: it covers states 2, 5 of registers; "
        "calibrate on a cache that holds them"
    )
