"""A block in storage dtype: what was stored, and NaN elsewhere, however often the memory is used."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cachetool.errors import OutOfMemoryError, RangeError
from cachetool.extraction.buffers import BlockBuffer
from cachetool.tokens import TokenLayout

LAYOUT = TokenLayout(cls=1, registers=2, rows=2, columns=3)
LAYERS, IMAGES, CHANNELS = (3, 7), 5, 4
SLICES = {"cls": slice(0, 1), "registers": slice(1, 3), "patches": slice(3, 9)}


def states(seed: int) -> np.ndarray:
    """(layer, image, token, channel) float32."""
    return np.random.default_rng(seed).normal(size=(2, IMAGES, 9, CHANNELS)).astype(np.float32)


def store(buffer: BlockBuffer, values: np.ndarray, rows: list[int]) -> None:
    for layer, state in zip(LAYERS, values, strict=True):
        buffer.store(layer, torch.tensor(rows), torch.from_numpy(state[rows]), [f"image {row}" for row in rows])


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [1, 2, 3], [0, 2, 4], [3]])
def test_what_is_not_stored_is_nan_also_when_memory_is_used_again(rows: list[int]) -> None:
    buffer = BlockBuffer(LAYOUT, CHANNELS, LAYERS, tuple(SLICES), "float16", IMAGES)
    for seed, stored in enumerate([[0, 1, 2, 3, 4], rows, [4, 3]]):
        buffer.clear()
        values = states(seed)
        store(buffer, values, sorted(stored))
        buffer.check()
        expected = np.full(values.shape, np.nan, dtype=np.float16)
        expected[:, sorted(stored)] = values[:, sorted(stored)]
        for name, found in buffer.arrays().items():
            wanted = expected[:, :, SLICES[name]]
            np.testing.assert_array_equal(found, wanted[:, :, 0] if name == "cls" else wanted)


def test_a_state_that_was_stored_for_some_images_alone_is_nan_for_the_others() -> None:
    buffer = BlockBuffer(LAYOUT, CHANNELS, LAYERS, ("registers",), "float32", IMAGES)
    values = states(0)
    buffer.store(7, torch.tensor([1, 2]), torch.from_numpy(values[1, [1, 2]]), ["1", "2"])
    found = buffer.arrays()["registers"]
    assert np.isnan(found[0]).all()
    assert np.isnan(found[1][[0, 3, 4]]).all()
    np.testing.assert_array_equal(found[1][[1, 2]], values[1, [1, 2], 1:3])


def test_what_was_refused_is_forgotten_when_memory_is_used_again() -> None:
    buffer = BlockBuffer(LAYOUT, CHANNELS, LAYERS, ("patches",), "float16", IMAGES)
    store(buffer, 1e6 * states(0), [0, 1])
    with pytest.raises(RangeError, match=r"state 3 .*image 0"):
        buffer.check()
    buffer.clear()
    store(buffer, states(1), [0, 1])
    buffer.check()


@pytest.mark.parametrize("value", [np.nan, np.inf, -7e4, 7e4])
def test_of_states_that_are_looked_at_together_the_one_that_does_not_fit_is_named(value: float) -> None:
    buffer = BlockBuffer(LAYOUT, CHANNELS, LAYERS, tuple(SLICES), "float16", IMAGES)
    values = states(0)
    values[1, 2, 5, 1] = value
    store(buffer, values, [0, 1, 2])
    with pytest.raises(RangeError, match=r"state 7 has values .* in 1 images of a batch: image 2 "):
        buffer.check()


@pytest.mark.parametrize("error", [MemoryError("unable to allocate"), RuntimeError("CUDA error: out of memory")])
def test_stored_states_for_which_there_is_no_memory_are_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def none(*_: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(torch, "empty", none)
    with pytest.raises(OutOfMemoryError, match=r"no memory for 2 stored states of 5 images \(float16\): .*free some"):
        BlockBuffer(LAYOUT, CHANNELS, LAYERS, tuple(SLICES), "float16", IMAGES)


def test_other_errors_of_a_device_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **_options: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch, "empty", none)
    with pytest.raises(RuntimeError, match="device-side assert") as raised:
        BlockBuffer(LAYOUT, CHANNELS, LAYERS, tuple(SLICES), "float16", IMAGES)
    assert not isinstance(raised.value, OutOfMemoryError)
