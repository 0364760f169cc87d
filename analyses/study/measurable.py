"""Which tasks a data set and a model allow, known before anything is extracted."""

from __future__ import annotations

from analyses.study.labels import FirstImages
from analyses.tasks.base import Task
from analyses.tasks.classification import Classification
from analyses.tasks.correspondence import Correspondence
from analyses.tasks.head import OwnHead
from analyses.tasks.readouts import Readout
from analyses.tasks.retrieval import Retrieval
from analyses.tasks.segmentation import Segmentation
from cachetool.tokens import TokenLayout


def task_obstacle(task: Task, evaluated: FirstImages, train: FirstImages | None, layout: TokenLayout) -> str | None:
    """Why a task cannot be measured: annotations that a data set lacks, or tokens that the model lacks.

    None where nothing speaks against it so far. `Task.obstacle` looks again at the cache, where it knows more.
    """
    absent = [name for name in task.tokens if name not in layout.types]
    if absent:
        return f"the model has no {', '.join(absent)}, but {', '.join(layout.types)}"
    readout = Readout.parse(task.settings["readout"]) if "readout" in task.settings else None
    if readout is not None and (readout.register or 0) >= max(layout.registers, 1):
        return f"the model has {layout.registers} registers, numbered from 0: there is no register {readout.register}"
    sets = [evaluated, *([train] if task.fitted and train is not None else [])]
    return next((reason for images in sets if (reason := _lacking(task, images)) is not None), None)


def _lacking(task: Task, images: FirstImages) -> str | None:
    dataset = images.dataset
    match task:
        case Classification() | Retrieval() | OwnHead() if dataset.labels is None:
            return f"{dataset.name} has no class labels"
        case Segmentation() if not dataset.has_masks:
            return f"{dataset.name} has no masks"
        case Correspondence() if not any(max(pair.source, pair.target) < images.images for pair in dataset.pairs):
            return f"{dataset.name} has no keypoint pairs between its first {images.images} images"
        case _:
            return None
