"""A kill before every single step on disk, of every change that `tests/store/test_crash.py` does not try."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from analyses.netcdf import read_netcdf, write_netcdf
from analyses.table_files import write_both
from cachetool.calibrating import calibrate
from cachetool.edits.calibration import Calibration
from cachetool.errors import IncompleteError, MissingDataError, StoreError
from cachetool.store import StoreReader, StoreWriter, check_block, check_tables, create, lock
from cachetool.store.opened import OpenedStore
from tests.store.conftest import Example, make_example, tree
from tests.store.test_crash import killed_after


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def example() -> Example:
    return make_example(images=4, channels=2, layers=(0, 1), block=2, dtype="float32")


def each_step(
    folder: Path, begin: Callable[[Path], None], action: Callable[[Path], None], name: str = "a.zarr"
) -> Iterator[Path]:
    """Kill the action before its first step, its second, and so on; yields the place after each kill.

    The process counts as dead from then on. Ends when the action comes to its end.
    """
    for steps in range(2000):
        place = folder / str(steps) / name
        place.parent.mkdir()
        begin(place)
        with pytest.MonkeyPatch.context() as patch:
            finished = killed_after(patch, steps, lambda: action(place))  # noqa: B023
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cachetool.store.atomic.process_alive", lambda process: False)
            # By module: the package has a function of its name.
            patch.setattr(import_module("cachetool.store.lock"), "process_alive", lambda process: False)
            yield place
        if finished:
            assert steps > 3
            return
    raise AssertionError("the action never ends")


@pytest.mark.slow
def test_making_a_store(tmp_path: Path, example: Example) -> None:
    create(tmp_path / "expected.zarr", example.spec)
    expected = tree(tmp_path / "expected.zarr")
    for path in each_step(tmp_path, lambda path: None, lambda path: create(path, example.spec)):
        if not path.exists():
            create(path, example.spec)
        assert tree(path) == expected
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_changing_the_facts(tmp_path: Path, example: Example) -> None:
    for path in each_step(tmp_path, example.make, lambda path: StoreWriter(path).update_facts({"new": 1})):
        assert StoreReader(path).spec.facts in ({}, {"new": 1})
        example.check(path)
        StoreWriter(path).update_facts({"new": 1})
        assert StoreReader(path).spec.facts == {"new": 1}
        assert not list(path.rglob("*partial*"))


def write_donors(path: Path, *donors: int) -> None:
    StoreWriter(path).write_image_array("donor", np.array(donors), ("image",))


@pytest.mark.parametrize("before", [None, (3, 2, 1, 0)])
def test_writing_a_small_array(tmp_path: Path, example: Example, before: tuple[int, ...] | None) -> None:
    def begin(path: Path) -> None:
        example.make(path)
        if before is not None:
            write_donors(path, *before)

    for path in each_step(tmp_path, begin, lambda path: write_donors(path, 1, 2, 3, 0)):
        reader = StoreReader(path)
        if "donor" in OpenedStore(path).root.arrays:
            assert tuple(reader.array("donor").tolist()) in (before, (1, 2, 3, 0))
        write_donors(path, 1, 2, 3, 0)
        assert StoreReader(path).array("donor").tolist() == [1, 2, 3, 0]
        assert check_tables(path) == {}
        assert not list(path.rglob("*partial*"))


def test_giving_up_a_damaged_block(tmp_path: Path, example: Example) -> None:
    expected = tree(example.make(tmp_path / "expected.zarr"))
    for path in each_step(tmp_path, example.make, lambda path: StoreWriter(path).discard(1)):
        try:
            found = StoreReader(path).read("cls", 0, 2, 4)
            np.testing.assert_array_equal(found.view("u4"), example.values["cls"][2:, 0].view("u4"))
        except IncompleteError:
            pass
        StoreWriter(path).discard(1)
        assert check_block(path, 1) == []
        assert StoreWriter(path).pending([0], ["cls"]) == [1]
        example.fill(path)
        assert tree(path) == expected


def test_taking_and_giving_back_a_lock(tmp_path: Path, example: Example) -> None:
    def hold(path: Path) -> None:
        with lock(path, "extract"):
            pass

    for path in each_step(tmp_path, example.make, hold):
        hold(path)
        assert not list((path / ".cachetool" / "locks").iterdir())


@pytest.mark.slow
def test_writing_a_calibration(tmp_path: Path, example: Example) -> None:
    values = {name: np.nan_to_num(array, nan=1, posinf=1, neginf=1) for name, array in example.values.items()}
    bounded = replace(example, values={name: np.clip(array, -9, 9) for name, array in values.items()})
    reader = StoreReader(bounded.make(tmp_path / "cache.zarr"))
    calibration = calibrate(reader, layers=[0], token_types=["cls"], class_means=False, reference_tokens=0)
    calibration.write(tmp_path / "expected.zarr")
    expected = tree(tmp_path / "expected.zarr")
    for path in each_step(tmp_path, lambda path: None, calibration.write):
        try:
            Calibration.read(path)
        except MissingDataError:
            calibration.write(path)
        assert tree(path) == expected
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]


OLD, NEW = (xr.Dataset({"hit": ("image", values)}, {"image_id": ("image", ["a", "b"])}) for values in ([1, 2], [3, 4]))


def test_writing_outcomes(tmp_path: Path) -> None:
    def begin(path: Path) -> None:
        write_netcdf(OLD, path)

    for path in each_step(tmp_path, begin, lambda path: write_netcdf(NEW, path), "a.nc"):
        found = read_netcdf(path)
        assert found.identical(OLD) or found.identical(NEW)
        write_netcdf(NEW, path)
        assert read_netcdf(path).identical(NEW)
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_writing_a_table(tmp_path: Path) -> None:
    def write(path: Path, data: xr.Dataset) -> None:
        write_both(pd.DataFrame({"hit": data.hit.values}), data, path)

    for path in each_step(tmp_path, lambda path: write(path, OLD), lambda path: write(path, NEW), "table"):
        assert pd.read_csv(path.with_suffix(".csv")).hit.tolist() in ([1, 2], [3, 4])
        assert read_netcdf(path.with_suffix(".nc")).hit.values.tolist() in ([1, 2], [3, 4])
        write(path, NEW)
        assert sorted(entry.name for entry in path.parent.iterdir()) == ["table.csv", "table.nc"]


def test_a_place_that_a_dead_process_of_the_same_number_was_making(tmp_path: Path, example: Example) -> None:
    """In containers every program may have the same number, so what it left bears the name of the new one."""
    create(tmp_path / "b.zarr", example.spec)
    half = (tmp_path / "b.zarr").rename(tmp_path / f"c.zarr.partial-{os.uname().nodename}-{os.getpid()}")
    create(tmp_path / "c.zarr", example.spec)
    assert not half.exists()
    with pytest.raises(StoreError, match="something is there already"):
        create(tmp_path / "c.zarr", example.spec)
