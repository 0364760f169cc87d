"""Documents and small arrays that were harmed are put back byte for byte."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from cachetool.errors import StoreError
from cachetool.store import StoreReader, create, implied_table, restore_document, restore_table
from cachetool.tokens import TokenLayout


@pytest.fixture
def path(tmp_path, kit):
    return kit.make_example(TokenLayout(1, 2, 2, 3), layers=(0, 1, 2)).make(tmp_path / "a.zarr")


def test_a_lost_folder_and_its_document_come_back(path, kit) -> None:
    before = kit.tree(path)
    (path / "label" / "zarr.json").write_text("{}")
    restore_document(path, "label")
    assert kit.tree(path) == before
    shutil.rmtree(path / "row")
    restore_document(path, "row")
    assert json.loads((path / "row" / "zarr.json").read_text())["shape"] == [6]


@pytest.mark.parametrize("name", ["image_id", "layer", "norm_bias"])
def test_a_table_comes_back_as_it_was(path, kit, name) -> None:
    before, values = kit.tree(path), StoreReader(path).array(name)
    (path / name / "c.0").write_bytes(b"harmed")
    restore_table(path, name, values)
    assert kit.tree(path) == before
    with pytest.raises(StoreError, match=rf"{name} of .*a\.zarr has the shape \[{len(values)}\]; \[1\] was found"):
        restore_table(path, name, values[:1])
    assert kit.tree(path) == before


def test_what_follows_from_the_root_document(path, tmp_path, kit) -> None:
    assert implied_table(path, "row").tolist() == [0, 0, 0, 1, 1, 1]
    assert implied_table(path, "col").tolist() == [0, 1, 2, 0, 1, 2]
    assert implied_table(path, "layer").tolist() == [0, 1, 2]
    assert implied_table(path, "token_type").tolist() == ["cls", "registers", "patches"]
    assert implied_table(path, "image_id") is None
    reader = StoreReader(path)
    for name in ("row", "col", "layer", "token_type"):
        np.testing.assert_array_equal(implied_table(path, name), reader.array(name))
        assert implied_table(path, name).dtype == reader.array(name).dtype
    run = kit.make_example(layers=(3, 7)).spec
    create(tmp_path / "run.zarr", replace(run, kind="run", key={**run.key, "keep": [3, 7]}))
    assert implied_table(tmp_path / "run.zarr", "layer").tolist() == [3, 7]
