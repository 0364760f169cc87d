"""The certificate: proof, per run, that the unedited replay gives the stored last state.

A replay starts from a stored state, so whatever is wrong with the cache, the weights or the kernels would look like an
effect of the edit. The certificate replays a sample without any edit and compares it with the stored last state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cachetool.arithmetic import BOUNDS as ARITHMETIC_BOUNDS
from cachetool.arithmetic import Arithmetic
from cachetool.backbones import Backbone
from cachetool.environment import kernel_name
from cachetool.errors import CertificateError, IncompleteError
from cachetool.extraction.halving import Halving
from cachetool.store import StoreReader
from cachetool.tokens import TokenLayout

SAMPLE_IMAGES = 16

BOUNDS: Mapping[str, float] = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2}
"""Largest relative error at which a run is accepted: about ten times the rounding of each storage dtype on the final
tokens (float16 1e-3 and bfloat16 8e-3 at state 0 of a trained ViT-Tiny), and of reordered float32 sums."""


def certify(
    backbone: Backbone,
    reader: StoreReader,
    from_layer: int,
    device: torch.device,
    *,
    token_types: Sequence[str] | None = None,
    arithmetic: Arithmetic | None = None,
) -> dict[str, Any]:
    """Replay a sample unedited from a state and measure its distance from the stored last state.

    `token_types` are those that are wanted in the last state, all by default: what is computed for them alone is
    compared, as a run computes it, and with the arithmetic of the run.

    Returns
    -------
    JSON-ready: `from_layer`, `images` (number in the sample), `relative_error` (of the normalised tokens: root mean
    square of the difference over that of what is stored; before the norm, a few channels of huge values would hide all
    others), `largest_token_error` (the same of the worst single token), `bit_equal` (of the states themselves), `bound`
    of `relative_error`, `dtype` of the cache, `tokens` that were compared, `kernel`, `precision` and `compiled`;
    `batch_size` of the replayed sample and `cache_batch_size` of the extraction, between which products may be summed
    in another order.

    Raises
    ------
    CertificateError
        The error is above the bound of the cache's dtype.
    IncompleteError
        The cache lacks the last state, so that nothing can be certified.
    """
    depth = backbone.depth
    spec = reader.spec
    compared = tuple(token_types or backbone.layout.types)
    for token_type in compared:
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
    wanted = wanted_positions(backbone.layout, compared)
    expected = _stored_tokens(reader, compared, sample)
    how = arithmetic or Arithmetic()
    with torch.inference_mode():
        with how.used(device):
            kernel = kernel_name(device) + how.description
            last = None if wanted is None else wanted.to(device)
            parts: list[torch.Tensor] = []

            def compute(part: slice) -> None:
                parts.append(backbone.run(torch.from_numpy(start[part]).to(device), from_layer, depth, wanted=last))

            Halving(len(sample)).run(len(sample), compute)
            found = torch.cat(parts)
        ordered = sorted(compared, key=lambda name: backbone.layout.slice(name).start)
        found = torch.cat([found[:, backbone.layout.slice(name)] for name in ordered], dim=1)
        stored = torch.from_numpy(expected).to(device)
        # Not every device has float64.
        tokens, stored_tokens = (backbone.normalize(state).cpu().double() for state in (found, stored))
    bound = max(BOUNDS[spec.dtype], ARITHMETIC_BOUNDS[how.precision])
    squares = (tokens - stored_tokens).square().mean(dim=2)
    natural = stored_tokens.square().mean(dim=2)
    relative = float((squares.mean() / natural.mean()).sqrt())
    certificate = {
        "from_layer": from_layer,
        "images": len(sample),
        "relative_error": relative,
        "largest_token_error": float((squares / natural).max().sqrt()),
        "bit_equal": bool(torch.equal(found, stored)),
        "bound": bound,
        "dtype": spec.dtype,
        "tokens": list(compared),
        "kernel": kernel,
        "precision": how.precision,
        "compiled": how.compiled,
        "batch_size": len(sample),
        "cache_batch_size": spec.facts.get("batch_size"),
    }
    if not relative <= bound:
        raise CertificateError(
            f"the unedited replay of {len(sample)} images from state {from_layer} differs from the stored "
            f"state {depth} by {relative:.3g}, above the bound {bound:g} for {spec.dtype}: cache, "
            f"weights and this device ({kernel}) do not belong together, so no edit was replayed; "
            "extract the cache again, or replay on the device it was made on"
        )
    return certificate


def wanted_positions(layout: TokenLayout, token_types: Sequence[str]) -> torch.Tensor | None:
    """Positions in the sequence of the wanted token types, int64 (token,), ascending; None to compute all tokens.

    All are computed where more than half are wanted: little would be saved, and runs of patches stay bit-equal to runs
    of all tokens.
    """
    if 2 * sum(layout.count(name) for name in token_types) > layout.tokens:
        return None
    positions = np.arange(layout.tokens)
    return torch.from_numpy(np.sort(np.concatenate([positions[layout.slice(name)] for name in token_types])))


def _stored_tokens(reader: StoreReader, token_types: Sequence[str], images: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Tokens of the last state, float32 (image, token, channel), in the order of the sequence."""
    layout, depth = reader.spec.layout, reader.spec.layers[-1]
    ordered = sorted(token_types, key=lambda name: layout.slice(name).start)
    return np.concatenate(
        [
            np.concatenate([reader.read_float32(name, depth, int(i), int(i) + 1) for name in ordered], axis=1)
            for i in images
        ]
    )
