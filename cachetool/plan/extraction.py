"""What an extraction will cost."""

from __future__ import annotations

from functools import partial

from cachetool.backbones import default_batch_size
from cachetool.extraction.extract import default_workers
from cachetool.extraction.request import Request
from cachetool.extraction.storage_error import forward_passes, measured_images
from cachetool.plan.costs import Plan, disk_bytes, parameter_bytes
from cachetool.plan.measuring import (
    count_operations,
    decode_seconds,
    forward,
    seconds_per_image,
    write_speed,
    zero_images,
)
from cachetool.store import StoreReader


def plan_extraction(request: Request, batch_size: int | None = None, images: int | None = None) -> Plan:
    """Costs of an extraction, less what is stored already.

    One batch of noise is run, eight images are decoded and a temporary file is written, all timed here and now.
    Decoding, computing and writing overlap: the slowest decides, and on the CPU decoding takes turns with the blocks.
    `images` plans for that many images like those of the request, which need not be at hand.
    """
    spec, backbone = request.spec, request.backbone
    images = len(spec.images) if images is None else images
    stored = 0
    if (request.path / "zarr.json").is_file():
        reader = StoreReader(request.path)
        types = [reader.spec.layout.types.index(name) for name in request.token_types]
        finished = reader.complete[:, types][:, :, list(request.layers)].all(axis=(1, 2))
        stored = min(int(finished.sum()) * reader.spec.block, len(reader.spec.images))
    todo = max(images - stored, 0)
    disk = disk_bytes(spec, todo, len(request.layers), request.token_types)
    block = disk_bytes(spec, spec.block, len(request.layers), request.token_types)
    size = min(batch_size or default_batch_size(backbone, backbone.device), spec.block)
    seconds = seconds_per_image(backbone, backbone.device, size)
    compute = todo * seconds
    decode = todo * decode_seconds(request, default_workers(request.dataset, backbone.device))
    write = disk / write_speed(request.path)
    # The rounding of each state is measured by running the blocks above it.
    rounded = todo > 0 and not stored and spec.dtype != "float32"
    measured = measured_images(images, request.layers, backbone.depth) if rounded else 0
    storage_error = measured * seconds * forward_passes(request.layers, backbone.depth)
    stages = (compute + decode, write) if backbone.device.type == "cpu" else (compute, decode, write)
    costs = {
        "total_images": images,
        "stored_images": min(stored, images),
        "disk_bytes": disk,
        "block_images": spec.block,
        "memory_bytes": 2 * block + parameter_bytes(backbone, 0),
        "floating_point_operations": todo
        * count_operations(partial(forward, backbone, zero_images(backbone, backbone.device, 1))),
        "compute_seconds": compute,
        "decode_seconds": decode,
        "write_seconds": write,
        "storage_error_seconds": storage_error,
        "predicted_seconds": max(stages) + storage_error,
    }
    return Plan(
        f"extract {request.model} to {request.path}",
        costs,
        "nothing to do"
        if todo == 0
        else "decoding, forward passes and writing overlap, so that the slowest of them decides",
    )
