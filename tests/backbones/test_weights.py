from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cachetool.backbones.weights import digest, read_weights
from cachetool.errors import MissingDataError, WeightsError

TENSORS = {"cls_token": torch.randn(1, 1, 4), "blocks.0.norm1.weight": torch.randn(4), "norm.bias": torch.randn(4)}


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def assert_same(found, expected=TENSORS):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def prefixed(prefix):
    return {prefix + name: tensor for name, tensor in TENSORS.items()}


def test_safetensors_are_read_whatever_the_suffix(tmp_path):
    for name in ("weights.safetensors", "weights.bin"):
        save_file(TENSORS, tmp_path / name)
        assert_same(read_weights(tmp_path / name))


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"state_dict": TENSORS, "epoch": 3},
        {"model": {"state_dict": TENSORS}, "optimizer": {}},
        {"model": {"w": torch.ones(1)}, "model_ema": TENSORS},
        {"teacher": {**prefixed("backbone."), "dino_head.mlp.weight": torch.ones(2)}, "iteration": 7},
        prefixed("module.backbone."),
        prefixed("dinov2."),
        {**prefixed("_orig_mod.module."), "ibot_head.last.weight": torch.ones(2)},
    ],
    ids=["plain", "state_dict", "nested", "average", "teacher", "two prefixes", "transformers", "compiled"],
)
def test_wrappers_of_training_scripts_are_removed(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    assert_same(read_weights(tmp_path / "weights.pth"))


def test_a_classifier_beside_a_wrapped_backbone_keeps_its_name(tmp_path):
    head = {"classifier.weight": torch.ones(2, 4)}
    torch.save({**prefixed("vit."), **head}, tmp_path / "weights.pth")
    assert_same(read_weights(tmp_path / "weights.pth"), {**TENSORS, **head})


def test_a_pickle_with_a_payload_is_refused_and_not_run(tmp_path):
    trace = tmp_path / "trace"
    torch.save({"model": TENSORS, "args": Payload(trace)}, tmp_path / "weights.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload(trace), protocol=2))
    for name in ("weights.pth", "plain.pth"):
        with pytest.raises(WeightsError, match=f"{name}.*run code.*open.*refused"):
            read_weights(tmp_path / name)
    assert not trace.exists()


@pytest.mark.parametrize("kept", [4, 60, -8])
def test_truncated_files_are_refused(tmp_path, kept):
    save_file(TENSORS, tmp_path / "weights.safetensors")
    torch.save(TENSORS, tmp_path / "weights.pth")
    for path in (tmp_path / "weights.safetensors", tmp_path / "weights.pth"):
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(WeightsError, match=f"{path.name}.*fetch it again"):
            read_weights(path)


def test_what_is_no_weights_file_is_refused(tmp_path):
    (tmp_path / "notes.pth").write_text("not weights")
    np.savez(tmp_path / "weights.npz", a=np.ones(2))
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    torch.save({}, tmp_path / "empty.pth")
    torch.save({"a": torch.ones(1), "epoch": 3, "name": "x"}, tmp_path / "mixed.pth")
    for name, text in {
        "notes.pth": "neither", "weights.npz": "neither", "list.pth": "a list", "empty.pth": "nothing",
        "mixed.pth": "epoch, name",
    }.items():  # fmt: skip
        with pytest.raises(WeightsError, match=text):
            read_weights(tmp_path / name)
    with pytest.raises(MissingDataError, match=r"absent\.pth.*--weights"):
        read_weights(tmp_path / "absent.pth")


def test_the_digest_is_the_stated_one_and_ignores_format_order_and_stored_dtype():
    expected = hashlib.sha256()
    for name in sorted(TENSORS):
        values = TENSORS[name].numpy()
        expected.update(f"{name} float32 {values.shape}\n".encode() + values.astype("<f4").tobytes())
    assert digest(TENSORS) == digest(dict(reversed(TENSORS.items()))) == expected.hexdigest()
    halves = {name: tensor.half() for name, tensor in TENSORS.items()}
    assert digest(halves) == digest({name: tensor.float() for name, tensor in halves.items()}) != digest(TENSORS)
    transposed = torch.randn(3, 2)
    assert (
        digest({"a": transposed.T})
        == digest({"a": transposed.T.contiguous()})
        != digest({"a": transposed.reshape(2, 3)})
    )
    assert digest({"a": transposed}) != digest({"b": transposed})
