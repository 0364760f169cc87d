from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cachetool.datasets import catalogue, open_dataset
from cachetool.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_every_name_of_the_design_is_listed() -> None:
    assert {entry.name for entry in catalogue()} == {
        "imagenet-val", "imagenet-train", "ade20k", "voc2012", "spair-71k", "pf-willow",
        "imagefolder:DIR", "segmentation:DIR", "pairs:DIR", "hdf5:FILE", "webdataset:TARS", "hf:DIR",
        "hf:REPO", "shapes",
    }  # fmt: skip


def test_availability_follows_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHETOOL_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "ade20k").mkdir()
    entries = {entry.name: entry for entry in catalogue()}
    assert (entries["ade20k"].available, entries["ade20k"].root) == (True, tmp_path / "ade20k")
    assert (entries["voc2012"].available, entries["voc2012"].root) == (False, None)
    assert len(entries["voc2012"].looked) == 2
    assert entries["shapes"].available
    assert entries["ade20k"].splits[0] == "val"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagenet", r"no data set 'imagenet'; there are shapes, imagenet-val.* Did you mean imagenet-"),
        ("imagefoldr:photos", r"Did you mean imagefolder\?"),
        ("", "no data set ''"),
        ("imagefolder:", r"names no place: write imagefolder:DIR"),
        ("hdf5:", r"names no place: write hdf5:FILE"),
        ("shapes#nowhere", "no split 'nowhere'"),
        ("shapes#", "no split follows the `#`; there are val, train, calibration"),
        ("~nobody-has-this-name", "no data set '~nobody-has-this-name'"),
        ("imagenet-val#", "has no splits"),
    ],
)
def test_unknown_names_say_what_there_is(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        open_dataset(name)


def test_a_bare_path_hints_at_its_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=rf"named imagefolder:{tmp_path}"):
        open_dataset(str(tmp_path))


def test_the_family_is_free_of_places_and_of_default_splits(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "val" / "cat" / "x.png")
    assert open_dataset(f"imagefolder:{tmp_path}#val").family == "imagefolder"
    assert open_dataset("shapes#val").family == open_dataset("shapes").family == "shapes"
    assert open_dataset("shapes#train").family == "shapes-train"


def test_listing_costs_no_heavy_imports() -> None:
    code = "import sys; from cachetool.datasets import catalogue; catalogue(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "timm", "h5py", "scipy"} & set(modules)


def test_the_package_is_also_the_function_of_its_command():
    """An import of the package sets the attribute of that name, so that it has to be both."""
    import cachetool

    assert cachetool.datasets is sys.modules["cachetool.datasets"]
    assert cachetool.datasets() == catalogue()
