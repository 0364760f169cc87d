"""`norm-matched`: a random direction with the token's own norm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cachetool.edits.base import Replacement
from cachetool.edits.edit import Edit
from cachetool.edits.selection import Selection
from cachetool.edits.sources import Sources
from cachetool.randomness import normals


class NormMatched(Replacement):
    """Puts in a direction drawn uniformly from the sphere, scaled to the norm of the intact token at that state.

    The direction of a token is the same at every state, unless `fresh_per_layer` asks for one each.
    """

    name = "norm-matched"
    description = "a random direction (one per image and token) with the norm of the intact token at that layer"
    usage = "norm-matched"
    needs = frozenset({"stored-states"})
    random = True
    varies = True

    def values(
        self, sources: Sources, edit: Edit, layer: int, images: NDArray[np.int64], selection: Selection
    ) -> NDArray[np.float32]:
        """Scaled directions, float32 (pair, channel)."""
        token_type = selection.token_type
        image_ids = [sources.images.image_id[image] for image in images]
        drawn_for_layer = layer if edit.fresh_per_layer else None
        purpose = f"norm-matched/{token_type}"
        direction = normals(edit.seed, image_ids, drawn_for_layer, selection.token, sources.channels, purpose)
        intact = sources.tokens(layer, token_type, images, selection.token)
        norms = np.sqrt(np.einsum("pc,pc->p", intact, intact, dtype=np.float64))
        lengths = np.sqrt(np.einsum("pc,pc->p", direction, direction, dtype=np.float64))
        direction *= (norms / lengths).astype(np.float32)[:, None]
        return direction
