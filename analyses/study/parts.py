"""A study taken apart: each model on each data set, with its caches, their states, and its edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cachetool
from analyses.evaluation.evaluate import sequences
from analyses.study.definition import Study, StudyData, StudyModel
from analyses.study.edits import Expansion, PlannedEdit, expand
from analyses.study.labels import FirstImages, split_by_labels
from analyses.study.measurable import task_obstacle
from analyses.study.needs import States, calibration_states, replay_states, training_states
from analyses.tasks import parse_task
from analyses.tasks.base import Task
from cachetool.datasets import Dataset
from cachetool.edits import parse_replacement
from cachetool.errors import CachetoolError, MissingDataError
from cachetool.extraction import Request, prepare
from cachetool.objects import AnyPlace, Place
from cachetool.store import differences
from cachetool.tokens import TokenLayout


@dataclass(frozen=True)
class CacheUse:
    """A cache that the study makes or finds, and what it has to hold."""

    model: StudyModel
    """The model."""
    dataset: str
    """The data set."""
    asked: int
    """Images that the study asks for, counted from the first."""
    images: int
    """Images that it has to hold: those asked for; of evaluated and training images all that it holds already, as
    replays and heads use all of them."""
    path: Place
    """Where it lies or will lie."""
    states: States
    """States to store."""
    layout: TokenLayout
    """Tokens of an image."""
    channels: int
    """Width of the residual stream."""

    @property
    def bytes_on_disk(self) -> int:
        """Size of its activations in float16, in bytes; chunks are rounded up beyond that."""
        return sum(self.images * self.bytes_per_image[name] * len(layers) for name, layers in self.states.items())

    @property
    def bytes_per_image(self) -> dict[str, int]:
        """Size of one image at one state in float16, by token type, in bytes."""
        return {name: 2 * self.layout.count(name) * self.channels for name in self.layout.types}

    def bytes_of_run(self, tokens: tuple[str, ...]) -> int:
        """Size of the last state of these token types, in bytes."""
        return sum(self.images * self.bytes_per_image[name] for name in tokens)


@dataclass(frozen=True)
class Part:
    """One model on one data set."""

    model: StudyModel
    """The model."""
    data: StudyData
    """The data set."""
    tasks: tuple[str, ...]
    """Those of its tasks that can be measured."""
    depth: int
    """Blocks of the model."""
    evaluated: CacheUse
    """The cache that is edited and measured."""
    train: CacheUse | None
    """The cache that heads are fitted on."""
    calibration: CacheUse
    """The cache that means, variances and natural distances come from."""
    tokens: tuple[str, ...]
    """Token types of the last state that the tasks read: those that runs keep."""
    edits: tuple[PlannedEdit, ...]
    """The edits, the unedited arms first."""
    notes: tuple[str, ...]
    """Edits and tasks of the study that are left out here, each with its reason, and caches that hold more images."""

    @property
    def name(self) -> str:
        """The part in words."""
        return f"{self.model.label} on {self.data.evaluate}"


def take_apart(study: Study, *, root: AnyPlace | None = None, device: str | None = None) -> list[Part]:
    """Open every model and data set of a study once and settle what is stored and replayed; nothing is written.

    Raises
    ------
    MissingDataError
        Weights or images are not at hand, or a data set allows none of its tasks; the text names all of them.
    InvalidEditError
        States that a model lacks.
    """
    opener = _Opener(root, device)
    for model in study.models:
        for data in study.data:
            for name in (data.evaluate, data.train, (data.calibration or study.calibration).data):
                if name is not None:
                    opener.look_for(model, name)
    if opener.missing:
        raise MissingDataError("\n".join(dict.fromkeys(opener.missing)))
    parts = [_part(study, model, data, opener) for model in study.models for data in study.data]
    if idle := [f"{part.name}: {note}" for part in parts if not part.tasks for note in part.notes]:
        listing = "\n".join(f"  {line}" for line in idle)
        raise MissingDataError(f"nothing can be measured on these, so leave them out of the study:\n{listing}")
    return parts


def _part(study: Study, model: StudyModel, data: StudyData, opener: _Opener) -> Part:
    evaluated, calibration = opener.open(model, data.evaluate), data.calibration or study.calibration
    calibrated = opener.open(model, calibration.data)
    trained = None if data.train is None else opener.open(model, data.train)
    tasks, unmeasurable = _split_tasks(data, evaluated, trained)
    expansion: Expansion = expand(study.edits, evaluated.layout, evaluated.depth, study.seed)
    edits, unlabelled = split_by_labels(
        expansion.edits,
        evaluated.first(evaluated.images(data.limit)),
        calibrated.first(calibrated.asked(calibration.limit)),
    )
    _check_early(data, edits, evaluated.dataset.image_ids[: evaluated.images(data.limit)])
    tokens = tuple(name for name in evaluated.layout.types if any(name in task.tokens for task in tasks))
    fitted = tuple(name for name in tokens if any(name in task.tokens for task in tasks if task.fitted))
    plain, depth = [planned.edit for planned in edits], evaluated.depth
    train = None
    if data.train is not None and trained is not None and fitted:
        refit = [planned.edit for planned in edits if planned.refit]
        states = training_states(refit, fitted, evaluated.layout, depth)
        train = trained.use(model, data.train, data.train_limit, states)
    use = evaluated.use(model, data.evaluate, data.limit, replay_states(plain, evaluated.layout, depth))
    return Part(
        model=model,
        data=data,
        tasks=tuple(task.name for task in tasks),
        depth=depth,
        evaluated=use,
        train=train,
        calibration=calibrated.use(
            model, calibration.data, calibration.limit, calibration_states(plain, depth), whole=False
        ),
        tokens=tokens,
        edits=edits,
        notes=tuple(dict.fromkeys((*unmeasurable, *expansion.skipped, *unlabelled, *_grown(use, train)))),
    )


def _check_early(data: StudyData, edits: Sequence[PlannedEdit], image_ids: Sequence[str]) -> None:
    """Refuse what would stop the study after hours: files, donors and sequences that are not there."""
    problems: list[str] = []
    for name in dict.fromkeys(planned.edit.replacement for planned in edits):
        try:
            parse_replacement(name).check_early(image_ids)
        except CachetoolError as error:
            problems.append(str(error))
    try:
        sequences(image_ids, data.group_by or None)
    except CachetoolError as error:
        problems.append(str(error))
    if problems:
        raise MissingDataError(f"{data.evaluate}:\n" + "\n".join(f"  {problem}" for problem in problems))


def _split_tasks(data: StudyData, evaluated: _Opened, train: _Opened | None) -> tuple[list[Task], list[str]]:
    """The tasks that can be measured, and the others, each with its reason."""
    possible, impossible = [], []
    training = None if train is None else train.first(train.images(data.train_limit))
    for task in map(parse_task, data.tasks):
        reason = task_obstacle(task, evaluated.first(evaluated.images(data.limit)), training, evaluated.layout)
        if reason is None:
            possible.append(task)
        else:
            impossible.append(f"{task.name}: {reason}")
    return possible, impossible


def _grown(*uses: CacheUse | None) -> list[str]:
    """Caches that hold more images than the study asks for."""
    return [
        f"the cache of {use.dataset} holds {use.images} images, more than the {use.asked} asked for, and all are used; "
        "name another --root to keep them apart"
        for use in uses
        if use is not None and use.images > use.asked
    ]


@dataclass(frozen=True)
class _Opened:
    """What is kept of a model on a data set: the model itself would fill the memory."""

    dataset: Dataset
    layout: TokenLayout
    depth: int
    channels: int
    path: Place

    held: int
    """Images of the cache that is there; 0 where there is none."""

    def asked(self, limit: int | None) -> int:
        """Images there are up to a limit."""
        return len(self.dataset) if limit is None else min(limit, len(self.dataset))

    def images(self, limit: int | None) -> int:
        """Images of the cache once all up to a limit are stored."""
        return max(self.asked(limit), self.held)

    def first(self, images: int) -> FirstImages:
        """The first images of the data set."""
        return FirstImages(self.dataset, images)

    def use(
        self, model: StudyModel, dataset: str, limit: int | None, states: States, *, whole: bool = True
    ) -> CacheUse:
        """The cache with the states that it has to hold, for all its images or (`whole=False`) those asked for."""
        asked = self.asked(limit)
        images = self.images(limit) if whole else asked
        return CacheUse(model, dataset, asked, images, self.path, states, self.layout, self.channels)


class _Opener:
    """Opens each model on each data set once, and collects what is missing."""

    def __init__(self, root: AnyPlace | None, device: str | None) -> None:
        self._root, self._device = root, device
        self._opened: dict[tuple[StudyModel, str], _Opened] = {}
        self.missing: list[str] = []

    def look_for(self, model: StudyModel, dataset: str) -> None:
        """Open, or note that something is missing."""
        try:
            self.open(model, dataset)
        except MissingDataError as error:
            self.missing += str(error).split("\n")

    def _compare_key(self, model: StudyModel, request: Request) -> None:
        """Note a cache that was made of other weights, images or at another size: it would stop the study later."""
        if not (request.path / "zarr.json").is_file():
            return
        held = cachetool.open(request.path).attrs["key"]
        if different := differences(request.spec.key, held):
            listing = "\n".join(f"  {line}" for line in different)
            self.missing.append(
                f"{request.path} holds another cache than needed (here = asked for now, there = on disk):\n"
                f"{listing}\nname another place with `cache` in its [[models]] table, or another --root"
            )

    def open(self, model: StudyModel, dataset: str) -> _Opened:
        """Look at one image only: hashing all of them can wait until they are extracted."""
        if (model, dataset) not in self._opened:
            request = open_request(model, dataset, self._root, self._device)
            backbone = request.backbone
            self._compare_key(model, request)
            self._opened[model, dataset] = _Opened(
                request.dataset,
                backbone.layout,
                backbone.depth,
                backbone.channels,
                request.path,
                _images_held(request.path),
            )
        return self._opened[model, dataset]


def _images_held(path: Place) -> int:
    return cachetool.open(path).sizes["image"] if (path / "zarr.json").is_file() else 0


def open_request(model: StudyModel, dataset: str, root: AnyPlace | None, device: str | None) -> Request:
    """A model and the first image of a data set, ready to be extracted. Raises what `prepare` raises."""
    return prepare(
        model.name,
        dataset,
        root=root,
        name=model.cache,
        image_size=model.image_size,
        limit=1,
        weights=model.weights,
        device=device,
    )
