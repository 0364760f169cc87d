"""Every part of a key changed by itself gives another key, or a refusal that names it; none is guessed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cachetool.backbones import Backbone
from cachetool.datasets import Dataset, open_dataset
from cachetool.errors import KeyMismatchError, StoreError, UnknownNameError
from cachetool.extraction import extract, prepare
from cachetool.store import differences, key_digest
from cachetool.store.key import undetermined
from tests.reference.plain_models import TINY_REG, write_folder
from tests.reference.quick import quick_load

Patch = pytest.MonkeyPatch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "scenes", per_class=2)
    return tmp_path / "scenes"


def key_of(folder: Path, root: Path, **options: Any) -> dict[str, Any]:
    return dict(prepare("tiny-reg", f"imagefolder:{folder}", root=root, **options).spec.key)


def parts(key: Mapping[str, Any], *path: str) -> set[str]:
    """All leaves of a key, named as `differences` names them."""
    leaves: set[str] = set()
    for name, value in key.items():
        leaves |= parts(value, *path, name) if isinstance(value, Mapping) else {", ".join([*path, name])}
    return {leaf.replace("_", " ") for leaf in leaves}


def with_model(patch: Patch, **attributes: Any) -> None:
    """Have the model load with other attributes."""
    plain = quick_load("tiny-reg")

    def loaded(*arguments: Any, **options: Any) -> Backbone:
        backbone = copy.copy(plain)
        for name, value in attributes.items():
            setattr(backbone, name, value)
        return backbone

    patch.setattr("cachetool.extraction.request.load", loaded)


def with_transform(patch: Patch, **changed: Any) -> None:
    with_model(patch, transform_defaults=replace(quick_load("tiny-reg").transform_defaults, **changed))


def with_images(patch: Patch, **attributes: Any) -> None:
    """Have every data set say something else of itself."""
    for name, value in attributes.items():
        patch.setattr(Dataset, name, value, raising=False)


def turned_upright(patch: Patch) -> None:
    patch.setattr("cachetool.extraction.request.open_dataset", partial(open_dataset, exif="applied"))


def other_family(patch: Patch) -> None:
    import cachetool.extraction.request as request

    opened = request.open_dataset

    def renamed(name: str) -> Dataset:
        dataset = opened(name)
        dataset.family = "segmentation"
        return dataset

    patch.setattr(request, "open_dataset", renamed)


CHANGES: dict[str, Any] = {
    "architecture": lambda patch: with_model(patch, architecture="tiny-reg-2"),
    "position embedding": lambda patch: with_model(
        patch, position_embedding="resampled 6x6 -> 8x8 (bicubic, antialias)"
    ),
    "transform, crop": lambda patch: with_images(patch, default_crop="none"),
    "transform, crop fraction": lambda patch: with_transform(patch, crop_fraction=0.875),
    "transform, interpolation": lambda patch: with_transform(patch, interpolation="bilinear"),
    "transform, mean": lambda patch: with_transform(patch, mean=(0.5, 0.5, 0.4999)),
    "transform, std": lambda patch: with_transform(patch, std=(0.25, 0.25, 0.2501)),
    "transform, decoding rules": lambda patch: patch.setattr("cachetool.datasets.base.DECODING_RULES", 2),
    "transform, exif": turned_upright,
    "dataset": other_family,
}
"""What cannot be changed by an option is changed where it comes from."""

OPTIONS: dict[str, dict[str, Any]] = {"dtype": {"dtype": "float32"}, "transform, size": {"image_size": 72}}
ELSEWHERE = {"weights sha256"}
"""Parts with a test of their own."""


@pytest.mark.parametrize("part", CHANGES)
def test_another_part_is_another_key(folder: Path, tmp_path: Path, monkeypatch: Patch, part: str) -> None:
    before = key_of(folder, tmp_path)
    CHANGES[part](monkeypatch)
    after = key_of(folder, tmp_path)
    named = {line.partition(":")[0] for line in differences(before, after)}
    assert part in named
    assert named <= {part, "transform, crop fraction"}, "without a crop its fraction changes nothing"
    assert key_digest(before) != key_digest(after)


@pytest.mark.parametrize("part", OPTIONS)
def test_another_option_is_another_key_and_refused(folder: Path, tmp_path: Path, part: str) -> None:
    name = f"imagefolder:{folder}"
    extract(prepare("tiny-reg", name, root=tmp_path, layers=(12,)), workers=0)
    with pytest.raises(KeyMismatchError, match=part):
        extract(prepare("tiny-reg", name, root=tmp_path, layers=(12,), **OPTIONS[part]), workers=0)


def test_every_part_is_tried_here(folder: Path, tmp_path: Path) -> None:
    assert parts(key_of(folder, tmp_path)) == {*CHANGES, *OPTIONS, *ELSEWHERE}


@pytest.mark.parametrize("name", ["blocks.7.attn.qkv.weight", "reg_token", "norm.bias"])
def test_one_bit_of_the_weights(folder: Path, tmp_path: Path, name: str) -> None:
    tensors = {key: tensor.float() for key, tensor in load_file(TINY_REG).items()}
    save_file(tensors, tmp_path / "same.safetensors")
    before = key_of(folder, tmp_path)
    assert key_of(folder, tmp_path, weights=tmp_path / "same.safetensors") == before
    tensors[name].view(-1)[:1].view(torch.int32).bitwise_xor_(torch.tensor(1, dtype=torch.int32))
    save_file(tensors, tmp_path / "other.safetensors")
    (line,) = differences(before, key_of(folder, tmp_path, weights=tmp_path / "other.safetensors"))
    assert line.startswith("weights sha256: ")


def test_a_resampled_position_embedding_is_named(folder: Path, tmp_path: Path) -> None:
    lines = differences(key_of(folder, tmp_path), key_of(folder, tmp_path, image_size=96))
    assert lines == [
        "position embedding: native 8x8 here, resampled 8x8 -> 12x12 (bicubic, antialias) there",
        "transform, size: 64 here, 96 there",
    ]


@pytest.mark.parametrize("kind", ["byte", "order", "content"])
def test_other_images_are_refused_by_name(folder: Path, tmp_path: Path, kind: str) -> None:
    """Images are kept beside the key, since a cache may grow by them; what is there is compared one by one."""
    name = f"imagefolder:{folder}"
    done = prepare("tiny-reg", name, root=tmp_path, layers=(12,))
    extract(done, workers=0)
    ids = done.spec.images.image_id
    first, second = folder / ids[0], folder / ids[1]
    if kind == "byte":
        first.write_bytes(first.read_bytes() + b"\0")
    elif kind == "content":
        first.write_bytes(second.read_bytes())
    else:
        one, other = first.read_bytes(), second.read_bytes()
        first.write_bytes(other)
        second.write_bytes(one)
    with pytest.raises(KeyMismatchError, match=rf"images: {2 if kind == 'order' else 1} have another id or .*{ids[0]}"):
        extract(prepare("tiny-reg", name, root=tmp_path, layers=(12,)), workers=0)


def test_an_image_that_comes_in_between_is_refused(folder: Path, tmp_path: Path) -> None:
    name = f"imagefolder:{folder}"
    done = prepare("tiny-reg", name, root=tmp_path, layers=(12,))
    extract(done, workers=0)
    first = folder / done.spec.images.image_id[0]
    first.with_name("0000.png").write_bytes(first.read_bytes())
    with pytest.raises(KeyMismatchError, match="images: 6 have another id"):
        extract(prepare("tiny-reg", name, root=tmp_path, layers=(12,)), workers=0)


@pytest.mark.parametrize(
    ("part", "attributes"),
    [
        ("architecture", {"architecture": ""}),
        ("weights sha256", {"weights_sha256": None}),
        ("position embedding", {"position_embedding": ""}),
    ],
)
def test_a_part_that_nobody_knows_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: Patch, part: str, attributes: dict[str, Any]
) -> None:
    with_model(monkeypatch, **attributes)
    with pytest.raises(StoreError, match=f"cannot be determined: {part} unknown"):
        key_of(folder, tmp_path)
    assert not list(tmp_path.glob("*/*.zarr"))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"interpolation": "random"}, "interpolation is one of .*'random'"),
        ({"crop_fraction": float("nan")}, "crop_fraction"),
        ({"std": (0.0, 1.0, 1.0)}, "std"),
    ],
)
def test_a_transform_that_is_not_one_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: Patch, changed: dict[str, Any], text: str
) -> None:
    with_transform(monkeypatch, **changed)
    with pytest.raises(UnknownNameError, match=text):
        key_of(folder, tmp_path)


def test_parts_that_say_nothing_are_all_named() -> None:
    key = {"a": 1, "b": None, "c": {"d": "", "e": (0.5, float("nan")), "f": 0}, "g": {}, "h": [], "i": False}
    assert undetermined(key) == ["b", "c, d", "c, e", "g", "h"]
