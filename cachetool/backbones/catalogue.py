"""Names of models: the DINO families, the embedded model, others of timm (`timm:NAME`) and of Hugging Face (`hf:`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import resources
from typing import TYPE_CHECKING, Any

import timm
from timm.models import get_pretrained_cfg

from cachetool.backbones import checkpoint as checkpoints
from cachetool.backbones.base import TransformDefaults
from cachetool.backbones.building import build
from cachetool.backbones.checkpoint import Checkpoint, open_checkpoint
from cachetool.backbones.configuration import Architecture, architecture_of
from cachetool.backbones.hub import cached_weights
from cachetool.embedded.architecture import IMAGE_SIZE, MEAN, STD
from cachetool.errors import UnknownNameError, UnsupportedModelError
from cachetool.files import expanded
from cachetool.named_models import DINO_IMAGE_SIZE, EMBEDDED, NAMED_MODELS, ModelEntry

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

TIMM_PREFIX = "timm:"
"""What stands before the name of any other timm model, with or without the tag of its weights."""

DINO_CROP_FRACTION = 224 / 256
"""Centre crop that Meta evaluates the DINO models with: shorter side to 256, then 224."""


@dataclass(frozen=True)
class ModelForm:
    """A way to name models that have no name of their own."""

    name: str
    """What to type; capitals stand for a name or a path."""
    description: str
    """What it names, in a few words."""


@dataclass(frozen=True)
class ModelName:
    """A model name, resolved: which architecture it stands for, and how its images are prepared."""

    name: str
    """The name as the user gave it."""
    architecture: Architecture
    """Which architecture of timm it is."""
    transform: TransformDefaults
    """How images are prepared unless the user says otherwise."""
    checkpoint: Checkpoint | None = None
    """Where its weights are, for a checkpoint of Hugging Face."""


_FORMS = (
    ModelForm("timm:NAME", "any other vision transformer of timm"),
    ModelForm("hf:REPO", "DINOv2 or DINOv3 of Hugging Face: a repository of the hub, with @REVISION where wanted"),
    ModelForm("hf:DIR", "the same, from a folder as transformers saves it"),
)


def forms() -> tuple[ModelForm, ...]:
    """List the ways to name models that the list of models does not have."""
    return _FORMS


def catalogue() -> list[ModelEntry]:
    """List the named models, without building any; `timm:NAME` reaches the other vision transformers of timm."""
    return [replace(entry, available_here=_available(entry)) for entry in NAMED_MODELS]


def _available(entry: ModelEntry) -> bool:
    return cached_weights(entry.timm_name) is not None if entry.timm_name else embedded_weights().is_file()


def embedded_weights() -> Traversable:
    """Find the weights of the embedded model inside the package."""
    return resources.files("cachetool.embedded") / f"{EMBEDDED}.safetensors"


def resolve(name: str, image_size: int | None = None) -> ModelName:
    """Resolve what a model name stands for, at an image size if one is given (side in pixels).

    Raises `UnknownNameError` with the closest names, `UnsupportedModelError` for a timm model whose images are not
    square unless a size is given, and for a checkpoint of another kind; `MissingDataError` and `WeightsError` for a
    checkpoint whose configuration is not at hand or cannot be read.
    """
    if name.startswith(checkpoints.PREFIX):
        return _resolve_checkpoint(name, image_size)
    if name == EMBEDDED:
        transform = TransformDefaults(IMAGE_SIZE if image_size is None else image_size, MEAN, STD, "bicubic", 1.0)
        return ModelName(name, Architecture(""), transform)
    entry = next((entry for entry in NAMED_MODELS if entry.name == name), None)
    timm_name = name.removeprefix(TIMM_PREFIX) if entry is None else entry.timm_name
    config = _config(timm_name) if entry is not None or name.startswith(TIMM_PREFIX) else None
    if config is None:
        raise UnknownNameError(_unknown(name))
    rows, columns = config.input_size[1:]
    if entry is None and rows != columns and image_size is None:
        raise UnsupportedModelError(
            f"{name} takes images of {rows} x {columns} pixels, where square ones are expected; choose a side with "
            "`--image-size`"
        )
    default_size = rows if entry is None else entry.image_size
    transform = TransformDefaults(
        size=default_size if image_size is None else image_size,
        mean=tuple(config.mean),
        std=tuple(config.std),
        interpolation=str(config.interpolation),
        crop_fraction=float(config.crop_pct) if entry is None else DINO_CROP_FRACTION,
    )
    return ModelName(name, Architecture(timm_name), transform)


def weights_here(name: str) -> bool:
    """Whether the weights of a model are on this machine; raises `UnknownNameError` where there is no such model."""
    if name.startswith(checkpoints.PREFIX):
        return open_checkpoint(name).is_here()
    timm_name = resolve(name).architecture.timm_name
    return not timm_name or cached_weights(timm_name) is not None


def _resolve_checkpoint(name: str, image_size: int | None) -> ModelName:
    """A checkpoint of Hugging Face: its own colours, and size, crop and filter of the named DINO models."""
    checkpoint = open_checkpoint(name)
    architecture = architecture_of(checkpoint.configuration(), name, lambda one: build(Architecture(one)))
    mean, std = checkpoint.colours()
    size = DINO_IMAGE_SIZE if image_size is None else image_size
    return ModelName(name, architecture, TransformDefaults(size, mean, std, "bicubic", DINO_CROP_FRACTION), checkpoint)


def _config(timm_name: str) -> Any:
    """Look up the configuration of a timm model, with or without a tag; None where timm has no such model or tag."""
    try:
        return get_pretrained_cfg(timm_name, allow_unregistered=False)
    except RuntimeError:
        return None


def _unknown(name: str) -> str:
    names = [entry.name for entry in NAMED_MODELS]
    wanted = name.removeprefix(TIMM_PREFIX)
    timm_names = [
        timm_name
        for module in ("vision_transformer", "eva")
        for timm_name in timm.list_models(module=module, pretrained="." in wanted)
    ]
    close = [] if name.startswith(TIMM_PREFIX) else get_close_matches(name.lower(), names, n=3)
    close += [TIMM_PREFIX + match for match in get_close_matches(wanted, timm_names, n=3)]
    hint = f"; close: {', '.join(close)}" if close else ""
    lies_here = expanded(name or "/")
    if lies_here.is_file():
        hint += f". Weights are given beside a name: --weights {name}"
    elif (lies_here / "config.json").is_file():
        hint += f". A checkpoint in a folder is named hf:{name}"
    told = name or repr(name)
    return (
        f"no model is named {told}{hint}. `cachetool models` lists the names; any other vision transformer is timm:NAME"
    )
