"""ImageNet val through ViT-B on eight GPUs, planned: `python -m tests.benchmarks.eight_gpus`.

Measured here: processor time to decode an image. Counted here: bytes and files of a store, and requests to an object
store (moto's server on loopback). Left open, since there is no GPU here: images a second that one runs through the
model, and what the storage takes in; both are columns. Prices are the list prices below, not what anybody was billed.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import humanize
import numpy as np
from rich.console import Console
from rich.table import Table

from cachetool.datasets import load_batches, processors_for_decoding
from cachetool.extraction import prepare
from cachetool.objects import ObjectPath
from cachetool.store import ImageTable, StoreReader, StoreSpec, StoreWriter, create, default_block
from cachetool.tokens import TokenLayout
from tests.benchmarks.models import ARCHITECTURE, MODEL, make_photos
from tests.benchmarks.ratios import timed
from tests.objects.loopback import Request
from tests.objects.server import Proxy, running
from tests.reference.plain_models import random_vit, save_weights

IMAGES, GPUS, EDITS, FROM_LAYER = 50_000, 8, 4, 9
LAYOUT, CHANNELS, DEPTH = TokenLayout(1, 4, 16, 16), 768, 12
BLOCK = default_block(LAYOUT, CHANNELS, DEPTH + 1, 2)
BLOCKS = -(-IMAGES // BLOCK)
DECODED = 256
"""Images by which decoding is timed."""

RATES = (250, 500, 1000, 2000)
"""Images a second of one GPU."""
STORAGE = (1e9, 5e9, 20e9)
"""Bytes a second that the storage takes in."""
PROCESSORS = 64
"""Of all machines together, for decoding."""
WRITTEN_THOUSAND, READ_THOUSAND, GIGABYTE_MONTH = 0.005, 0.0004, 0.023
"""List prices of Amazon S3, standard storage, us-east-1, in dollars: 1,000 writes, 1,000 reads, a gigabyte a month."""


@dataclass(frozen=True)
class Counted:
    """Requests to an object store, by what is done with one block of images."""

    write: Counter[str]
    """To write all states of all tokens."""
    read: Counter[str]
    """To read one state of all tokens."""


def main() -> None:
    """Print what was measured and counted, then the plan."""
    console = Console(width=150)
    with tempfile.TemporaryDirectory(prefix="cachetool-eight-gpus-") as folder:
        decoding = _decoding(Path(folder))
    counted = _count()
    image_bytes = (DEPTH + 1) * LAYOUT.tokens * CHANNELS * 2
    console.print(
        f"measured: {1e3 * decoding:.1f} ms of processor time to decode an image. Counted, by block of {BLOCK} images: "
        f"to write it {_said(counted.write)}; to read one state of it {_said(counted.read)}"
    )
    console.print(_storing(counted, IMAGES * image_bytes))
    console.print(_extracting(decoding, image_bytes))
    console.print(_replaying(image_bytes / (DEPTH + 1)))


def _decoding(folder: Path) -> float:
    """Seconds of processor time to decode an image of the size of ImageNet's."""
    photos = make_photos(folder / "photos")
    weights = save_weights(random_vit(ARCHITECTURE, seed=0), folder / "weights.safetensors")
    request = prepare(MODEL, f"imagefolder:{photos}", root=folder / "unused", weights=weights, limit=DECODED)
    batches = [range(first, first + 8) for first in range(0, DECODED, 8)]

    def decode() -> None:
        for _ in load_batches(request.dataset, request.transform, batches, sha256=request.spec.images.sha256):
            pass

    decode()
    return min(timed(decode) for _ in range(3)) * processors_for_decoding() / DECODED


def _count() -> Counted:
    """Write two blocks to a server that counts, and read one state of the second."""
    names = tuple(f"{index:06}" for index in range(2 * BLOCK))
    spec = StoreSpec(
        kind="cache", key={"dtype": "float16"}, facts={}, layout=LAYOUT, channels=CHANNELS,
        layers=tuple(range(DEPTH + 1)), token_types=LAYOUT.types, dtype="float16", block=BLOCK,
        images=ImageTable(names, names),
    )  # fmt: skip
    shapes = {"cls": (CHANNELS,), "registers": (LAYOUT.registers, CHANNELS), "patches": (LAYOUT.patches, CHANNELS)}
    arrays = {name: np.zeros((DEPTH + 1, BLOCK, *shape), np.float16) for name, shape in shapes.items()}
    with running() as server:
        server.make_bucket("bucket")
        proxy = Proxy(server.port)
        os.environ |= {**server.environment, "AWS_ENDPOINT_URL": proxy.url}
        path = ObjectPath("s3://bucket/cache.zarr")
        create(path, spec)
        writer = StoreWriter(path)
        writer.write_block(0, arrays, spec.layers)
        with proxy.counted() as written:
            writer.write_block(1, arrays, spec.layers)
        reader = StoreReader(path)
        reader.read_state(FROM_LAYER, 0, BLOCK)
        with proxy.counted() as read:
            reader.read_state(FROM_LAYER, BLOCK, 2 * BLOCK)
        proxy.close()
    return Counted(_by_method(written), _by_method(read))


def _by_method(requests: Sequence[Request]) -> Counter[str]:
    return Counter(request.method for request in requests)


def _said(requests: Counter[str]) -> str:
    return ", ".join(f"{count} {method}" for method, count in sorted(requests.items()))


def _dollars(requests: Counter[str], times: int) -> float:
    reads = requests["GET"] + requests["HEAD"]
    return times * (reads * READ_THOUSAND + (requests.total() - reads) * WRITTEN_THOUSAND) / 1000


def _storing(counted: Counted, size: float) -> Table:
    table = Table("all 13 states of ImageNet val", "size", "shards", "requests", "dollars at list price")
    table.add_row(
        "written once", humanize.naturalsize(size), f"{3 * BLOCKS:,}", f"{counted.write.total() * BLOCKS:,}",
        f"{_dollars(counted.write, BLOCKS):.2f}",
    )  # fmt: skip
    table.add_row("kept a month", humanize.naturalsize(size), "", "", f"{size / 1e9 * GIGABYTE_MONTH:.2f}")
    state = size / (DEPTH + 1)
    table.add_row(
        "one state read", humanize.naturalsize(state), "", f"{counted.read.total() * BLOCKS:,}",
        f"{_dollars(counted.read, BLOCKS):.2f}",
    )  # fmt: skip
    return table


def _extracting(decoding: float, image_bytes: float) -> Table:
    table = Table(
        f"extraction on {GPUS} GPUs, images/s of each", "passes", "processors that decode as fast",
        "bytes/s that keep up", *(f"storage of {humanize.naturalsize(one)}/s" for one in STORAGE),
    )  # fmt: skip
    decoded = IMAGES * decoding / PROCESSORS
    for rate in RATES:
        passes = IMAGES / (GPUS * rate)
        table.add_row(
            str(rate), _time(passes), f"{GPUS * rate * decoding:.0f}",
            humanize.naturalsize(GPUS * rate * image_bytes),
            *(_longest(passes, IMAGES * image_bytes / one, decoded) for one in STORAGE),
        )  # fmt: skip
    return table


def _replaying(state_bytes: float) -> Table:
    """Several edits: a state is read once, the blocks above it run once for each, final tokens are written for each."""
    table = Table(
        f"{EDITS} edits from state {FROM_LAYER}, images/s of each GPU (whole passes)", "blocks",
        *(f"all tokens kept, {humanize.naturalsize(one)}/s" for one in STORAGE), "[CLS] kept, slowest storage",
    )  # fmt: skip
    for rate in RATES:
        blocks = EDITS * (DEPTH - FROM_LAYER) / DEPTH * IMAGES / (GPUS * rate)
        state = IMAGES * state_bytes
        table.add_row(
            str(rate), _time(blocks),
            *(_longest(blocks, (1 + EDITS) * state / one, 0.0) for one in STORAGE),
            _longest(blocks, (1 + EDITS / LAYOUT.tokens) * state / STORAGE[0], 0.0),
        )  # fmt: skip
    return table


def _longest(passes: float, storing: float, decoding: float) -> str:
    """What takes longest decides, where all overlap."""
    seconds = {"passes": passes, "storage": storing, f"decoding on {PROCESSORS} processors": decoding}
    what = max(seconds, key=lambda name: seconds[name])
    return f"{_time(seconds[what])} ({what})"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


if __name__ == "__main__":
    main()
