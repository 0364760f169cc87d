"""One block of states in storage dtype, filled batch by batch and handed to the writer as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cachetool.errors import OutOfMemoryError, RangeError
from cachetool.extraction.copies import Copies
from cachetool.extraction.halving import ran_out
from cachetool.store import empty_for_reading
from cachetool.tokens import TokenLayout

TORCH_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class BlockBuffer:
    """States of one block of images, per token type: (layer, image[, token], channel) in the storage dtype.

    What is not stored reads as NaN. A buffer can be used again for another block of as many images: memory that is
    new to a process comes from the system page by page, and on CUDA is pinned, which takes longer than filling it.
    """

    def __init__(
        self,
        layout: TokenLayout,
        channels: int,
        layers: Sequence[int],
        token_types: Sequence[str],
        dtype: str,
        images: int,
        device: torch.device | None = None,
    ) -> None:
        """Make room; `device` is where states come from: CUDA copies into pinned memory while it computes on."""
        self._layout = layout
        self._row = {layer: row for row, layer in enumerate(layers)}
        self._dtype = dtype
        device = device or torch.device("cpu")
        self._copies = Copies(device)
        with _memory_for(f"{len(layers)} stored states of {images} images ({dtype})"):
            self._tensors = {
                name: torch.empty(
                    (len(layers), images, layout.count(name), channels),
                    dtype=TORCH_DTYPES[dtype],
                    pin_memory=device.type == "cuda",
                )
                for name in token_types
            }
        self.images = images
        self._stored = np.zeros((len(layers), images), dtype=np.bool_)
        self._peaks: list[tuple[int, torch.Tensor, Sequence[str]]] = []

    def clear(self) -> None:
        """Make room for another block of as many images; arrays that were handed out must not be needed any more."""
        self._stored[:] = False
        self._peaks.clear()

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
            Ids of the images of the batch, for the message of `check`.
        """
        row = self._row.get(layer)
        if row is None:
            return
        stored = [state[:, self._layout.slice(name)] for name in self._tensors]
        # Looked at in `check`: to look here would have a GPU wait for every state.
        peaks = torch.stack([tokens.abs().amax(dim=(1, 2)) for tokens in stored]).amax(dim=0)
        self._peaks.append((layer, peaks, image_ids))
        self._stored[row, images.numpy()] = True
        first, count = int(images[0]), len(images)
        together = int(images[-1]) - first == count - 1
        for tensor, tokens in zip(self._tensors.values(), stored, strict=True):
            if together:
                self._copies.copy(tensor[row, first : first + count], tokens.to(tensor.dtype))
            else:
                tensor[row].index_copy_(0, images, tokens.to(tensor.dtype).cpu())

    def check(self) -> None:
        """Refuse what was stored since the last check, once per batch, if it does not fit.

        Raises
        ------
        RangeError
            A value is not finite or beyond the range of the storage dtype; names layer, image, value and what to do.
        """
        limit = torch.finfo(TORCH_DTYPES[self._dtype]).max
        # All at once, since each answer has a GPU finish what it was given; false for NaN too, as any comparison.
        if self._peaks and not bool((torch.cat([peaks for _, peaks, _ in self._peaks]) <= limit).all()):
            for layer, peaks, image_ids in self._peaks:
                if not bool((peaks <= limit).all()):
                    self._refuse(layer, peaks.cpu(), limit, image_ids)
        self._peaks.clear()

    def erase(self, image: npt.NDArray[np.int64], position: npt.NDArray[np.int64]) -> None:
        """Set tokens to NaN at every layer: they are not there. `image` and `position` in the sequence, (pair,)."""
        self._copies.wait()
        for name, tensor in self._tensors.items():
            places = range(*self._layout.slice(name).indices(self._layout.tokens))
            inside = (position >= places.start) & (position < places.stop)
            tensor[:, torch.from_numpy(image[inside]), torch.from_numpy(position[inside] - places.start)] = torch.nan

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The block as NumPy arrays in the form that the writer takes; bfloat16 as its uint16 bits."""
        self._copies.wait()
        lacking = torch.from_numpy(~self._stored)
        for tensor in self._tensors.values() if lacking.any() else ():
            tensor[lacking] = torch.nan
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


def host_memory(shape: tuple[int, ...], device: torch.device) -> npt.NDArray[np.float32]:
    """Room for states that go to a device, float32, to be used again: pinned where the device is CUDA.

    Raises `OutOfMemoryError`.
    """
    with _memory_for(f"a state of {shape[0]} images (float32 {shape})"):
        if device.type == "cuda":
            pinned: npt.NDArray[np.float32] = torch.empty(shape, dtype=torch.float32, pin_memory=True).numpy()
            return pinned
        return empty_for_reading(shape, np.float32)


@contextmanager
def _memory_for(what: str) -> Iterator[None]:
    """Say for what there is no memory. Raises `OutOfMemoryError`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch's is the second
        if not ran_out(error):
            raise
        raise OutOfMemoryError(
            f"there is no memory for {what}: {error}; free some, then run the same command again: finished blocks are "
            "kept"
        ) from error


def to_device(values: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """A tensor on a device; through pinned memory on CUDA, so that the copy does not wait for what is computed."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
