"""The part of prepared edits that concerns a batch, on the device that computes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from cachetool.edits import Selection
from cachetool.edits.apply import Places
from cachetool.extraction.buffers import to_device
from cachetool.replaying.arm import PreparedEdit


@dataclass(frozen=True)
class BatchEdit:
    """An edit of the images of a batch, which are numbered from 0 on."""

    selection: Selection
    """The selected tokens."""
    where: Places
    """Their image and position in the sequence, int64, each (pair,), on the device."""
    values: dict[int, torch.Tensor]
    """What is put in or added, by state, float32 (pair, channel), on the device."""


def batch_edit(edit: PreparedEdit, rows: npt.NDArray[np.int64], device: torch.device) -> BatchEdit:
    """The part of a block's edit that concerns some of its images, `rows` (image,), moved to a device.

    On CUDA nothing waits for it, nor does it for what is computed: moved where they are put in, values had the device
    finish all that was begun, at each state of each edit.
    """
    mine = edit if len(rows) == edit.selection.images else _of_rows(edit, rows)
    selection = mine.selection
    # Values may be one row, seen many times.
    owned = {layer: np.require(values, requirements=["C", "W"]) for layer, values in mine.values.items()}
    return BatchEdit(
        selection,
        (to_device(selection.image, device), to_device(selection.position, device)),
        {layer: to_device(values, device) for layer, values in owned.items()},
    )


def _of_rows(edit: PreparedEdit, rows: npt.NDArray[np.int64]) -> PreparedEdit:
    selection = edit.selection
    pairs = np.flatnonzero(np.isin(selection.image, rows))
    image = np.searchsorted(rows, selection.image[pairs])
    return PreparedEdit(
        Selection(selection.token_type, image, selection.position[pairs], selection.token[pairs], len(rows)),
        {layer: found[pairs] for layer, found in edit.values.items()},
    )
