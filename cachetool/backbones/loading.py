"""Load a backbone by name: weights from a file, the package, the hub or a seed, fitted to timm's architecture."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from timm.models.eva import Eva

from cachetool.backbones.base import Backbone, Identity
from cachetool.backbones.building import build
from cachetool.backbones.catalogue import ModelName, embedded_weights, resolve
from cachetool.backbones.conversion import check_match, count_classes, fit_bias_variant, to_timm_names
from cachetool.backbones.eva import EvaBackbone
from cachetool.backbones.hub import fetch_weights
from cachetool.backbones.position import fit_position_embedding
from cachetool.backbones.random_weights import random_weights
from cachetool.backbones.support import check_supported
from cachetool.backbones.vit import VisionTransformerBackbone
from cachetool.backbones.weights import canonical, digest, read_weights
from cachetool.errors import MissingDataError, UnsupportedModelError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor


def load(
    name: str,
    *,
    weights: Path | None = None,
    image_size: int | None = None,
    device: torch.device | str = "cpu",
    random_weights_seed: int | None = None,
) -> Backbone:
    """Load the model of a name in evaluation mode, at an image size (side in pixels), on a device.

    `weights` is a safetensors or PyTorch file under the names of timm, Meta or Hugging Face; without it the published
    weights, or those of the named checkpoint, are taken from a local cache or the hub, or, with `random_weights_seed`,
    drawn. The number of classes follows the weights: their classification head is kept, and none is made up.

    Raises `UnknownNameError` for the name, `UnsupportedModelError` for an architecture or image size that cannot be
    run, `MissingDataError` for weights that are not at hand, `WeightsError` for weights that do not fit.
    """
    model_name = resolve(name, image_size)
    architecture = model_name.architecture
    skeleton = build(architecture)
    check_supported(skeleton, name)
    _check_image_size(skeleton, model_name)
    if random_weights_seed is not None:
        if weights is not None:
            raise WeightsError(f"both the file {weights.name} and random weights were asked for; choose one of the two")
        source = f"random, seed {random_weights_seed}"
        tensors = random_weights(build(architecture, model_name.transform.size), random_weights_seed)
    else:
        files, source = _locate(model_name, weights)
        tensors = to_timm_names(read_weights(*files), source)
        tensors, variant = fit_bias_variant(tensors, architecture.timm_name, skeleton)
        architecture = replace(architecture, timm_name=variant)
    tensors = canonical(tensors)
    model = build(architecture, model_name.transform.size, classes=count_classes(tensors))
    fitted, position_embedding = fit_position_embedding(tensors, model)
    label = architecture.label or model_name.name
    check_match(fitted, model, label, source)
    _assign(model, fitted)
    identity = Identity(
        name=name,
        architecture=label,
        weights_sha256=digest(tensors),
        weights_source=source,
        position_embedding=position_embedding,
        transform_defaults=model_name.transform,
    )
    backbone = EvaBackbone(model, identity) if type(model) is Eva else VisionTransformerBackbone(model, identity)
    backbone.place(device)
    return backbone


def _check_image_size(model: Any, model_name: ModelName) -> None:
    """Refuse a size that leaves a remainder, whose pixels no patch would see."""
    size, patch = model_name.transform.size, int(model.patch_embed.patch_size[0])
    if size < patch or size % patch:
        lower = max(size // patch, 1) * patch
        raise UnsupportedModelError(
            f"{model_name.name} has patches of {patch} x {patch} pixels, so the image size has to be a multiple of "
            f"{patch}; found {size}. Choose {lower} or {lower + patch} with `--image-size`"
        )


def _locate(model_name: ModelName, weights: Path | None) -> tuple[tuple[Path, ...], str]:
    """Find the weights files of a model, and what to call them."""
    if weights is not None:
        return (Path(weights),), f"file {Path(weights).name}"
    if model_name.checkpoint is not None:
        return model_name.checkpoint.weights(), model_name.checkpoint.source
    timm_name = model_name.architecture.timm_name
    if timm_name:
        return (fetch_weights(timm_name),), f"timm {timm_name}"
    with resources.as_file(embedded_weights()) as path:
        if not path.is_file():
            raise MissingDataError(
                f"{path.name} is not part of this installation of cachetool; install it again, or give the file with "
                "`--weights FILE`"
            )
        return (path,), f"embedded {path.name}"


def _assign(model: Any, tensors: dict[str, Tensor]) -> None:
    """Give a model its weights, and compute the buffers that are not part of them (frequencies of rotary positions)."""
    model.load_state_dict(tensors, strict=True, assign=True)
    for module in model.modules():
        pending = [name for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
        for name in pending:
            setattr(module, name, torch.empty_like(getattr(module, name), device="cpu"))
        if pending:
            module.init_non_persistent_buffers()
    model.requires_grad_(requires_grad=False)
