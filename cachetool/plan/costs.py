"""What work will cost, said before it is done, and how much room it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import humanize
from rich.table import Table

from cachetool.backbones import Backbone
from cachetool.store import StoreSpec, storage_dtype


@dataclass(frozen=True)
class Plan:
    """Costs by name, each with its unit."""

    title: str
    """What is planned."""
    costs: dict[str, int | float]
    """Names end in `_bytes`, `_seconds`, `_images` or are plain counts and ratios."""
    verdict: str
    """One sentence: what to do."""

    def to_json(self) -> dict[str, Any]:
        """The plan as one JSON object."""
        return {"plan": self.title, **self.costs, "verdict": self.verdict}

    def table(self) -> Table:
        """The plan as a table with readable units."""
        table = Table(title=self.title, caption=self.verdict)
        table.add_column("cost")
        table.add_column("value", justify="right")
        for name, value in self.costs.items():
            label = name.removesuffix("_bytes").removesuffix("_seconds")  # which the value says
            table.add_row(label.replace("_", " "), _readable(name, value))
        return table


def disk_bytes(spec: StoreSpec, images: int, layers: int, token_types: Sequence[str]) -> int:
    """Bytes of the chunks of some images, each of which is stored whole even where it is partly filled."""
    geometry = spec.geometry
    total = 0
    for name in token_types:
        array = geometry.array(name)
        chunk = array.chunk_images(spec.block)
        total += -(-images // chunk) * chunk * array.values * layers * storage_dtype(spec.dtype).itemsize
    return total


def parameter_bytes(backbone: Backbone, first_block: int) -> int:
    """Bytes of the weights of the blocks from one on."""
    blocks = backbone.model.blocks[first_block:]
    return sum(parameter.numel() * parameter.element_size() for parameter in blocks.parameters())


def _readable(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return humanize.naturalsize(value)
    if name.endswith("_seconds"):
        return humanize.precisedelta(value, minimum_unit="seconds", format="%0.1f")
    return f"{value:,}"
