"""Tables of analyses: means and intervals against NumPy, seeds averaged first, positions averaged away."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from analyses.summary import summarize


def test_means_and_intervals_over_images() -> None:
    generator = np.random.default_rng(3)
    values = generator.normal(size=(400, 2, 3, 3)) + np.array([0, 5])[:, None, None]
    values[7] = np.nan
    found = xr.Dataset({"norm": (("image", "layer", "row", "col"), values, {"units": "1"})}, {"layer": [3, 12]})
    table = summarize(found)
    per_image = np.delete(values, 7, axis=0).mean((2, 3))
    assert table["layer"].tolist() == [3, 12]
    assert table["images"].tolist() == [399, 399]
    assert table["value"].to_numpy() == pytest.approx(per_image.mean(0))
    standard_error = per_image.std(0, ddof=1) / np.sqrt(399)
    assert (table["high"] - table["low"]).to_numpy() == pytest.approx(2 * 1.96 * standard_error, rel=0.08)
    wider = summarize(found, confidence=0.99)
    assert ((wider["high"] - wider["low"]) > (table["high"] - table["low"])).all()


def test_runs_that_differ_in_their_seed_are_one_edit() -> None:
    values = np.arange(12.0).reshape(3, 4)
    found = xr.Dataset(
        {"cosine": (("run", "image"), values)},
        {"edit": ("run", ["noise", "zero", "noise"]), "from_layer": ("run", [6, 6, 6]), "seed": ("run", [0, 0, 1])},
    )
    table = summarize(found)
    assert table["edit"].tolist() == ["noise", "zero"]
    assert table["from_layer"].tolist() == [6, 6]
    assert table["value"].tolist() == pytest.approx([values[[0, 2]].mean(), values[1].mean()])


def test_what_is_not_per_image_has_no_interval() -> None:
    found = xr.Dataset(
        {
            "rank": ("layer", [1.0, np.nan, 3.0]),
            "names": ("layer", ["a", "b", "c"]),
            "nearest": ("layer", [1, 2, 3], {"identifier": "image"}),
        },
        {"layer": [0, 6, 12]},
    )
    table = summarize(found)
    assert table["variable"].tolist() == ["rank", "rank"]
    assert table["layer"].tolist() == [0, 12]
    assert table[["low", "high"]].isna().all(axis=None)
    assert table["images"].tolist() == [0, 0]
    assert summarize(found[["names"]]).empty
