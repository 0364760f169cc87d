"""What a run reads: digests of the states and the calibration that its values come from, recorded when it is begun.

A cache may be extended without a run noticing. Values that changed since (a repair on another device, a file put in
by hand) are another matter: then the run is no longer the replay of this cache, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cachetool.edits import Edit
from cachetool.store import StateDigests, StoreSpec


def states_read(edit: Edit, spec: StoreSpec, *, own_calibration: bool) -> dict[str, set[int]]:
    """States of a cache that decide the values of a run, by token type."""
    states = {name: {edit.from_layer} for name in spec.layout.types}
    for name, layers in edit.needed_states(spec.layers[-1], own_calibration=own_calibration).items():
        states[name] |= set(layers)
    return states


def describe_reading(
    edit: Edit, spec: StoreSpec, digests: StateDigests, calibration: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What is recorded with a run.

    Parameters
    ----------
    digests
        Of the cache.
    calibration
        What `Calibrations.describe` gave; None where none plays a part.

    Returns
    -------
    JSON-ready: `images` (how many, from the first), `states` (digest by token type and state), and `calibration`, the
    SHA-256 of the numbers of the calibration that was given; None for the cache's own, which follows from its states.
    """
    content = None if calibration is None else calibration["content_sha256"]
    states = states_read(edit, spec, own_calibration=content is None)
    return {"images": len(spec.images), "states": digests.of(states, len(spec.images)), "calibration": content}
