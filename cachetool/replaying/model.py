"""The model of a cache, opened again and proven to be the one that the cache was extracted with."""

from __future__ import annotations

from pathlib import Path

from cachetool.backbones import Backbone, load
from cachetool.errors import MissingDataError, WeightsError
from cachetool.objects import AnyPlace, place
from cachetool.provenance import MODEL, check_provenance
from cachetool.store import StoreSpec


def open_backbone(path: AnyPlace, spec: StoreSpec, weights: str | Path | None = None) -> Backbone:
    """Load the model that the cache at `path` was extracted with, and prove that it is the same.

    Without `weights`, the file that the cache names is opened, which may be somebody else's cache: as any weights file
    it is read as data alone, and used only if its digest is that of the cache.

    Raises
    ------
    DamagedError
        The cache does not say which model it was extracted with.
    MissingDataError
        Its weights are not at hand.
    WeightsError
        The weights, architecture or position embedding are not those of the cache.
    """
    check_provenance(place(path), spec.key, spec.facts, *MODEL)
    named = spec.facts.get("weights_file") if weights is None else None
    file = named if weights is None else weights
    model = str(spec.facts["model"])
    try:
        backbone = load(model, weights=None if file is None else Path(file), image_size=spec.key["transform"]["size"])
    except (MissingDataError, WeightsError) as error:
        if named is None:
            raise
        raise type(error)(f"{error}\nThis file is named by {path}; name another with --weights") from error
    found = {
        "architecture": backbone.architecture,
        "weights_sha256": backbone.weights_sha256,
        "position_embedding": backbone.position_embedding,
    }
    wrong = [
        f"  {name}: {spec.key[name]} in the cache, {value} now"
        for name, value in found.items()
        if value != spec.key[name]
    ]
    if wrong:
        listing = "\n".join(wrong)
        raise WeightsError(
            f"{model} as it loads now is not the model of the cache:\n{listing}\nname the right file with --weights"
        )
    return backbone


def compile_blocks(backbone: Backbone, first_block: int) -> None:
    """Have blocks compiled when they are first called; lengths of batches may differ.

    They stay so, and round otherwise: the model must be one that nothing else computes with.
    """
    for block in backbone.model.blocks[first_block:]:
        block.compile(dynamic=True)
