"""Figures of analyses: which are drawn, that they show the numbers, and that their text is readable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from analyses.figures.by_layer import by_layer
from analyses.figures.matrices import matrices
from analyses.figures.of_analysis import figures, write_analysis_figures
from analyses.figures.spectrum import spectrum
from analyses.summary import summarize
from cachetool.errors import MissingDataError

pytestmark = pytest.mark.slow

LAYERS = [0, 4, 8, 12]


def found() -> xr.Dataset:
    generator = np.random.default_rng(0)
    rank = 3 + generator.random((30, 4, 2)) + np.arange(4)[:, None]
    cosine = generator.uniform(-1, 1, (30, 4, 3, 3))
    flow = generator.dirichlet([1, 1, 1], (30, 4, 3))
    eigenvalues = np.exp(-np.arange(10))[None] * np.ones((4, 1))
    types = ["cls", "registers", "patches"]
    return xr.Dataset(
        {
            "effective_rank": (("image", "layer", "register"), rank, {"units": "1", "long_name": "effective rank"}),
            "cosine": (("image", "layer", "register_of", "other"), cosine, {"units": "1"}),
            "similarity": (("image", "layer", "register", "other_register"), cosine[:, :, :2, :2], {"units": "1"}),
            "flow": (("image", "layer", "query_type", "key_type"), flow, {"units": "1"}),
            "eigenvalue": (("layer", "component"), eigenvalues, {"units": "1"}),
            "single": ("image", rank[:, 0, 0]),
            "nearest": (("layer", "rank"), np.ones((4, 2), int), {"identifier": "image"}),
        },
        {"layer": LAYERS, "query_type": types, "key_type": types},
        {"analysis": "made-up"},
    )


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    return figures(found())


def test_each_variable_gets_the_figure_of_its_dimensions(drawn: dict[str, Figure], tmp_path: Path) -> None:
    assert set(drawn) == {"effective_rank", "cosine", "similarity", "flow", "eigenvalue"}
    assert len(drawn["flow"].axes) == len(LAYERS) + 1  # and the colour bar
    written = write_analysis_figures(found(), tmp_path)
    assert (tmp_path / "made-up-effective-rank.svg") in written
    assert all(path.stat().st_size > 1000 for path in written)


def test_lines_and_bands_are_the_numbers_of_the_table(drawn: dict[str, Figure]) -> None:
    table = summarize(found())
    axes = drawn["effective_rank"].axes[0]
    own = table[(table.variable == "effective_rank") & (table.register == 1)]
    line = axes.lines[1]
    assert line.get_xdata().tolist() == LAYERS
    assert line.get_ydata() == pytest.approx(own["value"].to_numpy())
    band = axes.collections[1].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(own["low"].min())
    assert band[:, 1].max() == pytest.approx(own["high"].max())
    assert axes.get_xlabel() == "layer"


def test_matrices_show_means_over_images(drawn: dict[str, Figure]) -> None:
    data = found()
    axes = drawn["flow"].axes[2]
    assert axes.get_title() == "layer 8"
    shown = axes.images[0].get_array()
    assert shown is not None
    np.testing.assert_allclose(shown, data.flow.mean("image").values[2])
    assert axes.texts[0].get_text() == f"{data.flow.mean('image').values[2, 0, 0]:.2f}"
    assert drawn["flow"].axes[0].get_yticklabels()[0].get_text() == "[CLS]"


def test_spectrum_shows_shares_of_variance(drawn: dict[str, Figure]) -> None:
    axes = drawn["eigenvalue"].axes[0]
    expected = np.exp(-np.arange(10)) / np.exp(-np.arange(10)).sum()
    assert axes.lines[0].get_ydata() == pytest.approx(expected)
    assert axes.get_yscale() == "log"


def test_what_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    table = summarize(found())
    with pytest.raises(MissingDataError, match="name the variable to draw; the table has effective_rank, cosine"):
        by_layer(table, tmp_path / "a.svg")
    with pytest.raises(MissingDataError, match="single is not known by layer; the table has effective_rank, "):
        by_layer(table, tmp_path / "a.svg", variable="single")
    with pytest.raises(MissingDataError, match="expected the dimensions row, col, found layer, component"):
        matrices(found().eigenvalue, tmp_path / "a.svg", rows="row", columns="col", title="")
    with pytest.raises(MissingDataError, match="expected a dimension component, found image"):
        spectrum(found().single, tmp_path / "a.svg", title="")
    assert not list(tmp_path.iterdir())
