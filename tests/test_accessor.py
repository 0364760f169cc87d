"""The accessor and the tree: views of what xarray holds, lazy, with errors that name what there is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dask.array as da
import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

import cachetool
from cachetool.errors import MissingDataError, UnknownNameError
from tests.reference.quick import quick


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("accessor") / "root"
    with quick():
        cache = cachetool.extract("tiny-reg", "shapes", limit=6, root=root, workers=0)
        cachetool.replay(cache, cachetool.Edit("registers", "zero", 6))
        cachetool.extract("tiny-reg", "shapes#train", limit=4, root=root, workers=0, layers=[12])
        yield root


@pytest.fixture
def shapes(root: Path) -> xr.Dataset:
    return cachetool.open(root / "shapes" / "tiny-reg.zarr")


def test_tokens_and_images(shapes: xr.Dataset) -> None:
    found = shapes.cachetool.tokens("registers", layer=6)
    assert isinstance(found.data, da.Array)
    assert np.array_equal(found.values, shapes.registers.values[:, 6])
    normal = shapes.cachetool.tokens("cls", 12, normalized=True)
    assert np.array_equal(normal.values, cachetool.normalize(shapes.cls.sel(layer=12), shapes).values)
    by_id = shapes.cachetool.image(shapes.image_id.values[3])
    xr.testing.assert_identical(by_id.compute(), shapes.cachetool.image(3).compute())
    for wrong, fragment in ((6, "there are 6"), ("nobody.jpg", "nobody.jpg")):
        with pytest.raises(MissingDataError, match=fragment):
            shapes.cachetool.image(wrong)
    with pytest.raises(UnknownNameError, match="only cls, registers, patches"):
        shapes.cachetool.tokens("heads")
    with pytest.raises(MissingDataError, match="no state 13"):
        shapes.cachetool.tokens("cls", 13)


def test_grid_and_map(shapes: xr.Dataset) -> None:
    grid = shapes.cachetool.grid()
    assert grid.dims == ("image", "layer", "row", "col", "channel")
    assert isinstance(grid.data, da.Array)
    assert np.array_equal(grid.sel(row=2, col=5, layer=7).values, shapes.patches.values[:, 7, 2 * 8 + 5])
    assert grid.image_id.dims == ("image",)
    mpl.use("agg")
    import matplotlib.pyplot as plt

    drawn = shapes.cachetool.plot_map(2, layer=11)
    norms = np.linalg.norm(shapes.patches.values[2, 11].astype(np.float64), axis=-1).reshape(8, 8)
    np.testing.assert_allclose(drawn.get_array(), norms)
    assert shapes.image_id.values[2] in drawn.axes.get_title()
    plt.close("all")


def test_what_a_notebook_shows_is_escaped(shapes: xr.Dataset) -> None:
    named = shapes.assign_attrs(cachetool_path="<script>alert(1)</script>")
    html = named.cachetool._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "patches (64)" in html
    assert "http" not in html
    assert "images: 6" in repr(shapes.cachetool)


def test_the_tree_holds_every_cache_and_run_lazily(root: Path) -> None:
    tree = cachetool.open_tree(root)
    assert sorted(tree.children) == ["shapes", "shapes-train"]
    (run,) = tree["shapes/tiny-reg/runs"].children.values()
    assert (run.dataset.registers.values == 0).all()
    cache = tree["shapes/tiny-reg/cache"].to_dataset()
    assert isinstance(cache.patches.data, da.Array)
    assert cache.cachetool.tokens("cls", 3).shape == (6, 96)
    assert not cachetool.open_tree(root / "nothing").children


@pytest.mark.parametrize("order", ["import xarray, cachetool", "import cachetool, xarray; cachetool.open"])
def test_it_is_there_once_cachetool_is(root: Path, order: str) -> None:
    code = f"{order}; print(xarray.open_zarr({str(root / 'shapes' / 'tiny-reg.zarr')!r}).cachetool.tokens('cls').shape)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(6, 13, 96)"
