"""Models, images and caches to compare: timm models built and loaded in the ordinary way, scenes as PNG files."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import zarr
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import cachetool.embedded
from cachetool.datasets.scenes import Scene, draw_scene
from cachetool.embedded.architecture import build_tiny_reg
from tests.reference.hooked_forward import Tokens

HALF = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TINY_REG = Path(cachetool.embedded.__file__).parent / "tiny-reg.safetensors"
TINY_TOKENS = Tokens(4, 64)


def plain_tiny_reg(weights: Path = TINY_REG) -> Any:
    """The embedded architecture with its weights, float32."""
    model = build_tiny_reg()
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    return model.eval()


def random_vit(architecture: str, seed: int) -> Any:
    """A timm model at 224 pixels with random weights under which every part acts: LayerScale from 0.1 to 1."""
    torch.manual_seed(seed)
    model = timm.create_model(architecture, pretrained=False, img_size=224, num_classes=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gamma" in name:
                parameter.uniform_(0.1, 1.0)
            elif name in ("cls_token", "reg_token", "pos_embed"):
                parameter.normal_(std=0.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
            elif "norm" in name:
                parameter.normal_(mean=1.0, std=0.1)
            else:
                parameter.normal_(std=float(parameter[0].numel()) ** -0.5)
    return model.eval()


def save_weights(model: Any, path: Path) -> Path:
    """Save a model's state dict."""
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return path


def prepare_pixels(image: Image.Image, size: int, colours: tuple[Any, Any]) -> NDArray[np.float32]:
    """Resize a square image (bicubic) and normalise it, (rgb, row, column)."""
    resized = image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)
    mean, std = (np.array(part, dtype=np.float32) for part in colours)
    values = np.asarray(resized).astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(((values - mean) / std).transpose(2, 0, 1))


@cache
def _scene(index: int) -> Scene:
    """A scene of `shapes`, drawn once for all tests that take it."""
    return draw_scene("val", index)


def scene_pixels(count: int, size: int, colours: tuple[Any, Any] = HALF) -> Tensor:
    """The first scenes of `shapes`, as a model takes them."""
    scenes = [Image.fromarray(_scene(index).image) for index in range(count)]
    return torch.from_numpy(np.stack([prepare_pixels(scene, size, colours) for scene in scenes]))


def folder_pixels(folder: Path, image_ids: list[str], size: int = 64, colours: tuple[Any, Any] = HALF) -> Tensor:
    """Images of a folder, as a model takes them."""
    opened = []
    for image_id in image_ids:
        with Image.open(folder / image_id) as image:
            opened.append(prepare_pixels(image.convert("RGB"), size, colours))
    return torch.from_numpy(np.stack(opened))


def write_folder(folder: Path, classes: int = 3, per_class: int = 4, *, inverted: bool = False) -> list[str]:
    """Scenes as PNG files in class directories; returns their ids in the order of the store."""
    index, left = 0, dict.fromkeys(range(2, 2 + classes), per_class)
    while any(left.values()):
        scene = _scene(index)
        if left.get(scene.label):
            left[scene.label] -= 1
            path = folder / f"class{scene.label}" / f"{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - scene.image if inverted else scene.image).save(path)
        index += 1
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.png"))


def stored_sequence(path: Path | str) -> NDArray[Any]:
    """All states of a store as zarr-python reads them: (layer, image, token, channel)."""
    names = [name for name in ("cls", "registers", "patches") if (Path(path) / name).is_dir()]
    arrays = [stored_array(path, name) for name in names]
    return np.concatenate([part[:, :, None] if part.ndim == 3 else part for part in arrays], axis=2).swapaxes(0, 1)


def stored_array(path: Path | str, name: str) -> NDArray[Any]:
    """One array of a store as zarr-python reads it."""
    return np.asarray(zarr.open_array(str(path), path=name, mode="r")[...])
