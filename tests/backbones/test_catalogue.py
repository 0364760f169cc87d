from __future__ import annotations

import pytest
import timm
import torch

from cachetool.backbones import catalogue
from cachetool.backbones.catalogue import resolve
from cachetool.embedded.architecture import build_tiny_reg
from cachetool.errors import UnknownNameError, UnsupportedModelError

NAMES = [
    *(f"dinov2-{size}" for size in "sblg"),
    *(f"dinov2-reg-{size}" for size in "sblg"),
    *(f"dinov3-{size}" for size in ("s", "s+", "b", "l", "h+", "7b")),
    "tiny-reg",
]


def test_the_names_are_those_of_the_design():
    assert [entry.name for entry in catalogue()] == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_entry_describes_the_architecture_of_timm(name):
    entry = next(entry for entry in catalogue() if entry.name == name)
    with torch.device("meta"):
        size = {"img_size": entry.image_size, "num_classes": 0}
        model = timm.create_model(entry.timm_name, **size) if entry.timm_name else build_tiny_reg()
    assert entry.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (entry.depth, entry.channels) == (len(model.blocks), model.embed_dim)
    assert entry.registers == (0 if model.reg_token is None else model.reg_token.shape[1])
    assert "qkvb" not in entry.timm_name


def test_image_sizes_and_normalisation():
    dino = resolve("dinov3-b").transform
    assert (dino.size, dino.crop_fraction, dino.interpolation) == (224, 0.875, "bicubic")
    assert (dino.mean, dino.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert resolve("dinov2-s", 448).transform.size == 448
    assert resolve("tiny-reg").transform.size == 64
    vit = resolve("timm:vit_tiny_patch16_224").transform
    assert (vit.size, vit.crop_fraction, vit.mean) == (224, 0.9, (0.5, 0.5, 0.5))
    assert resolve("timm:vit_small_patch14_dinov2").transform.size == 518
    assert resolve("timm:vit_base_patch16_224.mae").transform.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("dinov2-regs-s", "dinov2-reg-s"),
        ("vit_tiny_patch16_224", "timm:vit_tiny_patch16_224"),
        ("timm:vit_tiny_patch16_225", "timm:vit_tiny_patch16_224"),
        ("timm:vit_base_patch16_224.mea", "timm:vit_base_patch16_224.mae"),
        ("timm:resnet18x", "cachetool models"),
        ("TINY-REG", "close: tiny-reg"),
        ("", "cachetool models"),
        ("timm:", "cachetool models"),
    ],
)
def test_unknown_names_come_with_close_ones(name, close):
    with pytest.raises(UnknownNameError, match=f"(?s)no model is named {name}.*{close}"):
        resolve(name)


def test_a_file_or_a_checkpoint_is_told_how_to_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vit.safetensors").touch()
    (tmp_path / "vit").mkdir()
    with pytest.raises(UnknownNameError, match=r"Weights are given beside a name: --weights vit\.safetensors"):
        resolve("vit.safetensors")
    with pytest.raises(UnknownNameError) as refused:
        resolve("vit")
    assert "hf:vit" not in str(refused.value), "it holds no checkpoint"
    (tmp_path / "vit" / "config.json").touch()
    with pytest.raises(UnknownNameError, match="A checkpoint in a folder is named hf:vit"):
        resolve("vit")


def test_a_model_for_oblong_images_needs_a_size():
    with pytest.raises(UnsupportedModelError, match=r"1024 x 768.*--image-size"):
        resolve("timm:vit_base_patch16_sapiens2")
    assert resolve("timm:vit_base_patch16_sapiens2", 512).transform.size == 512
