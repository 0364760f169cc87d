"""Images of a cache computed again from their files."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from cachetool.environment import resolve_device
from cachetool.errors import ImageError
from cachetool.extraction import open_images
from cachetool.store import StoreReader, from_float32
from cachetool.verifying.comparing import Comparison
from cachetool.verifying.report import Compared
from cachetool.verifying.sources import open_model

Held: TypeAlias = Mapping[str, Collection[int]]
"""States that an image holds, by token type."""


class CacheAgain:
    """A cache with its images and its model at hand."""

    phase = "recompute"
    batch = 16

    def __init__(self, reader: StoreReader, weights: str | Path | None, device: str | None, *, download: bool) -> None:
        """Raises as `open_model` and `open_images` do."""
        self._reader = reader
        self._dataset, self._transform = open_images(reader.spec.facts, reader.spec.key)
        self._position = {image_id: index for index, image_id in enumerate(self._dataset.image_ids)}
        self._backbone = open_model(reader.path, reader.spec, weights, download=download)
        self._device = resolve_device(device)
        self._backbone.place(self._device)

    def compare(self, images: Mapping[int, Held]) -> list[Compared]:
        """Decode images, run the blocks on them, and compare every state that is held of them."""
        found = []
        decoded: dict[int, npt.NDArray[np.float32]] = {}
        for image in images:
            problem = self._decode(image, decoded)
            if problem is not None:
                found.append(Compared(image, self._reader.images.image_id[image], problem))
        return found + self._compare_states(decoded, images)

    def _decode(self, image: int, decoded: dict[int, npt.NDArray[np.float32]]) -> str | None:
        """Prepare the pixels of an image into `decoded`.

        Returns what is wrong, empty where nothing has to be computed.
        """
        dataset, table, readable = self._dataset, self._reader.images, bool(self._reader.readable[image])
        if table.image_id[image] not in self._position:
            return f"{dataset.name} has no such image any more"
        index = self._position[table.image_id[image]]
        try:
            data = dataset.read_bytes(index)
        except ImageError as error:
            return str(error)
        if (sha256 := hashlib.sha256(data).hexdigest()) != table.sha256[image]:
            return (
                f"{dataset.describe(index)} is another file than was extracted: SHA-256 {table.sha256[image][:12]}... "
                f"then, {sha256[:12]}... now"
            )
        try:
            opened = dataset.decode_bytes(data, index)
            self._transform.check(*opened.size, dataset.describe(index))
        except ImageError as error:
            return f"it could be decoded at extraction, and cannot now: {error}" if readable else ""
        if not readable:
            return "it could not be decoded at extraction, and can now"
        decoded[image] = self._transform.apply(opened)
        return None

    def _compare_states(
        self, decoded: Mapping[int, npt.NDArray[np.float32]], held: Mapping[int, Held]
    ) -> list[Compared]:
        """Run the blocks on prepared pixels by image, and compare every state that is held of them."""
        if not decoded:
            return []
        reader, spec = self._reader, self._reader.spec
        comparisons = [Comparison(image, spec.images.image_id[image], spec.dtype) for image in decoded]

        def visit(layer: int, state: torch.Tensor) -> torch.Tensor:
            tokens = state.cpu().numpy()
            for row, comparison in enumerate(comparisons):
                for name, layers in held[comparison.image].items():
                    if layer in layers:
                        found = from_float32(np.ascontiguousarray(tokens[row, spec.layout.slice(name)]), spec.dtype)
                        stored = reader.read(name, layer, comparison.image, comparison.image + 1)[0]
                        comparison.add(name, layer, found, stored)
            return state

        pixels = torch.from_numpy(np.stack(list(decoded.values()))).to(self._device)
        last = max((layer for image in decoded for layers in held[image].values() for layer in layers), default=0)
        with torch.inference_mode():
            self._backbone.run(self._backbone.embed(pixels), 0, last, visit)
        return [comparison.result() for comparison in comparisons]
