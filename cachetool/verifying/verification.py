"""Verify a cache, run or calibration, and mend it where asked."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from cachetool.environment import resolve_device
from cachetool.errors import CachetoolError, DamagedError, MissingDataError, UnknownNameError
from cachetool.events import Events, Silent
from cachetool.objects import AnyPlace, check_writable
from cachetool.query import store_path
from cachetool.store import Root, StoreWriter
from cachetool.verifying.checking import check_on_disk
from cachetool.verifying.recompute import recompute_sample
from cachetool.verifying.repair_blocks import Means, repair_cache, repair_run
from cachetool.verifying.repair_tables import repair_tables
from cachetool.verifying.report import Part, Problem, Repair, Report

DEFAULT_RECOMPUTE = 4
"""Images that are computed again unless another number is asked for."""


def verify(
    path: AnyPlace | xr.Dataset,
    *,
    repair: bool = False,
    recompute: int | None = None,
    seed: int = 0,
    weights: str | Path | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    events: Events | None = None,
) -> Report:
    """Check done records, sizes and checksums of a store as a whole, and compute a sample of its images again.

    Parameters
    ----------
    path
        A cache, run or calibration, as a path or opened.
    repair
        Make damaged blocks again (of caches from the images, of runs from the cache), and documents and small arrays
        where they follow from something else.
    recompute
        Images to compute again end to end and to compare with what is stored; 0 for none. By default a few, where
        weights, data set and (of a run) cache are on this machine.
    seed
        Seed by which these images are drawn.
    weights
        Weights file, where it has moved since the extraction.
    device, batch_size, workers
        Of what is computed; by default the batch size of the original.

    Returns
    -------
    What was found and done; `sound` says whether nothing is wrong, or not any more.

    Raises
    ------
    MissingDataError
        There is no store, no file `weights`, or `recompute` was asked for and something that it takes is not at hand.
    DamagedError
        The root document cannot be read, so that nothing else can be told.
    """
    if recompute is not None and recompute < 0:
        raise UnknownNameError(f"--recompute {recompute}: expected 0 or more images")
    if not 0 <= seed < 2**128:
        raise UnknownNameError(f"--seed {seed}: expected an integer from 0 to 2**128 - 1, such as 1")
    if device is not None:
        resolve_device(device)
    if weights is not None and not Path(weights).is_file():
        raise MissingDataError(f"no weights file at {weights}; give the path of a .safetensors or .pth file")
    listener = events or Silent()
    place = store_path(path)
    if repair:
        check_writable(place)
    report = Report(place, str(Root(place).about["kind"]), seed=seed)
    check_on_disk(report, listener)
    if repair and report.problems:
        _repair(report, Means(weights, device, batch_size, workers, listener))
    if report.kind != "calibration" and recompute != 0 and report.blocks:
        _recompute(report, recompute, weights, device, listener)
    return report


def _repair(report: Report, means: Means) -> None:
    path, kind = report.path, report.kind
    mended, by_replay = repair_tables(path, kind, report.problems, means.weights)
    report.repairs += mended
    if kind == "calibration":
        if any(problem.part == "calibration" for problem in report.problems):
            report.repairs.append(Repair("numbers", False, "remove the calibration and compute it again"))
        return
    if not report.blocks:  # they could not be looked at before
        if not all(repair.done for repair in mended):
            return
        again = Report(path, kind)
        check_on_disk(again, means.events)
        report.problems += [problem for problem in again.problems if problem not in report.problems]
        report.blocks = again.blocks
    for block in _blocks(report, "flags"):
        StoreWriter(path).restore_flags(block)
        report.repairs.append(Repair(f"block {block}", True, "its flags were written again from its record"))
    blocks = _blocks(report, "block")
    if kind == "cache" and blocks:
        report.repairs += repair_cache(path, blocks, means)
    if kind == "run" and (blocks or by_replay or any(problem.part == "cache" for problem in report.problems)):
        report.repairs += repair_run(path, blocks, by_replay, means)
    _look_again(report, means.events)


def _blocks(report: Report, part: Part) -> list[int]:
    """Blocks that problems of a kind name, ascending."""
    return sorted({one.block for one in report.problems if one.part == part and one.block is not None})


def _look_again(report: Report, events: Events) -> None:
    """Say what is still wrong although it was thought to be mended."""
    refused = {repair.where for repair in report.repairs if not repair.done}
    again = Report(report.path, report.kind)
    check_on_disk(again, events)
    for problem in again.problems:
        if problem.where not in refused and not (problem.part == "cache" and "run" in refused):
            report.repairs.append(Repair(problem.where, False, f"it is still damaged: {problem.text}", problem.images))


def _recompute(
    report: Report, count: int | None, weights: str | Path | None, device: str | None, events: Events
) -> None:
    """Compute a sample again; what cannot be, is an error where it was asked for, and else a note."""
    mended = {repair.where for repair in report.repairs if repair.done}
    skipped = {block for block in _blocks(report, "block") if f"block {block}" not in mended}
    wanted = DEFAULT_RECOMPUTE if count is None else count
    try:
        report.recomputed = recompute_sample(
            report.path, report.kind, wanted, report.seed,
            damaged=skipped, weights=weights, device=device, download=count is not None, events=events,
        )  # fmt: skip
    except DamagedError as error:
        report.problems.append(Problem("cache", "what it was made from", str(error)))
        if report.repairs:
            report.repairs.append(Repair("what it was made from", False, "verify it too"))
    except CachetoolError as error:
        if count is not None:
            raise
        report.notes.append(f"no image was computed again: {error}")
