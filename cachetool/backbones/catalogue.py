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

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

EMBEDDED = "tiny-reg"
"""Name of the model that is part of the package."""

TIMM_PREFIX = "timm:"
"""What stands before the name of any other timm model, with or without the tag of its weights."""

DINO_IMAGE_SIZE = 224
"""Side of the input of the named DINO models, in pixels; timm's own values are 518 (DINOv2) and 256 (DINOv3)."""

DINO_CROP_FRACTION = 224 / 256
"""Centre crop that Meta evaluates the DINO models with: shorter side to 256, then 224."""


@dataclass(frozen=True)
class ModelEntry:
    """One line of the list of models."""

    name: str
    """The name to use."""
    timm_name: str
    """timm's name with the tag of the weights; empty for the embedded model."""
    parameters: int
    """Number of parameters without a classification head, at the default image size."""
    depth: int
    """Number of blocks."""
    channels: int
    """Width of the residual stream."""
    registers: int
    """Number of register tokens."""
    image_size: int
    """Default side of the input, in pixels."""
    description: str
    """What the model is, in a few words."""
    available_here: bool = False
    """Whether its weights are on this machine."""


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


_SIZES = {
    "s": ("small", "ViT-S"), "b": ("base", "ViT-B"), "l": ("large", "ViT-L"), "g": ("giant", "ViT-g"),
    "s+": ("small_plus", "ViT-S+"), "h+": ("huge_plus", "ViT-H+"), "7b": ("7b", "ViT-7B"),
}  # fmt: skip


def _dinov2(size: str, parameters: int, depth: int, channels: int, *, registers: bool) -> ModelEntry:
    long, short = _SIZES[size]
    return ModelEntry(
        name=f"dinov2-reg-{size}" if registers else f"dinov2-{size}",
        timm_name=f"vit_{long}_patch14_{'reg4_' if registers else ''}dinov2.lvd142m",
        parameters=parameters,
        depth=depth,
        channels=channels,
        registers=4 if registers else 0,
        image_size=DINO_IMAGE_SIZE,
        description=f"DINOv2 {short}/14{' with 4 registers' if registers else ', no registers'}",
    )


def _dinov3(size: str, parameters: int, depth: int, channels: int) -> ModelEntry:
    long, short = _SIZES[size]
    return ModelEntry(
        name=f"dinov3-{size}",
        timm_name=f"vit_{long}_patch16_dinov3.lvd1689m",
        parameters=parameters,
        depth=depth,
        channels=channels,
        registers=4,
        image_size=DINO_IMAGE_SIZE,
        description=f"DINOv3 {short}/16 with 4 registers, rotary positions",
    )


_NAMED = (
    _dinov2("s", 21_628_800, 12, 384, registers=False),
    _dinov2("b", 85_724_928, 12, 768, registers=False),
    _dinov2("l", 303_227_904, 24, 1024, registers=False),
    _dinov2("g", 1_134_769_664, 40, 1536, registers=False),
    _dinov2("s", 21_629_952, 12, 384, registers=True),
    _dinov2("b", 85_727_232, 12, 768, registers=True),
    _dinov2("l", 303_230_976, 24, 1024, registers=True),
    _dinov2("g", 1_134_774_272, 40, 1536, registers=True),
    _dinov3("s", 21_586_944, 12, 384),
    _dinov3("s+", 28_683_264, 12, 384),
    _dinov3("b", 85_641_216, 12, 768),
    _dinov3("l", 303_079_424, 24, 1024),
    _dinov3("h+", 840_509_440, 32, 1280),
    _dinov3("7b", 6_716_030_976, 40, 4096),
    ModelEntry(EMBEDDED, "", 1_367_424, 12, 96, 4, IMAGE_SIZE, "embedded: a small DINO-style ViT/8 with 4 registers"),
)


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
    return [replace(entry, available_here=_available(entry)) for entry in _NAMED]


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
    entry = next((entry for entry in _NAMED if entry.name == name), None)
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
    names = [entry.name for entry in _NAMED]
    wanted = name.removeprefix(TIMM_PREFIX)
    timm_names = [
        timm_name
        for module in ("vision_transformer", "eva")
        for timm_name in timm.list_models(module=module, pretrained="." in wanted)
    ]
    close = [] if name.startswith(TIMM_PREFIX) else get_close_matches(name, names, n=3)
    close += [TIMM_PREFIX + match for match in get_close_matches(wanted, timm_names, n=3)]
    hint = f"; close: {', '.join(close)}" if close else ""
    return (
        f"no model is named {name}{hint}. `cachetool models` lists the names; any other vision transformer is timm:NAME"
    )
