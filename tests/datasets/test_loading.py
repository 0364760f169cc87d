from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from multiprocessing.connection import Connection
from multiprocessing.resource_sharer import DupFd
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import torch

from cachetool.datasets import Batch, Transform, hash_images, load_batches, loading, open_dataset
from cachetool.datasets.imagefolder import ImageFolder
from cachetool.errors import CachetoolError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from PIL import Image

    from cachetool.datasets import Dataset

TRANSFORM = Transform(16, "center", 0.875, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
BATCHES = [range(4), [4, 5, 6], [11, 0, 7], [9]]


@pytest.fixture
def dataset(tmp_path: Path, write_image: Callable[..., Path]) -> Dataset:
    for number in range(12):
        write_image(tmp_path / f"{number:02d}.jpg", 30 + number, 25, seed=number)
    return open_dataset(f"imagefolder:{tmp_path}")


def load(dataset: Dataset, workers: int = 0) -> list[Batch]:
    return list(load_batches(dataset, TRANSFORM, iter(BATCHES), sha256=hash_images(dataset), workers=workers))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order_with_the_pixels_of_the_transform(dataset: Dataset, workers: int) -> None:
    batches = load(dataset, workers)
    assert [batch.indices for batch in batches] == [tuple(indices) for indices in BATCHES]
    for batch in batches:
        assert batch.images.dtype == torch.float32
        assert batch.failures == {}
        expected = np.stack([TRANSFORM.apply(dataset.decode(index)) for index in batch.indices])
        assert np.array_equal(batch.images.numpy(), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_undecodable_images_are_reported_and_become_nan(dataset: Dataset, tmp_path: Path, workers: int) -> None:
    whole = (tmp_path / "05.jpg").read_bytes()
    (tmp_path / "05.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "07.jpg").write_bytes(b"")
    batches = load(dataset, workers)
    assert [sorted(batch.failures) for batch in batches] == [[], [5], [7], []]
    assert str(tmp_path / "05.jpg") in batches[1].failures[5]
    assert str(tmp_path / "07.jpg") in batches[2].failures[7]
    assert torch.isnan(batches[1].images).all(dim=(1, 2, 3)).tolist() == [False, True, False]
    assert not torch.isnan(batches[1].images[[0, 2]]).any()


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_changed_or_vanished_stop_the_work(dataset: Dataset, tmp_path: Path, workers: int) -> None:
    sha256 = hash_images(dataset)
    (tmp_path / "01.jpg").write_bytes((tmp_path / "02.jpg").read_bytes())
    (tmp_path / "03.jpg").unlink()
    with pytest.raises(DatasetError, match=r"(?s)changed since.*01\.jpg: SHA-256 .*03\.jpg: No such file"):
        list(load_batches(dataset, TRANSFORM, BATCHES, sha256=sha256, workers=workers))


class Deadly(ImageFolder):
    """Kills the process that decodes its fifth image, as the system does when memory runs out."""

    def decode_bytes(self, data: bytes, index: int) -> Image.Image:
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decode_bytes(data, index)


def test_a_killed_worker_is_an_error_with_advice(dataset: Dataset, tmp_path: Path) -> None:
    deadly = Deadly("deadly", tmp_path)
    with pytest.raises(CachetoolError, match=r"decodes images of deadly died .*use fewer workers \(2 now\)"):
        list(load_batches(deadly, TRANSFORM, BATCHES, sha256=hash_images(deadly), workers=2))


def test_a_lack_of_shared_memory_is_an_error_with_advice(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)  # the workers are forked and inherit it
    with pytest.raises(CachetoolError, match=r"No space left on device \(28\)\)\. .*smaller batches"):
        load(dataset, workers=1)


class Defective(ImageFolder):
    """Fails as a defect of the program would."""

    def decode_bytes(self, data: bytes, index: int) -> Image.Image:
        raise RuntimeError("a defect")


def test_defects_are_not_taken_for_bad_images(tmp_path: Path, dataset: Dataset) -> None:
    defective = Defective("defective", tmp_path)
    for workers in (0, 1):
        with pytest.raises(RuntimeError, match="a defect"):
            list(load_batches(defective, TRANSFORM, BATCHES, sha256=hash_images(defective), workers=workers))


def test_stopping_early_leaves_no_process_behind(dataset: Dataset) -> None:
    before = set(multiprocessing.active_children())
    batches = load_batches(dataset, TRANSFORM, BATCHES, sha256=hash_images(dataset), workers=2)
    next(batches)
    assert len(set(multiprocessing.active_children()) - before) == 2
    batches.close()  # type: ignore[attr-defined]
    assert set(multiprocessing.active_children()) <= before


def test_the_users_random_numbers_stay_untouched(dataset: Dataset) -> None:
    state = torch.get_rng_state()
    load(dataset)
    load(dataset, workers=1)
    assert torch.equal(torch.get_rng_state(), state)


def hand_over(parent: Connection) -> None:
    """What a worker does to hand over shared memory, and an error of a thread that is none of a hand-over."""
    loading._settle_in(0)
    reading, _writing = os.pipe()
    parent.send(DupFd(reading))
    parent.recv()
    threading.excepthook = lambda hooked: sys.excepthook(hooked.exc_type, hooked.exc_value, hooked.exc_traceback)
    failing = threading.Thread(target=int, args=("no number",))
    failing.start()
    failing.join()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the address is not that of a socket's file")
def test_a_hand_over_that_breaks_off_is_not_reported(capfd: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    worker = context.Process(target=hand_over, args=(there,))
    worker.start()
    shared = here.recv()
    with socket.socket(socket.AF_UNIX) as interrupted:
        interrupted.connect(shared._id[0])
    os.close(shared.detach())  # they are served one after another
    here.send(None)
    worker.join(60)
    reported = capfd.readouterr().err
    assert "no number" in reported
    assert "resource_sharer" not in reported


def test_no_batches_give_nothing(dataset: Dataset) -> None:
    assert list(load_batches(dataset, TRANSFORM, [], sha256=(), workers=1)) == []


def test_an_open_hdf5_file_survives_worker_processes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 24, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file.create_dataset("images", data=pixels, chunks=(1, 20, 24, 3), compression="gzip")
    dataset = open_dataset(f"hdf5:{tmp_path / 'set.h5'}")
    for serial, parallel in zip(load(dataset), load(dataset, workers=3), strict=True):
        assert torch.equal(serial.images, parallel.images)
    assert dataset.decode(0).size == (24, 20)


def test_elongated_images_are_failures(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "x.png", 1, 30000)
    dataset = open_dataset(f"imagefolder:{tmp_path}")
    transform = Transform(224, "center", 0.875, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    [batch] = load_batches(dataset, transform, [[0]], sha256=hash_images(dataset))
    assert "x.png is too elongated" in batch.failures[0]


def test_real_photographs(shared: Path) -> None:
    dataset = open_dataset(f"imagefolder:{shared / 'data' / 'caltech101_subset'}#val")
    sha256 = hash_images(dataset, 60)
    batches = [range(start, start + 20) for start in (0, 20, 40)]
    found = list(load_batches(dataset, TRANSFORM, batches, sha256=sha256, workers=2))
    assert all(torch.isfinite(batch.images).all() and not batch.failures for batch in found)


class Meeting(ImageFolder):
    """Decodes an image only while another thread decodes one too."""

    barrier: threading.Barrier

    def decode_bytes(self, data: bytes, index: int) -> Image.Image:
        self.barrier.wait(timeout=60)
        return super().decode_bytes(data, index)


def test_threads_of_this_process_decode_a_batch_together(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachetool.datasets.loading.processors_for_decoding", lambda: 2)
    meeting = Meeting("meeting", tmp_path)
    meeting.barrier = threading.Barrier(2)
    batches = [range(4), range(4, 10)]
    found = list(load_batches(meeting, TRANSFORM, batches, sha256=hash_images(meeting)))
    assert [batch.indices for batch in found] == [tuple(indices) for indices in batches]
    for batch in found:
        expected = np.stack([TRANSFORM.apply(dataset.decode(index)) for index in batch.indices])
        assert np.array_equal(batch.images.numpy(), expected)
