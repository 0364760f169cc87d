"""Checks of what lies on disk, without computing anything: bytes, flags, documents, and a run against its cache."""

from __future__ import annotations

from functools import partial

import numpy as np

from cachetool import places
from cachetool.edits import Calibration
from cachetool.edits.calibration_store import CONTENT
from cachetool.errors import CachetoolError, DamagedError
from cachetool.events import Events
from cachetool.images import image_digest
from cachetool.objects import Place, place
from cachetool.query import changed_since
from cachetool.store import (
    OpenedStore,
    StateDigests,
    StoreReader,
    check_block,
    check_flags,
    check_tables,
    key_digest,
)
from cachetool.verifying.report import Problem, Report
from cachetool.verifying.settled import LOOKS, settled

OPENING = {"layer", "image_id", "content_sha256", "label", "class_name", "norm_weight", "norm_bias"}
"""Small arrays without which a store cannot be opened."""


def check_on_disk(report: Report, events: Events) -> None:
    """Add to a report whatever is wrong with the bytes of a store. Raises `StoreError` where there is none."""
    path = report.path
    report.problems += table_problems(path)
    if report.kind == "calibration":
        report.problems += _calibration_problems(path)
        return
    if any(problem.part == "table" and problem.where in OPENING for problem in report.problems):
        report.notes.append("blocks were not looked at: the store cannot be opened without these arrays")
        return
    reader, opened = StoreReader(path), OpenedStore(path)
    geometry = opened.geometry
    events.start("verify", geometry.images)
    for block in range(geometry.blocks):
        images = geometry.block_range(block)
        span = (images.start, images.stop - 1)
        problems = settled(opened, block, partial(_block_problems, block, span))
        if problems is None:
            report.notes.append(f"block {block} was written again each of the {LOOKS} times it was looked at")
        report.problems += problems or []
        events.advance(len(images))
    report.blocks = geometry.blocks
    if report.kind == "run":
        _check_run(report, reader)


def _block_problems(block: int, span: tuple[int, int], store: OpenedStore | Place) -> list[Problem]:
    """What is wrong with a block and its flags."""
    where = f"block {block}"
    return [
        *(Problem("block", where, text, block, span) for text in check_block(store, block)),
        *(Problem("flags", where, text, block, span) for text in check_flags(store, block)),
    ]


def table_problems(path: Place) -> list[Problem]:
    """What is wrong with documents and small arrays."""
    return [
        Problem("document" if text.startswith(f"{name}/zarr.json:") else "table", name, text)
        for name, texts in check_tables(path).items()
        for text in texts
    ]


def _calibration_problems(path: Place) -> list[Problem]:
    """Whether the numbers of a calibration are those that it was written with."""
    try:
        calibration = Calibration.read(path)
        recorded, found = calibration.facts.get(CONTENT), calibration.recompute_content()
    except CachetoolError as error:
        return [Problem("calibration", "numbers", str(error))]
    if recorded is not None and recorded != found:
        text = f"their SHA-256 was {recorded[:12]}... when they were written, and is {found[:12]}... now"
        return [Problem("calibration", "numbers", text)]
    return []


def _check_run(report: Report, reader: StoreReader) -> None:
    """A finished run against itself, the cache that it lies beside, and the calibration that it names."""
    path, spec = report.path, reader.spec
    if spec.facts.get("finished"):
        report.problems += _unfinished(report, reader)
    else:
        report.notes.append("the run is not finished; the same replay again goes on with it")
    if spec.key["images"] != image_digest(spec.images):
        text = "ids and content hashes of its images are not those of its key"
        report.problems.append(Problem("table", "content_sha256", text))
    cache = places.cache_of_run(path)
    if not (cache / "zarr.json").is_file():
        report.notes.append(f"its cache {cache} is gone: the run cannot be compared with it, nor replayed again")
        return
    try:
        report.problems += cache_problems(path, cache)
    except DamagedError as error:
        report.problems.append(Problem("cache", cache.name, str(error)))
    described = spec.facts.get("calibration") or {}
    if described.get(CONTENT) is not None:
        report.problems += _given_calibration(place(described["path"]), described[CONTENT], report.notes)


def _unfinished(report: Report, reader: StoreReader) -> list[Problem]:
    """Blocks that a finished run lacks."""
    if any(problem.part == "block" for problem in report.problems):  # a record that cannot be read says nothing
        return []
    spec = reader.spec
    rows = [spec.layout.types.index(name) for name in spec.token_types]
    lacking = np.flatnonzero(~reader.complete[:, rows].all(axis=(1, 2))).tolist()
    text = "it is not finished, though the run is recorded as finished"
    spans = [(block, spec.geometry.block_range(block)) for block in lacking]
    return [Problem("block", f"block {block}", text, block, (span.start, span.stop - 1)) for block, span in spans]


def cache_problems(run: Place, cache: Place) -> list[Problem]:
    """Whether the cache beside a run is the one, with the values, that the run was made from."""
    spec = StoreReader(run).spec
    if spec.key["cache"] != key_digest(StoreReader(cache).spec.key):
        return [Problem("cache", cache.name, "the run was made from a cache of another key than the one beside it")]
    changed = changed_since(spec.facts, StateDigests(cache))
    if not changed:
        return []
    text = f"values that the run was made from have changed since: {', '.join(changed)}"
    return [Problem("cache", cache.name, text)]


def _given_calibration(path: Place, recorded: str, notes: list[str]) -> list[Problem]:
    if not (path / "zarr.json").is_file():
        notes.append(f"its calibration {path} is not there any more")
        return []
    found = Calibration.read(path).content_sha256
    if found == recorded:
        return []
    return [Problem("cache", path.name, "the calibration that the run was made with holds other numbers now")]
