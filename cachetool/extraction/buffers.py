"""One block of states in storage dtype, filled batch by batch and handed to the writer as it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from cachetool.errors import RangeError
from cachetool.tokens import TokenLayout

TORCH_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class BlockBuffer:
    """States of one block of images, per token type: (layer, image[, token], channel) in the storage dtype."""

    def __init__(
        self,
        layout: TokenLayout,
        channels: int,
        layers: Sequence[int],
        token_types: Sequence[str],
        dtype: str,
        images: int,
    ) -> None:
        self._layout = layout
        self._row = {layer: row for row, layer in enumerate(layers)}
        self._dtype = dtype
        self._tensors = {
            name: torch.full((len(layers), images, layout.count(name), channels), torch.nan, dtype=TORCH_DTYPES[dtype])
            for name in token_types
        }

    @property
    def image_bytes(self) -> int:
        """Bytes of one image in the block, all its layers and token types."""
        return sum(tensor[:, 0].numel() * tensor.element_size() for tensor in self._tensors.values())

    def store(self, layer: int, images: torch.Tensor, state: torch.Tensor, image_ids: Sequence[str]) -> None:
        """Round one state of a batch into the block.

        Parameters
        ----------
        layer
            Number of the state; one that the buffer does not hold is ignored.
        images
            (image,) int64, rows of the block.
        state
            (image, token, channel) float32, any device.
        image_ids
            Ids of the images of the batch, for the message.

        Raises
        ------
        RangeError
            A value is not finite or beyond the range of the storage dtype; names layer, image, value and what to do.
        """
        row = self._row.get(layer)
        if row is None:
            return
        limit = torch.finfo(TORCH_DTYPES[self._dtype]).max
        stored = [state[:, self._layout.slice(name)] for name in self._tensors]
        peaks = torch.stack([tokens.abs().amax(dim=(1, 2)) for tokens in stored]).amax(dim=0)
        if not bool((peaks <= limit).all()):  # also true for NaN, which no comparison holds for
            self._refuse(layer, peaks.cpu(), limit, image_ids)
        for tensor, tokens in zip(self._tensors.values(), stored, strict=True):
            tensor[row].index_copy_(0, images, tokens.to(tensor.dtype).cpu())

    def erase(self, image: npt.NDArray[np.int64], position: npt.NDArray[np.int64]) -> None:
        """Set tokens to NaN at every layer: they are not there. `image` and `position` in the sequence, (pair,)."""
        for name, tensor in self._tensors.items():
            places = range(*self._layout.slice(name).indices(self._layout.tokens))
            inside = (position >= places.start) & (position < places.stop)
            tensor[:, torch.from_numpy(image[inside]), torch.from_numpy(position[inside] - places.start)] = torch.nan

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The block as NumPy arrays in the form that the writer takes; bfloat16 as its uint16 bits."""
        result: dict[str, npt.NDArray[np.generic]] = {}
        for name, tensor in self._tensors.items():
            array = (tensor.view(torch.uint16) if self._dtype == "bfloat16" else tensor).numpy()
            result[name] = array[:, :, 0] if name == "cls" else array
        return result

    def _refuse(self, layer: int, peaks: torch.Tensor, limit: float, image_ids: Sequence[str]) -> None:
        bad = [
            f"{image_id} ({peak:.6g})"
            for image_id, peak in zip(image_ids, peaks.tolist(), strict=True)
            if not peak <= limit
        ]
        shown = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        advice = "choose --dtype bfloat16 or float32" if self._dtype == "float16" else "look at the weights"
        raise RangeError(
            f"state {layer} has values beyond the range of {self._dtype} (largest magnitude {limit:.6g}) "
            f"in {len(bad)} images of a batch: {shown}; {advice}"
        )
