"""What a study is: the models, data sets, tasks and edits that a TOML file names."""

from __future__ import annotations

from dataclasses import dataclass

SWEEP = "sweep"
"""In place of a list of states: the first, and those after a quarter, half, three quarters and all but one of 12."""

EACH, CUMULATIVE = "registers:each", "registers:cumulative"
"""Targets that stand for several: every register alone; the first two, the first three, ... and all of them."""


@dataclass(frozen=True)
class CalibrationData:
    """The images that means, variances and natural distances come from; none of them may be evaluated."""

    data: str
    """Name of a data set."""
    limit: int | None = None
    """Use the first images only."""


@dataclass(frozen=True)
class StudyModel:
    """A model of the study."""

    name: str
    """Name as `cachetool models` lists it, or `timm:NAME`."""
    weights: str | None = None
    """Weights file, where it is not where it is looked for."""
    image_size: int | None = None
    """Side of the input in pixels; by default the model's. Needs `cache`, where the other size is stored too."""
    batch_size: int | None = None
    """Images per forward pass."""
    cache: str | None = None
    """Name of its caches; by default the model's. Keeps two weights files or image sizes side by side."""

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return self.cache or self.name


@dataclass(frozen=True)
class StudyData:
    """An evaluated data set, with the tasks that are measured on it."""

    evaluate: str
    """Name of the data set."""
    tasks: tuple[str, ...]
    """Names of the tasks."""
    train: str | None = None
    """Data set that heads are fitted on; needed where a task has a head."""
    limit: int | None = None
    """Evaluate the first images only."""
    train_limit: int | None = None
    """Fit heads on the first images only."""
    group_by: str = ""
    """Regular expression whose first group, found in an image id, names the sequence that is resampled as a whole."""
    calibration: CalibrationData | None = None
    """Calibration images of this data set; by default those of the study."""


@dataclass(frozen=True)
class EditGroup:
    """Edits that belong together: every target with every replacement, first state and last state."""

    name: str
    """What the group is called in tables."""
    targets: tuple[str, ...]
    """Targets of `cachetool.Edit`, or `registers:each` or `registers:cumulative`."""
    replacements: tuple[str, ...]
    """Replacements of `cachetool.Edit`."""
    from_layers: tuple[int, ...] | str = (1,)
    """First edited states, or `sweep`; negative ones count from the last state, which is -1."""
    until_layers: tuple[int, ...] | None = None
    """Last edited states, counted likewise; by default the last state of the model."""
    seeds: int = 1
    """Number of seeds, for edits that draw."""
    once: bool = False
    """Edit the first state alone."""
    fresh_per_layer: bool = False
    """Draw donors anew at each state."""
    refit: bool = False
    """Measure with heads that are fitted on edited features too."""


@dataclass(frozen=True)
class Study:
    """A whole study."""

    name: str
    """A file name without ending: results lie in a directory of this name."""
    calibration: CalibrationData
    """Calibration images, disjoint from all that is evaluated."""
    models: tuple[StudyModel, ...]
    """The models."""
    data: tuple[StudyData, ...]
    """The evaluated data sets."""
    edits: tuple[EditGroup, ...]
    """The edits."""
    description: str = ""
    """What is asked, in a few words."""
    resamples: int = 10_000
    """Bootstrap resamples."""
    confidence: float = 0.95
    """Coverage of the intervals."""
    seed: int = 0
    """First seed of the edits, and the seed of the bootstrap."""
