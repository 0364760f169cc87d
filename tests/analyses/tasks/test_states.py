from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from analyses.tasks.states import missing_state, read_state


@pytest.fixture
def store() -> xr.Dataset:
    tokens = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
    return xr.Dataset(
        {"cls": (("image", "layer", "channel"), tokens), "norm_weight": ("channel", np.full(4, 2, dtype=np.float32))},
        {"layer": [3, 9, 12]},
        {"norm": {"type": "rms_norm", "epsilon": 0.0}, "depth": 12},
    )


def test_the_last_state_is_normalised_and_others_are_not(store: xr.Dataset) -> None:
    stored = store.cls.values.astype(np.float32)
    expected = 2 * stored[:, 2] / np.sqrt((stored[:, 2] ** 2).mean(axis=1, keepdims=True))
    np.testing.assert_allclose(read_state(store, "cls"), expected, rtol=1e-6)
    np.testing.assert_array_equal(read_state(store, "cls", 9), stored[:, 1])
    np.testing.assert_array_equal(read_state(store, "cls", 12), stored[:, 2])
    assert read_state(store, "cls", 9).dtype == np.float32


def test_states_that_are_not_held_are_named(store: xr.Dataset) -> None:
    assert missing_state(store) is None
    assert missing_state(store, 3) is None
    assert missing_state(store, 6) == "state 6 is needed, and the store holds 3, 9, 12"
    shallow = store.sel(layer=[3, 9])
    assert missing_state(shallow) == "state 12, the model's last, is needed, and the store holds 3, 9"
    assert missing_state(store.isel(layer=[])) == "state 12, the model's last, is needed, and the store holds none"
