"""The weights' own head on stored tokens: equal to timm's own forward pass, and refused where tokens are lacking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import xarray as xr

import cachetool
from cachetool import Edit
from cachetool.datasets import open_dataset
from cachetool.errors import IncompleteError, InvalidEditError
from tests.reference.plain_models import save_weights, write_folder
from tests.reference.quick import quick

ARCHITECTURES = {"token": "vit_tiny_patch16_224", "avg": "eva02_tiny_patch14_224"}
"""One architecture whose head reads [CLS], one whose head averages the patches."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos")
    write_folder(path, classes=2, per_class=1)
    return path


def extracted(pooling: str, folder: Path, root: Path) -> tuple[torch.nn.Module, xr.Dataset]:
    torch.manual_seed(1)
    model = timm.create_model(ARCHITECTURES[pooling], num_classes=7).eval()
    assert model.global_pool == pooling
    weights = save_weights(model, root / "weights.safetensors")
    with quick():
        cache = cachetool.extract(
            f"timm:{ARCHITECTURES[pooling]}",
            f"imagefolder:{folder}",
            root=root,
            weights=weights,
            dtype="float32",
            workers=0,
        )
    return model, cache


@pytest.mark.parametrize("pooling", ["token", "avg"])
def test_logits_are_those_of_the_whole_model(pooling: str, folder: Path, tmp_path: Path) -> None:
    model, cache = extracted(pooling, folder, tmp_path)
    dataset = open_dataset(f"imagefolder:{folder}")
    transform = cachetool.open_annotations(cache).transform
    pixels = np.stack([transform.apply(dataset.decode(image)) for image in range(2)])
    with torch.inference_mode():
        expected = model(torch.from_numpy(pixels)).numpy()
    found = cachetool.classify(cache)
    assert found.dims == ("image", "class")
    assert found.image_id.values.tolist() == cache.image_id.values.tolist()
    assert np.allclose(found, expected, atol=1e-5)
    first = cachetool.classify(cache, limit=1)
    assert first.sizes["image"] == 1
    assert np.allclose(first, expected[:1], atol=1e-5)
    with quick():
        run = cachetool.replay(cache, Edit("cls", "zero", 12), keep_tokens=["cls"])
    if pooling == "token":
        # [CLS] zero at the last state: after a layer norm, its bias is all that the head sees.
        constant = model.head(model.norm.bias).detach().numpy()
        assert np.allclose(cachetool.classify(run), np.tile(constant, (2, 1)), atol=1e-5)
    else:
        with pytest.raises(IncompleteError, match=r"pools tokens that .* lacks.*it holds cls of state 12"):
            cachetool.classify(run)


def test_weights_without_a_head_are_refused(tmp_path: Path) -> None:
    with quick():
        cache = cachetool.extract("tiny-reg", "shapes", root=tmp_path, limit=2, layers=[12], tokens=["cls"], workers=0)
    with pytest.raises(InvalidEditError, match="bring no classification head; fit a linear probe"):
        cachetool.classify(cache)
