"""Calibrations from anybody: refused by name, or read with the numbers that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachetool.edits.calibration import Calibration
from cachetool.errors import CachetoolError, StoreError
from tests.hostile.conftest import LONG, QUICK, forged, harmed
from tests.hostile.mutation import mutated


def make_calibration(path: Path) -> Path:
    arrays = {
        "layer": np.array([0, 1]),
        "image_id": np.array(["a", "b"], dtype=object),
        "content_sha256": np.array(["c", "d"], dtype=object),
        "label": np.array([0, 1]),
        "class": np.array([0, 1]),
        "registers_count": np.array(2),
        "registers_mean": np.ones((2, 3, 4)),
        "registers_variance": np.ones((2, 3, 4)),
        "registers_class_mean": np.ones((2, 2, 3, 4), dtype=np.float32),
    }
    Calibration(arrays, {"architecture": "x"}, {}).write(path)
    return path


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_calibration(tmp_path_factory.mktemp("calibrations") / "sound.zarr")


def read_everything(path: Path) -> None:
    found = Calibration.read(path)
    _ = found.layers, found.image_ids, found.sha256, found.digest, found.classes, found.class_names
    for token_type in found.token_types:
        found.count(token_type)
        for layer in found.layers:
            found.mean(layer, token_type)
            found.variance(layer, token_type)
            found.class_mean(layer, token_type)


def is_read(calibration: Path, document: bytes) -> bool:
    """Whether a calibration is read with this root document, or refused by name."""
    with harmed(calibration / "zarr.json", document):
        try:
            read_everything(calibration)
        except CachetoolError as error:
            assert "sound.zarr" in str(error) or "the calibration" in str(error)
            return False
    return True


def check(calibration: Path, data: st.DataObject) -> None:
    is_read(calibration, json.dumps(data.draw(mutated(forged(calibration)))).encode())


@QUICK
@given(data=st.data())
def test_a_changed_calibration_is_refused_or_read(calibration: Path, data: st.DataObject) -> None:
    check(calibration, data)


@pytest.mark.slow
@LONG
@given(data=st.data())
def test_hundreds_of_changed_calibrations_are_refused_or_read(calibration: Path, data: st.DataObject) -> None:
    check(calibration, data)


@pytest.mark.parametrize(
    ("name", "part", "value"),
    [
        ("registers_mean", "shape", [2, 10**8, 10**4]),
        ("registers_mean", "data_type", "string"),
        ("registers_mean", "codecs", [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 9}}]),
        ("registers_mean", "dimension_names", ["layer", "channel", "register"]),
        ("layer", "data_type", "float64"),
        ("registers_count", "data_type", "string"),
    ],
)
def test_arrays_that_lie_are_named(calibration: Path, name: str, part: str, value: Any) -> None:
    file = calibration / "zarr.json"
    document = forged(calibration)
    document["consolidated_metadata"]["metadata"][name][part] = value
    with harmed(file, json.dumps(document).encode()), pytest.raises(StoreError, match=r"sound\.zarr.*" + name):
        read_everything(calibration)


def test_names_longer_than_a_folder_may_have_are_refused(calibration: Path) -> None:
    document = forged(calibration)
    arrays = document["consolidated_metadata"]["metadata"]
    arrays["x" * 256] = arrays["é" * 128] = arrays["layer"]
    with harmed(calibration / "zarr.json", json.dumps(document).encode()), pytest.raises(StoreError) as refused:
        read_everything(calibration)
    assert "xxx" in str(refused.value)
    assert "ééé" in str(refused.value)


def test_links_and_missing_arrays_are_refused(calibration: Path, tmp_path: Path) -> None:
    file = calibration / "zarr.json"
    for name in ("layer", "image_id", "registers_count"):
        document = forged(calibration)
        del document["consolidated_metadata"]["metadata"][name]
        with harmed(file, json.dumps(document).encode()), pytest.raises(StoreError, match=f"array {name} is missing"):
            read_everything(calibration)
    chunk = calibration / "layer" / "c" / "0"
    aside = tmp_path / "aside"
    chunk.rename(aside)
    chunk.symlink_to(aside)
    try:
        with pytest.raises(StoreError, match="symbolic links"):
            read_everything(calibration)
    finally:
        chunk.unlink()
        chunk.write_bytes(aside.read_bytes())
