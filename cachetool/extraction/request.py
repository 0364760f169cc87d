"""What an extraction is asked for, checked as a whole before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachetool import places
from cachetool.backbones import Backbone, absolute_model, load
from cachetool.datasets import Dataset, Transform, absolute_name, hash_images, open_dataset
from cachetool.environment import describe_environment, resolve_device
from cachetool.errors import InvalidEditError, MissingDataError, StoreError, UnknownNameError
from cachetool.events import Events, Silent
from cachetool.objects import AnyPlace, Place, check_writable
from cachetool.store import DTYPES, ImageTable, NormSpec, StoreSpec, default_block, storage_dtype, undetermined


@dataclass(frozen=True)
class Request:
    """An extraction that is ready to run: model, images and transform are there and fit each other."""

    model: str
    """Name of the model as the user gave it."""
    backbone: Backbone
    """The model, on the device."""
    dataset: Dataset
    """The opened data set."""
    transform: Transform
    """How pixels are prepared; part of the key."""
    path: Place
    """Where the cache lies or will lie."""
    layers: tuple[int, ...]
    """States to store, ascending."""
    token_types: tuple[str, ...]
    """Token types to store."""
    spec: StoreSpec
    """What the cache declares when it is created."""


def prepare(
    model: str,
    dataset: str,
    *,
    root: AnyPlace | None = None,
    name: str | None = None,
    layers: Iterable[int] | None = None,
    tokens: Iterable[str] | None = None,
    dtype: str = "float16",
    image_size: int | None = None,
    limit: int | None = None,
    weights: str | Path | None = None,
    device: str | None = None,
    events: Events | None = None,
) -> Request:
    """Open model and data set, hash the images and settle key and layout; nothing is written.

    Raises
    ------
    UnknownNameError
        A model, data set, token type, dtype or device does not exist.
    MissingDataError
        Weights or images (or both: then both are named) are not at hand.
    InvalidEditError
        A layer lies beyond the model's depth, or a token type is one that the model lacks.
    StoreError
        A part of the key cannot be determined, or at `root` things can only be read.
    """
    if dtype not in DTYPES:
        raise UnknownNameError(f"--dtype {dtype}: expected one of {', '.join(DTYPES)}")
    if limit is not None and limit < 1:
        raise UnknownNameError(f"--limit {limit}: expected at least 1 image")
    if name is not None:
        places.check_name(name)
    base = places.resolve_root(root)
    check_writable(base)
    resolved_device = resolve_device(device)
    opened, backbone = _open_both(model, dataset, weights, image_size)
    chosen_layers = _check_layers(layers, backbone.depth, model)
    chosen_tokens = _check_tokens(tokens, backbone.layout.types, model)
    backbone.place(resolved_device)

    defaults = backbone.transform_defaults
    transform = Transform(
        size=backbone.image_size,
        crop=opened.default_crop,
        crop_fraction=defaults.crop_fraction,
        interpolation=defaults.interpolation,
        mean=defaults.mean,
        std=defaults.std,
    )
    count = len(opened.image_ids) if limit is None else min(limit, len(opened.image_ids))
    images = _image_table(opened, count, events or Silent())
    all_layers = tuple(range(backbone.depth + 1))
    key: dict[str, Any] = {
        "architecture": backbone.architecture,
        "weights_sha256": backbone.weights_sha256,
        "position_embedding": backbone.position_embedding,
        "transform": {**transform.to_json(), **opened.decoding},
        "dataset": opened.family,
        "dtype": dtype,
    }
    if unknown := undetermined(key):
        raise StoreError(
            f"the key of a cache of {model} on {dataset} cannot be determined: {', '.join(unknown)} unknown; a cache "
            "under a guessed key could pass for another, so nothing was extracted. Name a model and a data set that say"
        )
    spec = StoreSpec(
        kind="cache",
        key=key,
        facts={
            "model": absolute_model(model),
            "dataset": absolute_name(dataset),
            "weights_file": str(Path(weights).resolve()) if weights is not None else None,
            "environment": describe_environment(resolved_device),
        },
        layout=backbone.layout,
        channels=backbone.channels,
        layers=all_layers,
        token_types=chosen_tokens,
        dtype=dtype,
        block=default_block(backbone.layout, backbone.channels, len(all_layers), storage_dtype(dtype).itemsize),
        images=images,
        norm=_norm(backbone),
    )
    path = places.cache_path(base, opened.slug, model, name)
    return Request(model, backbone, opened, transform, path, chosen_layers, chosen_tokens, spec)


def _norm(backbone: Backbone) -> NormSpec | None:
    """The model's final norm as the store keeps it; None where it normalises only after pooling."""
    if backbone.norm_epsilon is None:
        return None
    weight, bias = backbone.norm_weight, backbone.norm_bias
    return NormSpec(
        type=backbone.norm_type,
        epsilon=backbone.norm_epsilon,
        weight=None if weight is None else weight.float().cpu().numpy(),
        bias=None if bias is None else bias.float().cpu().numpy(),
    )


def _open_both(
    model: str, dataset: str, weights: str | Path | None, image_size: int | None
) -> tuple[Dataset, Backbone]:
    """Open data set and model; where both are missing, one error names both, so that nothing is found out twice."""
    missing: list[str] = []
    opened: Dataset | None = None
    backbone: Backbone | None = None
    try:
        opened = open_dataset(dataset)
    except MissingDataError as error:
        missing.append(str(error))
    try:
        backbone = load(model, weights=None if weights is None else Path(weights), image_size=image_size)
    except MissingDataError as error:
        text = str(error)  # of an alias it says what timm calls it, and of a checkpoint the name that was given
        missing.append(text if text.startswith(model) else f"{model}: {text}")
    if opened is None or backbone is None:
        raise MissingDataError("\n".join(missing))
    return opened, backbone


def _check_layers(layers: Iterable[int] | None, depth: int, model: str) -> tuple[int, ...]:
    """Sorted distinct states; all of them where none is named."""
    if layers is None:
        return tuple(range(depth + 1))
    chosen = tuple(sorted(set(layers)))
    wrong = [layer for layer in chosen if not 0 <= layer <= depth]
    if wrong or not chosen:
        raise InvalidEditError(
            f"layers {', '.join(map(str, wrong)) or '(none)'}: {model} has states 0 (the embedding) to {depth} "
            f"(the output of the last block); choose among these"
        )
    return chosen


def _check_tokens(tokens: Iterable[str] | None, available: Sequence[str], model: str) -> tuple[str, ...]:
    """Token types in storage order; all that the model has where none is named."""
    if tokens is None:
        return tuple(available)
    chosen = set(tokens)
    wrong = sorted(chosen - set(available))
    if wrong or not chosen:
        raise InvalidEditError(
            f"tokens {', '.join(wrong) or '(none)'}: {model} has {', '.join(available)}; choose among these"
        )
    return tuple(name for name in available if name in chosen)


def _image_table(dataset: Dataset, count: int, events: Events) -> ImageTable:
    """Ids, content hashes and labels of the first `count` images."""
    events.start("hash", count)
    sha256 = hash_images(dataset, count, progress=events.advance)
    labels = None if dataset.labels is None else tuple(dataset.labels[:count])
    names: tuple[str, ...] | None = None
    if labels is not None and dataset.class_names is not None:
        classes = dataset.class_names
        names = tuple(classes[label] if label >= 0 else "" for label in labels)
    return ImageTable(image_id=tuple(dataset.image_ids[:count]), sha256=sha256, label=labels, class_name=names)
