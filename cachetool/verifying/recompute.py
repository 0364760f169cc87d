"""A sample of images computed again end to end: of a cache from their files, of a run from the stored state."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cachetool.arithmetic import BOUNDS as ARITHMETIC_BOUNDS
from cachetool.backbones import Backbone
from cachetool.datasets import Dataset, Transform
from cachetool.environment import resolve_device
from cachetool.errors import ImageError
from cachetool.events import Events
from cachetool.extraction import open_images
from cachetool.objects import Place
from cachetool.replaying import RecordedRun
from cachetool.store import OpenedStore, StoreReader, from_float32
from cachetool.verifying.comparing import NOISE, Comparison, draw_sample
from cachetool.verifying.report import Compared
from cachetool.verifying.sources import open_model

BATCH = 16
"""Images that are computed at a time, at most."""


def recompute_cache(
    path: Place,
    count: int,
    seed: int,
    *,
    damaged: Collection[int],
    weights: str | Path | None,
    device: str | None,
    download: bool,
    events: Events,
) -> list[Compared]:
    """Decode a sample of images of a cache again, compute their states, and compare these with what is stored.

    Images of `damaged` blocks are not drawn. Raises as `open_model` and `open_images` do.
    """
    reader = StoreReader(path)
    dataset, transform = open_images(reader.spec.facts, reader.spec.key)
    backbone = open_model(reader.path, reader.spec, weights, download=download)
    target = resolve_device(device)
    backbone.place(target)
    held = _held(path, damaged)
    sample = draw_sample(list(held), count, seed)
    events.start("recompute", len(sample))
    position = {image_id: index for index, image_id in enumerate(dataset.image_ids)}
    found = []
    for start in range(0, len(sample), BATCH):
        images = sample[start : start + BATCH]
        decoded: dict[int, npt.NDArray[np.float32]] = {}
        for image in images:
            problem = _decode(reader, dataset, transform, position, image, decoded)
            if problem is not None:
                found.append(Compared(image, reader.images.image_id[image], problem))
        found += _compare_states(reader, backbone, target, decoded, held)
        events.advance(len(images))
    return sorted(found, key=lambda one: one.image)


def recompute_run(
    path: Place,
    count: int,
    seed: int,
    *,
    damaged: Collection[int],
    weights: str | Path | None,
    device: str | None,
    download: bool,
    events: Events,
) -> list[Compared]:
    """Replay a sample of images of a run again, and compare the kept states with what is stored.

    Images of `damaged` blocks are not drawn. Raises as `RecordedRun` and `open_model` do, and `KeyMismatchError` where
    a replay now would be another run.
    """
    run, reader = RecordedRun(path, events), StoreReader(path)
    run.check_key()
    backbone = open_model(run.cache.path, run.cache.spec, weights, download=download)
    target = resolve_device(device)
    run.arithmetic.check(target)
    run.place(backbone, target)
    # The bound is one of the mean; single values lie several times as far.
    noise = max(NOISE, 5 * ARITHMETIC_BOUNDS[run.arithmetic.precision])
    sample = draw_sample(list(_held(path, damaged)), count, seed)
    events.start("replay again", len(sample))
    stored_mask = reader.array("edited") if reader.spec.facts.get("finished") else None
    results = []
    for image in sample:
        values, edited = run.replay_image(backbone, image, target)
        comparison = Comparison(image, reader.images.image_id[image], reader.spec.dtype, noise)
        for token_type, states in values.items():
            for row, layer in enumerate(reader.spec.layers):
                stored = reader.read(token_type, layer, image, image + 1)[0]
                comparison.add(token_type, layer, states[row].reshape(stored.shape), stored)
        one = comparison.result()
        if stored_mask is not None and not np.array_equal(stored_mask[image], edited):
            one = Compared(image, one.image_id, "other tokens are edited than `edited` says")
        results.append(one)
        events.advance(1)
    return results


def _held(path: Place, damaged: Collection[int]) -> dict[int, Mapping[str, Collection[int]]]:
    """What each image holds, states by token type, by position; images of damaged or empty blocks are left out."""
    store = OpenedStore(path)
    found: dict[int, Mapping[str, Collection[int]]] = {}
    for block in range(store.geometry.blocks):
        record = None if block in damaged else store.sound_record(block)
        if record is not None:
            found |= dict.fromkeys(range(record.first, record.last), record.layers)
    return found


def _decode(
    reader: StoreReader,
    dataset: Dataset,
    transform: Transform,
    position: dict[str, int],
    image: int,
    decoded: dict[int, npt.NDArray[np.float32]],
) -> str | None:
    """Prepare the pixels of an image into `decoded`; returns what is wrong, empty where nothing has to be computed."""
    table, readable = reader.images, bool(reader.readable[image])
    if table.image_id[image] not in position:
        return f"{dataset.name} has no such image any more"
    index = position[table.image_id[image]]
    try:
        data = dataset.read_bytes(index)
    except ImageError as error:
        return str(error)
    if (sha256 := hashlib.sha256(data).hexdigest()) != table.sha256[image]:
        return (
            f"{dataset.describe(index)} is another file than was extracted: SHA-256 {table.sha256[image][:12]}... then,"
            f" {sha256[:12]}... now"
        )
    try:
        opened = dataset.decode_bytes(data, index)
        transform.check(*opened.size, dataset.describe(index))
    except ImageError as error:
        return f"it could be decoded at extraction, and cannot now: {error}" if readable else ""
    if not readable:
        return "it could not be decoded at extraction, and can now"
    decoded[image] = transform.apply(opened)
    return None


def _compare_states(
    reader: StoreReader,
    backbone: Backbone,
    device: torch.device,
    decoded: Mapping[int, npt.NDArray[np.float32]],
    held: Mapping[int, Mapping[str, Collection[int]]],
) -> list[Compared]:
    """Run the blocks on prepared pixels by image, and compare every state that is held of them."""
    if not decoded:
        return []
    spec = reader.spec
    images = list(decoded)
    comparisons = [Comparison(image, spec.images.image_id[image], spec.dtype) for image in images]

    def visit(layer: int, state: torch.Tensor) -> torch.Tensor:
        tokens = state.cpu().numpy()
        for row, comparison in enumerate(comparisons):
            for name, layers in held[comparison.image].items():
                if layer in layers:
                    found = from_float32(np.ascontiguousarray(tokens[row, spec.layout.slice(name)]), spec.dtype)
                    stored = reader.read(name, layer, comparison.image, comparison.image + 1)[0]
                    comparison.add(name, layer, found, stored)
        return state

    pixels = torch.from_numpy(np.stack([decoded[image] for image in images])).to(device)
    last = max((layer for image in images for layers in held[image].values() for layer in layers), default=0)
    with torch.inference_mode():
        backbone.run(backbone.embed(pixels), 0, last, visit)
    return [comparison.result() for comparison in comparisons]
