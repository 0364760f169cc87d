"""The model of a cache, opened again and proven to be the same, where it is not to be fetched for that."""

from __future__ import annotations

from pathlib import Path

from cachetool.backbones import Backbone
from cachetool.backbones.catalogue import weights_here
from cachetool.errors import MissingDataError
from cachetool.objects import Place
from cachetool.replaying import open_backbone
from cachetool.store import StoreSpec


def open_model(path: Place, spec: StoreSpec, weights: str | Path | None, *, download: bool) -> Backbone:
    """The model of the cache at `path`.

    Raises `MissingDataError` where its weights are not at hand (without `download`: not on this machine),
    `WeightsError` where they are other ones.
    """
    file = weights if weights is not None else spec.facts.get("weights_file")
    if file is None and not download and not weights_here(str(spec.facts["model"])):
        raise MissingDataError(
            f"the weights of {spec.facts['model']} are not on this machine; name them with --weights"
        )
    return open_backbone(path, spec, weights)
