"""Which edits the labels of a data set allow: class means and donors by class need to know the classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from analyses.study.edits import PlannedEdit
from cachetool.datasets import Dataset


@dataclass(frozen=True)
class FirstImages:
    """The first images of a data set."""

    dataset: Dataset
    """The data set."""
    images: int
    """How many of its images."""

    @property
    def classes(self) -> dict[int, str]:
        """Name of every class among them, by label; the label itself where classes have no names."""
        names = self.dataset.class_names
        return {
            label: str(label) if names is None or label < 0 else names[label]
            for label in dict.fromkeys(self.labels or ())
        }

    @property
    def labels(self) -> tuple[int, ...] | None:
        """Their labels, -1 where one is unknown."""
        return None if self.dataset.labels is None else tuple(self.dataset.labels[: self.images])


def split_by_labels(
    edits: Iterable[PlannedEdit], evaluated: FirstImages, calibration: FirstImages
) -> tuple[tuple[PlannedEdit, ...], tuple[str, ...]]:
    """The edits that can be carried out on these images, and the others, each with its reason."""
    possible: list[PlannedEdit] = []
    impossible: list[str] = []
    reasons: dict[str, str | None] = {}
    for planned in edits:
        name = planned.edit.replacement
        if name not in reasons:
            reasons[name] = _obstacle(planned, evaluated, calibration)
        if (reason := reasons[name]) is None:
            possible.append(planned)
        else:
            impossible.append(f"{planned.edit.target} {planned.edit.replacement}: {reason}")
    return tuple(possible), tuple(dict.fromkeys(impossible))


def _obstacle(planned: PlannedEdit, evaluated: FirstImages, calibration: FirstImages) -> str | None:
    """Why labels rule a replacement out; None where they do not."""
    needs, labels, name = planned.edit.build().needs, evaluated.labels, evaluated.dataset.name
    if "labels" not in needs:
        return None
    if labels is None:
        return f"{name} has no labels"
    if -1 in labels:
        return f"the class of {labels.count(-1)} images of {name} is unknown"
    if "calibration" in needs:
        return _class_obstacle(evaluated, calibration)
    # `in`, since an interpolation names the replacement that it goes to.
    counts = Counter(labels)
    if "same-class-shuffle" in planned.edit.replacement and (alone := [label for label, n in counts.items() if n == 1]):
        return f"{len(alone)} of the {len(counts)} classes of {name} have a single image, which nobody can donate to"
    if "other-class-shuffle" in planned.edit.replacement and 2 * max(counts.values()) > len(labels):
        return f"more than half of the {len(labels)} images of {name} are of one class, so that donors run out"
    return None


def _class_obstacle(evaluated: FirstImages, calibration: FirstImages) -> str | None:
    """Class means are found by the class index: it has to mean the same class in both data sets."""
    here, there = evaluated.classes, calibration.classes
    where = f"the calibration images of {calibration.dataset.name}"
    if absent := set(here.values()) - set(there.values()):
        return f"{where} lack {len(absent)} of the {len(here)} classes of {evaluated.dataset.name}"
    if differing := [label for label, name in here.items() if there.get(label) != name]:
        return f"{where} count {len(differing)} of the {len(here)} classes of {evaluated.dataset.name} otherwise"
    return None
