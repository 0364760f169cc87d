from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cachetool.datasets import absolute_name, open_dataset
from cachetool.errors import MissingPackageError


def test_a_name_means_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_name("imagefolder:photos#val") == f"imagefolder:{tmp_path}/photos#val"
    assert absolute_name("webdataset:shards/*.tar") == f"webdataset:{tmp_path}/shards/*.tar"
    assert absolute_name("shapes#train") == "shapes#train"
    assert absolute_name("hdf5:") == "hdf5:"


def test_without_its_package_a_data_set_of_hugging_face_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("cachetool.packages.import_module", absent)
    for name in (f"hf:{tmp_path}#train", "hf:somebody/pets"):
        with pytest.raises(MissingPackageError, match=r"(?s)hf:.* needs .*datasets .*pip install 'cachetool\[hf\]'"):
            open_dataset(name)
