from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from analyses.classification import final_cls, fit_linear_probe


def test_probe_separates_what_is_linearly_separable_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    centres = 4 * np.eye(3, 16, dtype=np.float32)
    features = (centres[labels] + rng.standard_normal((600, 16))).astype(np.float32)
    probe = fit_linear_probe(features[:400], labels[:400])
    assert probe.hits(features[400:], labels[400:]).mean() > 0.9
    assert probe.hits(rng.standard_normal((200, 16)).astype(np.float32), labels[400:]).mean() < 0.6


def test_final_cls_is_the_last_state_after_the_norm() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.standard_normal((5, 2, 8)).astype(np.float32)
    weight, bias = rng.standard_normal((2, 8)).astype(np.float32)
    store = xr.Dataset(
        {
            "cls": (("image", "layer", "channel"), tokens),
            "norm_weight": ("channel", weight),
            "norm_bias": ("channel", bias),
        },
        coords={"layer": [6, 12]},
        attrs={"norm": {"type": "layer_norm", "epsilon": 1e-6}},
    )
    expected = torch.nn.functional.layer_norm(
        torch.from_numpy(tokens[:, 1]), (8,), torch.from_numpy(weight), torch.from_numpy(bias), 1e-6
    )
    assert final_cls(store).values == pytest.approx(expected.numpy(), abs=1e-5)
