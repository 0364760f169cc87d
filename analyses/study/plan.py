"""What a study will cost, said before anything runs: images, bytes, blocks, time, and what is there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import humanize

from analyses.study.definition import Study, StudyModel
from analyses.study.needs import passes
from analyses.study.parts import CacheUse, Part, open_request, take_apart
from analyses.study.reuse import count_measurements, finished_calibration, finished_replays, stored_images
from analyses.tasks import parse_task
from cachetool.objects import AnyPlace
from cachetool.plan import plan_extraction

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class CachePlan:
    """What one cache costs."""

    role: str
    """`evaluated`, `train` or `calibration`."""
    dataset: str
    """Its data set."""
    path: str
    """Where it lies or will lie."""
    images: int
    """Images that it has to hold: those asked for, or all that it holds already."""
    images_stored: int
    """How many of them it holds, at all states asked for."""
    states: dict[str, list[int]]
    """States by token type."""
    image_bytes: dict[str, int]
    """Size of one image at one state, by token type, in bytes."""
    disk_bytes: int
    """Size of the activations, stored ones included, in bytes; less than a block of images more may be written."""
    extraction_seconds: float
    """Predicted time of the forward passes that are left."""


@dataclass(frozen=True)
class PartPlan:
    """What one model on one data set costs."""

    part: str
    """Model and data set."""
    tasks: list[str]
    """What is measured."""
    caches: list[CachePlan]
    """Its caches."""
    calibration_there: bool
    """Whether the calibration is computed already."""
    replays: int
    """Edits to replay, seeds and unedited arms included."""
    replays_there: int
    """How many of them are replayed already."""
    refits: int
    """Edits that are replayed on the training cache too."""
    measurements: int
    """Tasks times replays, and for tasks with a head times refits too."""
    measurements_there: int
    """Measurements on disk of replays that are there; whether they still apply is checked when they are read."""
    blocks: int
    """Blocks run over the evaluated images by the replays that are left, refits not included."""
    blocks_of_full_passes: int
    """Blocks that whole forward passes would run instead."""
    run_bytes: int
    """Size of all runs, in bytes."""
    replay_seconds: float
    """Predicted time of the replays that are left, refits included."""
    notes: list[str]
    """What is left out, each with its reason, and caches that hold more images than asked for."""


@dataclass(frozen=True)
class StudyPlan:
    """What a study costs."""

    study: str
    """Its name."""
    parts: tuple[PartPlan, ...]
    """Its parts."""

    @property
    def seconds(self) -> float:
        """Predicted time of forward passes and replays; decoding, fitting heads and measuring come on top."""
        # Parts may share a cache, and one cache may serve as training and calibration images at different states.
        passes = {
            (cache.path, cache.images, str(cache.states)): cache.extraction_seconds
            for part in self.parts
            for cache in part.caches
        }
        return sum(passes.values()) + sum(part.replay_seconds for part in self.parts)

    @property
    def disk_bytes(self) -> int:
        """Size of all caches and runs, in bytes."""
        states: dict[tuple[str, str, int], int] = {}
        for cache in (cache for part in self.parts for cache in part.caches):
            for name, layers in cache.states.items():
                for layer in layers:
                    state = cache.path, name, layer
                    states[state] = max(states.get(state, 0), cache.images * cache.image_bytes[name])
        return sum(states.values()) + sum(part.run_bytes for part in self.parts)

    @property
    def notes(self) -> list[str]:
        """The notes of all parts, with the part that each belongs to."""
        return [f"{part.part}: {note}" for part in self.parts for note in part.notes]

    def to_json(self) -> dict[str, Any]:
        """The plan as one JSON object."""
        parts = [asdict(part) for part in self.parts]
        return {"plan": self.study, "disk_bytes": self.disk_bytes, "seconds": self.seconds, "parts": parts}

    def table(self) -> Table:
        """The plan for people."""
        from rich.table import Table

        table = Table(
            "cache or runs", "there", "states", "size", "left to do",
            title=f"study {self.study}: {humanize.naturalsize(self.disk_bytes)} on disk, about {_time(self.seconds)}",
            caption="Time of forward passes and replays; decoding, fitting heads and measuring come on top.",
        )  # fmt: skip
        for part in self.parts:
            table.add_section()
            table.add_row(f"{part.part}: {', '.join(part.tasks)}")
            for cache in part.caches:
                table.add_row(
                    f"  {cache.role}: {cache.dataset}",
                    f"{cache.images_stored:,} of {cache.images:,} images",
                    "; ".join(f"{name} {_states(layers)}" for name, layers in cache.states.items()),
                    humanize.naturalsize(cache.disk_bytes),
                    f"extract, {_time(cache.extraction_seconds)}" if cache.extraction_seconds else "nothing",
                )
            if any(cache.role == "calibration" for cache in part.caches):
                left = "nothing" if part.calibration_there else "calibrate"
                table.add_row("  means and distances", "yes" if part.calibration_there else "no", "", "", left)
            table.add_row(
                "  runs",
                f"{part.replays_there} of {part.replays} replays",
                f"{part.blocks:,} blocks left; {part.blocks_of_full_passes:,} in full passes",
                humanize.naturalsize(part.run_bytes),
                f"replay, {_time(part.replay_seconds)}" if part.replay_seconds else "nothing",
            )
            table.add_row("  outcomes", f"{part.measurements_there} of {part.measurements} measurements")
        return table


def plan_study(
    study: Study,
    *,
    parts: Sequence[Part] | None = None,
    root: AnyPlace | None = None,
    device: str | None = None,
) -> StudyPlan:
    """Open models and data sets, time one forward pass of each model, and look at what is stored; nothing is written.

    `parts` are those of the study, where it is taken apart already. Raises what `analyses.study.parts.take_apart`
    raises.
    """
    if parts is None:
        parts = take_apart(study, root=root, device=device)
    seconds = {part.model: 0.0 for part in parts}
    for part in parts:
        if not seconds[part.model]:
            seconds[part.model] = _seconds_per_image(part.model, part.data.evaluate, root, device)
    return StudyPlan(study.name, tuple(_plan_part(part, seconds[part.model]) for part in parts))


def _plan_part(part: Part, seconds: float) -> PartPlan:
    roles = {"evaluated": part.evaluated, "train": part.train, "calibration": part.calibration}
    caches = [_plan_cache(role, use, seconds) for role, use in roles.items() if use is not None and use.states]
    edits = [planned.edit for planned in part.edits]
    refit = [planned.edit for planned in part.edits if planned.refit] if part.train else []
    calibration = finished_calibration(part)
    there = finished_replays(part, calibration)
    left = [edit for edit in edits if edit not in there]
    blocks = sum(part.depth - edit.from_layer for edit in left)
    trained = sum(part.depth - edit.from_layer for edit in refit if edit in left)
    trained_images = part.train.images if part.train else 0
    tasks = [parse_task(name) for name in part.tasks]
    fitted = sum(task.fitted for task in tasks)
    return PartPlan(
        part=part.name,
        tasks=list(part.tasks),
        caches=caches,
        calibration_there=calibration is not None,
        replays=len(edits),
        replays_there=len(there),
        refits=len(refit),
        measurements=len(tasks) * len(edits) + fitted * len(refit),
        measurements_there=count_measurements(part, there.values()),
        blocks=blocks,
        blocks_of_full_passes=part.depth * len(left),
        run_bytes=len(edits) * part.evaluated.bytes_of_run(part.tokens),
        replay_seconds=seconds * (blocks * part.evaluated.images + trained * trained_images) / part.depth,
        notes=list(part.notes),
    )


def _plan_cache(role: str, use: CacheUse, seconds: float) -> CachePlan:
    stored = stored_images(use)
    return CachePlan(
        role=role,
        dataset=use.dataset,
        path=str(use.path),
        images=use.images,
        images_stored=stored,
        states={name: list(layers) for name, layers in use.states.items()},
        image_bytes=use.bytes_per_image,
        disk_bytes=use.bytes_on_disk,
        extraction_seconds=(use.images - stored) * seconds * len(passes(use.states)),
    )


def _seconds_per_image(model: StudyModel, dataset: str, root: AnyPlace | None, device: str | None) -> float:
    """Time of one image's forward pass, measured on a batch of noise."""
    request = open_request(model, dataset, root, device)
    # One image at a place where nothing is stored: its whole pass is left to do.
    absent = replace(request, path=request.path.with_name(f"{request.path.name}.absent"))
    return float(plan_extraction(absent, model.batch_size).costs["compute_seconds"])


def _states(layers: list[int]) -> str:
    """States with runs as ranges."""
    if len(layers) > 2 and layers == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]}-{layers[-1]}"
    return ",".join(map(str, layers)) or "none"


def _time(seconds: float) -> str:
    return humanize.precisedelta(max(seconds, 1), minimum_unit="seconds", format="%d")
