"""G2: retrieval of images of the same class among the other images of the same arm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from analyses.tasks.base import Metric, Task
from analyses.tasks.nearest import RESOLUTION, nearest_neighbours, vote
from analyses.tasks.readouts import Readout, readable_features
from analyses.tasks.shares import image_outcomes, share
from cachetool.annotations import Annotations
from cachetool.errors import DatasetError, UnknownNameError

RANKS = 5
"""Nearest images that are kept, and that recall@5 looks at."""


@dataclass(frozen=True)
class Retrieval(Task):
    """Recall@1, recall@5 and weighted nearest-neighbour accuracy by cosine; nothing is fitted.

    Each image is a query, and all other labelled images of the same arm are its database: under an edit both are
    edited. Two images with the same pixels stay in each other's database. Queries whose class has no other image are
    left out, since they could not hit; their images stay in the database of others.
    """

    readout: str = "cls"
    """What is read, as `analyses.tasks.readouts.Readout` writes it."""
    neighbours: int = 20
    """Neighbours that vote; all other images where there are fewer."""
    temperature: float = 0.07
    """Of the votes, in units of cosine. 20 and 0.07 are those of DINO (Caron et al., ICCV 2021, section 4.1)."""

    kind: ClassVar[str] = "retrieval"
    description: ClassVar[str] = "nearest images of the same arm by cosine (recall@1, recall@5, kNN accuracy)"

    def __post_init__(self) -> None:
        """Refuse settings that cannot be measured, all at once."""
        Readout.parse(self.readout)  # a wrong name is an error now, not when something is measured
        problems = []
        if self.neighbours < 1:
            problems.append(f"neighbours is at least 1, got {self.neighbours}")
        if not self.temperature > 0:
            problems.append(f"temperature lies above 0, got {self.temperature}")
        if problems:
            raise UnknownNameError(f"cannot set up the retrieval task: {'; '.join(problems)}")

    @property
    def name(self) -> str:
        """`retrieval`, with the readout unless that is [CLS]."""
        readout = str(Readout.parse(self.readout))
        return self.kind if readout == "cls" else f"{self.kind}:{readout}"

    @property
    def layer(self) -> int | None:
        """The state of the readout."""
        return Readout.parse(self.readout).layer

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Recall@1, recall@5, and accuracy of the vote of the nearest neighbours."""
        return (
            share("recall@1", "Recall@1", "hit1"),
            share("recall@5", "Recall@5", "hit5"),
            share("knn", f"{self.neighbours}-nearest-neighbour accuracy", "knn_hit"),
        )

    @property
    def tokens(self) -> tuple[str, ...]:
        """The token types of the readout."""
        return Readout.parse(self.readout).tokens

    @property
    def settings(self) -> dict[str, Any]:
        """Readout, similarity, and how neighbours vote."""
        return {
            "readout": str(Readout.parse(self.readout)),
            "similarity": "cosine",
            "resolution": RESOLUTION,
            "database": "the other labelled images of the same arm",
            "neighbours": self.neighbours,
            "temperature": self.temperature,
        }

    def obstacle(self, store: xr.Dataset, annotations: Annotations) -> str | None:
        """Two images of one class and the tokens of the readout are needed."""
        if annotations.labels is None:
            return f"{annotations.dataset.name} has no class labels"
        if not _answerable(annotations.labels[np.flatnonzero(store.readable.values)]).any():
            return f"no class of {annotations.dataset.name} has two images that could be decoded"
        return Readout.parse(self.readout).obstacle(store)

    def measure(self, store: xr.Dataset, head: Any, annotations: Annotations) -> xr.Dataset:
        """Search the nearest neighbours of each query.

        Returns
        -------
        `label` (image,); `nearest` (image, rank), positions in the store of the five nearest, -1 where there are fewer;
        `hit1` and `hit5` (image,), whether the nearest and any of the five is of the query's class; `knn_hit` (image,),
        whether the neighbours' vote is. Attributes: `database_images` and `queries_left_out`.

        Raises
        ------
        DatasetError
            There are no labels, or no class has two images that could be decoded.
        IncompleteError
            The store does not give the readout.
        """
        if annotations.labels is None:
            raise DatasetError(
                f"{annotations.dataset.name} has no class labels; name a data set with classes, such as imagefolder:DIR"
            )
        images, features = readable_features(Readout.parse(self.readout), store)
        labelled = annotations.labels[images] >= 0
        images, features = images[labelled], features[labelled]
        labels = annotations.labels[images]
        query = _answerable(labels)
        if not query.any():
            raise DatasetError(
                f"no class of {annotations.dataset.name} has two images that could be decoded, out of {len(images)}; "
                "raise the limit, or name a data set with more images of a class"
            )
        kept = min(max(self.neighbours, RANKS), len(images) - 1)
        found, cosines = nearest_neighbours(features, store.image_id.values[images].tolist(), kept)
        correct = labels[found] == labels[:, None]
        voted = vote(labels[found[:, : self.neighbours]], cosines[:, : self.neighbours], self.temperature)
        nearest = np.full((len(images), RANKS), -1, dtype=np.int64)
        nearest[:, :kept] = images[found[:, :RANKS]]
        outcomes = {
            "label": labels,
            "nearest": nearest,
            "hit1": correct[:, 0],
            "hit5": correct[:, :RANKS].any(axis=1),
            "knn_hit": voted == labels,
        }
        facts = {"database_images": len(images), "queries_left_out": int((~query).sum())}
        return image_outcomes(store, images[query], {name: values[query] for name, values in outcomes.items()}, facts)


def _answerable(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each image has another one of its class, (image,)."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return np.asarray((counts[inverse] > 1) & (labels >= 0))
