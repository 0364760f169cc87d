"""The certificate: proof, per run, that the unedited replay gives the stored last state.

A replay starts from a stored state, so whatever is wrong with the cache, the weights or the kernels would look like an
effect of the edit. The certificate replays a sample without any edit and compares it with the stored last state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from cachetool.backbones import Backbone
from cachetool.environment import kernel_name
from cachetool.errors import CertificateError, IncompleteError
from cachetool.store import StoreReader

SAMPLE_IMAGES = 16

BOUNDS: Mapping[str, float] = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2}
"""Largest relative error at which a run is accepted: about ten times the rounding of each storage dtype on the final
tokens (float16 1e-3 and bfloat16 8e-3 at state 0 of a trained ViT-Tiny), and of reordered float32 sums."""


def certify(backbone: Backbone, reader: StoreReader, from_layer: int, device: torch.device) -> dict[str, Any]:
    """Replay a sample unedited from a state and measure its distance from the stored last state.

    Returns
    -------
    JSON-ready: `from_layer`, `images` (number in the sample), `relative_error` (of the normalised tokens: root mean
    square of the difference over that of what is stored; before the norm, a few channels of huge values would hide all
    others), `largest_token_error` (the same of the worst single token), `bit_equal` (of the states themselves), `bound`
    of `relative_error`, `dtype` of the cache, `kernel`.

    Raises
    ------
    CertificateError
        The error is above the bound of the cache's dtype.
    IncompleteError
        The cache lacks the last state, so that nothing can be certified.
    """
    depth = backbone.depth
    spec = reader.spec
    for token_type in backbone.layout.types:
        if depth not in reader.coverage(token_type):
            raise IncompleteError(
                f"the certificate compares with state {depth} (the last) of {token_type}, which {reader.path} does not "
                f"hold; extract again with {depth} among --layers and {token_type} among --tokens"
            )
    readable = np.flatnonzero(reader.readable)
    if len(readable) == 0:
        raise IncompleteError(f"no image of {reader.path} could be read at extraction, so nothing can be replayed")
    sample = readable[np.unique(np.linspace(0, len(readable) - 1, min(SAMPLE_IMAGES, len(readable))).astype(int))]
    start = np.concatenate([reader.read_state(from_layer, int(i), int(i) + 1) for i in sample])
    expected = np.concatenate([reader.read_state(depth, int(i), int(i) + 1) for i in sample])
    with torch.inference_mode():
        found = backbone.run(torch.from_numpy(start).to(device), from_layer, depth)
        stored = torch.from_numpy(expected).to(device)
        tokens, stored_tokens = backbone.normalize(found).double(), backbone.normalize(stored).double()
    squares = (tokens - stored_tokens).square().mean(dim=2)
    natural = stored_tokens.square().mean(dim=2)
    relative = float((squares.mean() / natural.mean()).sqrt())
    certificate = {
        "from_layer": from_layer,
        "images": len(sample),
        "relative_error": relative,
        "largest_token_error": float((squares / natural).max().sqrt()),
        "bit_equal": bool(torch.equal(found, stored)),
        "bound": BOUNDS[spec.dtype],
        "dtype": spec.dtype,
        "kernel": kernel_name(device),
    }
    if not relative <= BOUNDS[spec.dtype]:
        raise CertificateError(
            f"the unedited replay of {len(sample)} images from state {from_layer} differs from the stored "
            f"state {depth} by {relative:.3g}, above the bound {BOUNDS[spec.dtype]:g} for {spec.dtype}: cache, "
            f"weights and this device ({kernel_name(device)}) do not belong together, so no edit was replayed; "
            "extract the cache again, or replay on the device it was made on"
        )
    return certificate
