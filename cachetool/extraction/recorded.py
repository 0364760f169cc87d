"""What a cache was made from, opened again and compared with what it was: its data set, its transform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cachetool.backbones import Backbone
from cachetool.datasets import Dataset, Transform, open_dataset
from cachetool.environment import describe_environment
from cachetool.errors import KeyMismatchError
from cachetool.extraction.request import Request
from cachetool.store import StoreReader, differences


def open_images(facts: Mapping[str, Any], key: Mapping[str, Any]) -> tuple[Dataset, Transform]:
    """The data set of a cache, given its facts and key, and the transform as the key has it.

    Raises `MissingDataError` where the data set is not at hand, `KeyMismatchError` where it is of another family, or
    decoded by other rules.
    """
    dataset = open_dataset(str(facts["dataset"]))
    recorded = dict(key["transform"])
    decoding = {name: recorded.pop(name, None) for name in dataset.decoding}
    different = differences(
        {"dataset": dataset.family, "transform": dataset.decoding},
        {"dataset": key["dataset"], "transform": decoding},
    )
    if different:
        raise KeyMismatchError(
            f"{dataset.name} is not read as it was when the cache was made (here = now, there = then): "
            f"{'; '.join(different)}"
        )
    fields: dict[str, Any] = {"crop_fraction": 1.0, **recorded}
    return dataset, Transform(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})


def request_of(
    reader: StoreReader,
    backbone: Backbone,
    layers: tuple[int, ...],
    token_types: tuple[str, ...],
    facts: Mapping[str, Any] | None = None,
) -> Request:
    """The extraction that gives states of a cache again; `facts` in place of its own say where the data set is now.

    Raises as `open_images` does, and `KeyMismatchError` where the images of the data set are not those of the cache in
    its order; their content is compared when they are read.
    """
    spec = reader.spec
    dataset, transform = open_images(spec.facts if facts is None else facts, spec.key)
    ids = spec.images.image_id
    other = [name for name, there in zip(ids, dataset.image_ids, strict=False) if name != there]
    missing = len(ids) - len(dataset.image_ids)
    if other or missing > 0:
        first = other[0] if other else ids[len(dataset.image_ids)]
        raise KeyMismatchError(
            f"{dataset.name} does not begin with the images of {reader.path} any more: {len(other) + max(missing, 0)} "
            f"are missing or stand elsewhere, the first is {first}; bring the data set back to what it was"
        )
    now = replace(spec, facts={**spec.facts, "environment": describe_environment(backbone.device)})
    return Request(str(spec.facts["model"]), backbone, dataset, transform, reader.path, layers, token_types, now)
