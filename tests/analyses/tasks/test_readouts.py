from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr

from analyses.tasks.readouts import Readout, readable_features
from cachetool.errors import IncompleteError, UnknownNameError

WRITTEN = ["cls", "cls@9", "registers", "registers:2", "registers:0@3", "patches", "patches@0", "cls+patches@11"]


@pytest.fixture
def cache() -> xr.Dataset:
    """Six images in blocks of four, of which the fifth could not be decoded, with a layer norm."""
    rng = np.random.default_rng(0)
    sizes = {"cls": (6, 2, 8), "registers": (6, 2, 3, 8), "patches": (6, 2, 9, 8)}
    variables = {}
    for name, size in sizes.items():
        tokens = rng.standard_normal(size).astype(np.float32)
        tokens[4] = np.nan
        dims = ("image", "layer", *{"cls": [], "registers": ["register"], "patches": ["patch"]}[name], "channel")
        variables[name] = (dims, da.from_array(tokens, chunks=(4, 1, *size[2:])))
    weight, bias = rng.standard_normal((2, 8)).astype(np.float32)
    return xr.Dataset(
        {**variables, "norm_weight": ("channel", weight), "norm_bias": ("channel", bias)},
        coords={
            "layer": [6, 12],
            "image_id": ("image", np.array(list("abcdef"), dtype=object)),
            "readable": ("image", np.arange(6) != 4),
        },
        attrs={"norm": {"type": "layer_norm", "epsilon": 1e-6}, "depth": 12},
    )


def normalized(tokens: np.ndarray, cache: xr.Dataset) -> np.ndarray:
    weight, bias = (torch.from_numpy(cache[name].values) for name in ("norm_weight", "norm_bias"))
    return torch.nn.functional.layer_norm(torch.from_numpy(tokens), (8,), weight, bias, 1e-6).numpy()


@pytest.mark.parametrize("text", WRITTEN)
def test_written_form_survives_parsing(text: str) -> None:
    assert str(Readout.parse(text)) == text


@pytest.mark.parametrize("text", ["", "CLS", "cls:1", "patches:3", "registers:-1", "cls@", "cls@9 ", "patches+cls"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UnknownNameError, match="expected `cls`"):
        Readout.parse(text)


def test_tokens_that_are_read() -> None:
    assert Readout.parse("registers:1").tokens == ("registers",)
    assert Readout.parse("cls+patches@3").tokens == ("cls", "patches")


def test_last_state_is_read_after_the_final_norm(cache: xr.Dataset) -> None:
    last = {name: normalized(cache[name].values[:, 1], cache) for name in ("cls", "registers", "patches")}
    expected = {
        "cls": last["cls"],
        "registers:1": last["registers"][:, 1],
        "registers": last["registers"].mean(axis=1),
        "patches": last["patches"].mean(axis=1),
        "cls+patches": np.concatenate([last["cls"], last["patches"].mean(axis=1)], axis=1),
    }
    for text, features in expected.items():
        found = Readout.parse(text).read(cache)
        assert found.dtype == np.float32
        assert found == pytest.approx(features, abs=1e-5, nan_ok=True)
        assert np.isnan(found).all(axis=1).tolist() == [False, False, False, False, True, False]


def test_named_states_are_read_as_stored(cache: xr.Dataset) -> None:
    for column, layer in enumerate((6, 12)):
        found = Readout.parse(f"registers:2@{layer}").read(cache)
        np.testing.assert_array_equal(found, cache.registers.values[:, column, 2])
    averaged = Readout.parse("patches@6").read(cache)
    assert averaged == pytest.approx(cache.patches.values[:, 0].mean(axis=1), abs=1e-6, nan_ok=True)


def test_removed_tokens_are_left_out_of_means(cache: xr.Dataset) -> None:
    tokens = cache.patches.values.copy()
    tokens[0, :, 2:5] = np.nan
    cache["patches"] = (cache.patches.dims, tokens)
    found = Readout.parse("patches@12").read(cache)
    assert found[0] == pytest.approx(np.delete(tokens[0, 1], [2, 3, 4], axis=0).mean(axis=0), abs=1e-6)


def test_only_readable_images_count(cache: xr.Dataset) -> None:
    rows, features = readable_features(Readout.parse("cls@12"), cache)
    assert rows.tolist() == [0, 1, 2, 3, 5]
    np.testing.assert_array_equal(features, cache.cls.values[rows, 1])


def test_what_a_store_lacks_is_named(cache: xr.Dataset) -> None:
    with pytest.raises(IncompleteError, match=r"readout cls: state 12, the model's last, is needed, .* holds 6;"):
        Readout.parse("cls").read(cache.sel(layer=[6]))
    with pytest.raises(IncompleteError, match="needs patches, and the store holds cls, registers"):
        Readout.parse("cls+patches").read(cache.drop_vars("patches"))
    with pytest.raises(IncompleteError, match="needs register 3, and registers run to 2"):
        Readout.parse("registers:3").read(cache)
    with pytest.raises(IncompleteError, match="state 9 is needed, and the store holds 6, 12"):
        Readout.parse("cls@9").read(cache)
    removed = cache.assign(cls=cache.cls * np.nan)
    with pytest.raises(IncompleteError, match="tokens of state 12 that the store lacks, or that an edit removed"):
        Readout.parse("cls").read(removed)


def test_a_readable_image_without_features_is_named(cache: xr.Dataset) -> None:
    tokens = cache.cls.values.copy()
    tokens[3] = np.inf
    cache["cls"] = (cache.cls.dims, tokens)
    with pytest.raises(IncompleteError, match="1 readable images is not finite: d;"):
        readable_features(Readout.parse("cls@12"), cache)
