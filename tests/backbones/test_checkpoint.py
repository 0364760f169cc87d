"""Checkpoints of Hugging Face where transformers is not needed: where they are, what they say, and what is refused."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants, errors
from safetensors.torch import save_file

import cachetool
from cachetool.backbones import absolute_model, hub, load
from cachetool.backbones.catalogue import resolve, weights_here
from cachetool.backbones.random_weights import random_weights
from cachetool.errors import MissingDataError, UnknownNameError, UnsupportedModelError, WeightsError
from tests.backbones.test_conversion import hugging_face
from tests.reference.quick import quick

CONFIGURATION = {
    "model_type": "dinov2_with_registers", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "patch_size": 8, "image_size": 32, "mlp_ratio": 4, "num_register_tokens": 4,
}  # fmt: skip
COLOURS = {"image_mean": [0.43, 0.411, 0.296], "image_std": [0.213, 0.156, 0.143]}


def timm_model() -> Any:
    return timm.create_model(
        "vit_small_patch14_reg4_dinov2", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2
    )


def checkpoint(folder: Path, **changes: Any) -> Path:
    """A small DINOv2 with registers as transformers saves it."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = {**CONFIGURATION, **changes}
    (folder / "config.json").write_text(json.dumps(entries))
    (folder / "preprocessor_config.json").write_text(json.dumps(COLOURS))
    save_file(hugging_face(random_weights(timm_model(), 0), "dinov2-registers"), folder / "model.safetensors")
    return folder


def test_a_folder_is_timms_model_under_its_weights(tmp_path: Path) -> None:
    backbone = load(f"hf:{checkpoint(tmp_path)}", image_size=32)
    model = timm_model().eval()
    model.load_state_dict(random_weights(model, 0))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = backbone.normalize(backbone.run(backbone.embed(images), 0, 2))
        assert torch.equal(found, model.forward_features(images))
    assert backbone.architecture == (
        "vit_small_patch14_reg4_dinov2(channels=32, depth=2, heads=2, hidden=128, patch=8)"
    )
    assert backbone.weights_source == f"folder {tmp_path}"


def test_colours_are_the_checkpoints_and_the_rest_is_that_of_named_models(tmp_path: Path) -> None:
    transform = resolve(f"hf:{checkpoint(tmp_path)}").transform
    assert (transform.mean, transform.std) == ((0.43, 0.411, 0.296), (0.213, 0.156, 0.143))
    assert (transform.size, transform.crop_fraction, transform.interpolation) == (224, 0.875, "bicubic")
    (tmp_path / "preprocessor_config.json").unlink()
    assert resolve(f"hf:{tmp_path}").transform == resolve("dinov2-reg-s").transform
    assert resolve(f"hf:{tmp_path}", 112).transform.size == 112


def test_a_cache_of_a_folder_is_replayed_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    with quick():
        cachetool.extract("hf:model", "shapes", limit=4, image_size=32, dtype="float32", root="a", workers=0)
        (path,) = (tmp_path / "a").glob("*/hf-model.zarr")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        run = cachetool.replay(path, cachetool.Edit("registers", "none", 1))
    assert run.attrs["facts"]["certificate"]["bit_equal"]


def test_weights_in_several_files(tmp_path: Path) -> None:
    whole = load(f"hf:{checkpoint(tmp_path)}")
    tensors = hugging_face(random_weights(timm_model(), 0), "dinov2-registers")
    (tmp_path / "model.safetensors").unlink()
    parts = {"a.safetensors": list(tensors)[::2], "b.safetensors": list(tensors)[1::2]}
    for file, names in parts.items():
        save_file({name: tensors[name] for name in names}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, names in parts.items() for name in names}}))
    assert load(f"hf:{tmp_path}").weights_sha256 == whole.weights_sha256
    assert weights_here(f"hf:{tmp_path}")
    save_file({name: tensors[name] for name in list(tensors)[:2]}, tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match=r"b\.safetensors holds tensors that a\.safetensors holds too: embeddings"):
        load(f"hf:{tmp_path}")
    (tmp_path / "b.safetensors").unlink()
    assert not weights_here(f"hf:{tmp_path}")
    with pytest.raises(MissingDataError, match=r"has no b\.safetensors"):
        load(f"hf:{tmp_path}")
    for listed in ({"x": "../b.safetensors"}, {"x": "/etc/passwd"}, {"x": "b.bin"}, {}, None):
        index.write_text(json.dumps({"weight_map": listed}))
        with pytest.raises(WeightsError, match=r"expected to list \.safetensors files beside it"):
            load(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model_type": "llama"}, UnsupportedModelError, "a model of type 'llama', expected one of dinov2, "),
        ({"model_type": ["vit"]}, UnsupportedModelError, "expected one of dinov2, "),
        (
            {"model_type": None, "architecture": "vit_base_patch14_dinov2"},
            UnsupportedModelError,
            "it is a checkpoint of timm: name it timm:vit_base_patch14_dinov2",
        ),
        ({"hidden_act": "relu"}, UnsupportedModelError, "hidden_act is 'relu', where 'gelu' is expected"),
        ({"num_channels": 1}, UnsupportedModelError, "num_channels is 1, where 3 is expected"),
        (
            {"hidden_size": "32", "num_hidden_layers": 10**9, "patch_size": [8, 4], "layer_norm_eps": float("nan")},
            WeightsError,
            "hidden_size is '32', expected an integer.*patch_size is .*num_hidden_layers is 1000000000.*layer_norm_eps",
        ),
        ({"mlp_ratio": 1e9}, WeightsError, "mlp_ratio 1000000000.0 makes an MLP of 33554432 channels"),
        ({"mlp_ratio": 0.01}, WeightsError, "mlp_ratio 0.01 makes an MLP of 0 channels"),
        ({"num_attention_heads": 3}, WeightsError, "hidden_size 32 is no multiple of 1 x num_attention_heads 3"),
        ({"num_hidden_layers": 3}, WeightsError, "(?s)does not hold the weights of.*missing: blocks.2"),
        ({"num_register_tokens": 2}, WeightsError, r"(?s)another shape: reg_token expected \(1, 2, 32\)"),
        ({"patch_size": 10}, UnsupportedModelError, "has patches of 10 x 10 pixels"),
    ],
)
def test_configurations_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        load(f"hf:{checkpoint(tmp_path, **changes)}", image_size=32)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "[]", "expected to hold a JSON object, found a list"),
        ("config.json", "{", "cannot be read as JSON"),
        ("config.json", "[" * 100_000, "cannot be read as JSON"),
        ("preprocessor_config.json", '{"image_std": [0, 1, 1]}', "image_std should be 3 numbers"),
        ("preprocessor_config.json", '{"image_mean": "no", "image_std": 1}', "image_mean and image_std should be"),
        ("preprocessor_config.json", '{"image_mean": [NaN, 0, 0]}', "image_mean should be 3 numbers"),
        ("preprocessor_config.json", '{"image_mean": [true, "0", 0]}', "image_mean should be 3 numbers"),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path: Path, file: str, content: str, message: str) -> None:
    (checkpoint(tmp_path) / file).write_text(content)
    with pytest.raises(WeightsError, match=message):
        load(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("hf:", UnknownNameError, "names neither a folder nor a repository"),
        ("hf:a/b/c", UnknownNameError, "names neither a folder nor a repository"),
        ("hf:owner/name@", UnknownNameError, "names neither a folder nor a repository"),
        ("hf:./nowhere", MissingDataError, "there is no folder /.*nowhere"),
        ("hf:empty", MissingDataError, r"folder /.*empty has no config\.json; expected a checkpoint"),
    ],
)
def test_names_that_lead_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(error, match=message):
        load(name)


def test_a_name_means_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    assert absolute_model("hf:model") == f"hf:{tmp_path}/model"
    assert absolute_model("hf:facebook/dinov2-base") == "hf:facebook/dinov2-base"
    assert absolute_model("dinov2-s") == "dinov2-s"


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


def test_without_network_the_error_says_where_was_looked_at_and_what_to_do(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
        )
        started = time.monotonic()
        with pytest.raises(MissingDataError) as raised:
            load("hf:facebook/dinov2-with-registers-base")
    assert time.monotonic() - started < 15
    for part in ("facebook/dinov2-with-registers-base", str(empty_cache), "--weights FILE", "hf:FOLDER", "config.json"):
        assert part in str(raised.value)
    assert capfd.readouterr() == ("", "")
    assert not weights_here("hf:facebook/dinov2-with-registers-base")


class Response:
    """What of an answer of the hub its errors look at."""

    headers: dict[str, str] = {}  # noqa: RUF012
    request = None


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (errors.GatedRepoError, r"(?s)is gated: agree to its terms.*`hf auth login` or set HF_TOKEN.*--weights FILE"),
        (errors.RepositoryNotFoundError, r"has no repository facebook/dinov3-vitb16, or it is private.*HF_TOKEN"),
        (errors.RemoteEntryNotFoundError, r"has no config\.json; expected a checkpoint as transformers saves it"),
    ],
)
def test_what_the_hub_refuses(empty_cache: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, message: str) -> None:
    def answer(*_: Any, **__: Any) -> None:
        raise kind("refused", response=Response())

    monkeypatch.setattr(hub.huggingface_hub, "get_hf_file_metadata", answer)
    with pytest.raises(MissingDataError, match=message):
        load("hf:facebook/dinov3-vitb16")


def test_the_cache_of_the_hub_is_used(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = empty_cache / "models--somebody--small"
    snapshot = checkpoint(repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "refs" / "v1").write_text("0" * 40)
    expected = load(f"hf:{snapshot}")
    for name in ("hf:somebody/small", "hf:somebody/small@v1"):
        assert load(name).weights_sha256 == expected.weights_sha256
        assert load(name).weights_source == f"Hugging Face {name.removeprefix('hf:')}"
        assert weights_here(name)
    with pytest.raises(MissingDataError, match="HF_HUB_OFFLINE is set"):
        load("hf:somebody/small@v2")
