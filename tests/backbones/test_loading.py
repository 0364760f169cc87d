from __future__ import annotations

import shutil
import socket
import time
from importlib import resources

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from cachetool.backbones import hub, load
from cachetool.errors import MissingDataError, UnsupportedModelError, WeightsError


@pytest.fixture
def empty_caches(tmp_path, monkeypatch):
    """No weights on this machine: empty caches of the hub and of torch.hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.hub.set_dir(str(tmp_path / "torch" / "hub"))
    yield tmp_path
    torch.hub._hub_dir = None


def small_timm_weights(size=64):
    """A timm model of few parameters with its weights: timm keeps `test_vit` for tests."""
    model = timm.create_model("test_vit", img_size=size, num_classes=5)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_loads_with_its_own_number_of_classes(tmp_path, suffix):
    model = small_timm_weights()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"model": model.state_dict()}, path)
    else:
        save_file(model.state_dict(), path)
    backbone = load("timm:test_vit", weights=path, image_size=64)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        state = backbone.run(backbone.embed(images), 0, backbone.depth)
        assert torch.equal(backbone.normalize(state), model.forward_features(images))
        assert torch.equal(backbone.classify(state), model(images))
    assert (backbone.classes, backbone.architecture, backbone.weights_source) == (5, "test_vit", f"file {path.name}")
    assert backbone.position_embedding.startswith("native")


def test_the_digest_does_not_depend_on_format_or_image_size(tmp_path):
    weights = small_timm_weights().state_dict()
    save_file(weights, tmp_path / "a.safetensors")
    torch.save(weights, tmp_path / "b.pth")
    one = load("timm:test_vit", weights=tmp_path / "a.safetensors", image_size=64)
    other = load("timm:test_vit", weights=tmp_path / "b.pth", image_size=96)
    assert one.weights_sha256 == other.weights_sha256
    assert one.position_embedding != other.position_embedding
    assert other.position_embedding.startswith("resampled")


def test_resampled_positions_give_the_states_of_timms_own_resizing(tmp_path):
    model = small_timm_weights()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    backbone = load("timm:test_vit", weights=tmp_path / "weights.safetensors", image_size=96)
    model.set_input_size(img_size=(96, 96))
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        tokens = backbone.normalize(backbone.run(backbone.embed(images), 0, backbone.depth))
        assert torch.equal(tokens, model.forward_features(images))


def test_weights_of_another_architecture_are_refused(tmp_path):
    save_file(small_timm_weights().state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match=r"(?s)vit_small_patch14_reg4_dinov2.*missing: .*reg_token.*another shape"):
        load("dinov2-reg-s", weights=tmp_path / "weights.safetensors")


def test_a_file_and_random_weights_exclude_each_other(tmp_path):
    with pytest.raises(WeightsError, match="one of the two"):
        load("tiny-reg", weights=tmp_path / "weights.pth", random_weights_seed=0)


@pytest.mark.parametrize(("size", "choices"), [(225, "224 or 240"), (5, "16 or 32"), (0, "16 or 32")])
def test_image_sizes_that_patches_do_not_fill_are_refused(size, choices):
    with pytest.raises(UnsupportedModelError, match=f"multiple of 16; found {size}.*{choices}"):
        load("dinov3-s", image_size=size, random_weights_seed=0)


def test_the_embedded_model_loads_and_equals_its_own_weights():
    backbone = load("tiny-reg")
    assert (backbone.depth, backbone.channels, backbone.layout.registers, backbone.image_size) == (12, 96, 4, 64)
    with resources.as_file(resources.files("cachetool.embedded") / "tiny-reg.safetensors") as path:
        stored = load_file(path)
    for name, tensor in backbone.model.state_dict().items():
        assert torch.equal(tensor, stored[name].float())


def test_missing_weights_say_where_was_looked_at_once_and_quietly(empty_caches, monkeypatch, capfd):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
        )
        started = time.monotonic()
        with pytest.raises(MissingDataError) as raised:
            load("dinov2-reg-s")
    assert time.monotonic() - started < 15
    text = str(raised.value)
    assert len(text.splitlines()) == 3
    for part in (
        "timm/vit_small_patch14_reg4_dinov2.lvd142m",
        str(empty_caches / "hub"),
        "--weights FILE",
        "reg4_pretrain",
    ):
        assert part in text
    assert capfd.readouterr() == ("", "")


def test_offline_mode_is_honoured(empty_caches, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(
        hub.huggingface_hub, "get_hf_file_metadata", lambda *_, **__: pytest.fail("went to the network")
    )
    with pytest.raises(MissingDataError, match="HF_HUB_OFFLINE"):
        load("dinov3-s")


def test_caches_of_the_hub_and_of_torch_are_used(empty_caches, shared):
    weights = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    repository = empty_caches / "hub" / "models--timm--vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    shutil.copy(weights, snapshot / "model.safetensors")
    assert hub.cached_weights("vit_tiny_patch16_224") == snapshot / "model.safetensors"
    assert (
        load("timm:vit_tiny_patch16_224").weights_sha256
        == load("timm:vit_tiny_patch16_224", weights=weights).weights_sha256
    )
    release = empty_caches / "torch" / "hub" / "checkpoints" / "dinov2_vits14_pretrain.pth"
    release.parent.mkdir(parents=True)
    release.touch()
    assert hub.cached_weights("vit_small_patch14_dinov2.lvd142m") == release


def test_a_real_model_on_photographs(shared, hooked):
    weights = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    photographs = sorted((shared / "data" / "caltech101_subset").rglob("*.jpg"))[::400][:4]
    backbone = load("timm:vit_tiny_patch16_224", weights=weights)
    arrays = [
        np.asarray(Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)) for path in photographs
    ]
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float().div(127.5).sub(1.0).contiguous()
    model = timm.create_model("vit_tiny_patch16_224").eval()
    model.load_state_dict(load_file(weights), strict=True)
    expected, _ = hooked(model, images)
    states = []
    with torch.inference_mode():
        final = backbone.run(backbone.embed(images), 0, 12, lambda _, state: states.append(state.clone()) or state)
        assert torch.equal(backbone.classify(final), model(images))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(states, expected, strict=True))
    norms = states[8][:, backbone.layout.slice("patches")].norm(dim=-1)
    outliers = (norms > 5 * norms.median(dim=1, keepdim=True).values).sum(dim=1)
    assert len(photographs) == 4
    assert (outliers > 0).all()
    assert ((norms.amax(dim=1) / norms.median(dim=1).values) > 20).all()
