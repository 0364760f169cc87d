"""D1: semantic correspondence, keypoints carried from one image to another by the most similar patch, scored by PCK."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from analyses.tasks.base import Metric, Task
from analyses.tasks.keypoints import Side, Yardstick, correct_keypoints, keypoints, score
from analyses.tasks.matching import (
    TIE_TOLERANCE,
    PatchGrid,
    best_patches,
    centre_positions,
    cosine_similarity,
    soft_positions,
)
from analyses.tasks.states import missing_state, read_state
from cachetool.annotations import Annotations
from cachetool.datasets import KeypointPair
from cachetool.errors import MissingDataError, UnknownNameError

Method = Literal["argmax", "soft-argmax"]
"""How a position follows from similarities: the best patch's centre, or a weighted mean around it."""


@dataclass(frozen=True)
class Correspondence(Task):
    """Carry each keypoint of the source to the target by the cosine of patch tokens.

    The patch that contains the source keypoint is compared with all patches of the target; both images are of the same
    arm. A point counts as wrong where a crop cut it off in either image, where its patch was removed, and where several
    patches of the target are equally similar.
    """

    method: Method = "argmax"
    yardstick: Yardstick = "box"
    window_radius: int = 2
    """Of soft-argmax, in patches: 5 x 5. The authors' 15 x 15 of 60 x 60 patches are about that share of 16 x 16."""
    temperature: float = 0.02
    """Of soft-argmax, in units of cosine; the authors' own."""
    layer: int | None = None
    """State whose patches are compared, as stored; None for the last one after the final norm."""

    kind: ClassVar[str] = "correspondence"
    description: ClassVar[str] = "keypoints found in another image by the most similar patch (PCK)"

    def __post_init__(self) -> None:
        problems = []
        if self.method not in get_args(Method):
            problems.append(f"method is one of {', '.join(get_args(Method))}, got {self.method!r}")
        if self.yardstick not in get_args(Yardstick):
            problems.append(f"yardstick is one of {', '.join(get_args(Yardstick))}, got {self.yardstick!r}")
        if self.window_radius < 1:
            problems.append(f"window_radius is at least 1 patch, got {self.window_radius}")
        if not self.temperature > 0:
            problems.append(f"temperature lies above 0, got {self.temperature}")
        if problems:
            raise UnknownNameError(f"cannot set up the correspondence task: {'; '.join(problems)}")

    @property
    def name(self) -> str:
        """`correspondence`, with method, yardstick and state where they are not the defaults."""
        method = "" if self.method == "argmax" else f":{self.method}"
        yardstick = "" if self.yardstick == "box" else f":{self.yardstick}"
        return f"{self.kind}{method}{yardstick}{'' if self.layer is None else f'@{self.layer}'}"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """PCK at 0.1, 0.05 and 0.15 as the mean over pairs, then of all points pooled."""
        return correct_keypoints(self.yardstick)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Patches alone."""
        return ("patches",)

    @property
    def settings(self) -> dict[str, Any]:
        """Method, yardstick and the constants that decide a position."""
        window = {"window_radius": self.window_radius, "temperature": self.temperature}
        return {
            "method": self.method,
            "yardstick": self.yardstick,
            "similarity": "cosine",
            "tie_tolerance": TIE_TOLERANCE,
            "layer": self.layer,
            **(window if self.method == "soft-argmax" else {}),
        }

    def obstacle(self, store: xr.Dataset, annotations: Annotations) -> str | None:
        """Patch tokens of the state that is read and at least one pair of readable images are needed."""
        if "patches" not in store:
            return "it holds no patch tokens: extract the cache, or replay the run, with the token type `patches`"
        if not annotations.pairs:
            images = len(annotations.image_ids)
            return f"{annotations.dataset.name} has no keypoint pairs between the {images} images of the cache"
        if not len(_measurable(store, annotations)):
            return f"none of its {len(annotations.pairs)} keypoint pairs has two images that could be decoded"
        if (reason := missing_state(store, self.layer)) is not None:
            return reason
        if store.attrs.get("kind") == "cache":  # a run may lack patches because its edit removed them
            first = int(np.flatnonzero(store.readable.values)[0])
            if bool(read_state(store, "patches", self.layer).isel(image=first).isnull().all()):
                return "it holds no patch tokens at the state that is read: extract that state of `patches` too"
        return None

    def measure(self, store: xr.Dataset, head: Any, annotations: Annotations) -> xr.Dataset:
        """Outcomes of one arm: the variables of `analyses.tasks.keypoints.score`, and counts in the attributes.

        Attributes: `points_source_outside` and `points_target_outside` (cut off by the crop),
        `points_without_unique_match`, `pairs_left_out` (an image could not be decoded, or is not in the store). A
        keypoint that was annotated just beyond the image's border belongs to the outermost patch.

        Patch tokens are read twice, block by block; beyond one block, memory grows with the distinct patches under
        source keypoints, not with pairs x patches. Raises `MissingDataError` where there is an `obstacle`.
        """
        if (reason := self.obstacle(store, annotations)) is not None:
            raise MissingDataError(f"cannot measure {self.name}: {reason}")
        chosen = _measurable(store, annotations)
        pairs = [annotations.pairs[index] for index in chosen]
        grid = PatchGrid(annotations.rows, annotations.columns, annotations.patch_size)
        source_patch = _patches_under(pairs, "source", annotations, grid)
        in_target = _patches_under(pairs, "target", annotations, grid) >= 0

        pair, point = np.nonzero(source_patch >= 0)
        source, target = np.array([(item.source, item.target) for item in pairs], dtype=np.int64)[pair].T
        positions = np.full((*source_patch.shape, 2), np.nan)
        tokens = read_state(store, "patches", self.layer)
        positions[pair, point] = self._carry(tokens, grid, source, source_patch[pair, point], target)
        for row, item in enumerate(pairs):
            positions[row] = annotations.geometry(*item.target_size).inverse(positions[row])

        outcomes = score(annotations, chosen, positions, self.yardstick, transferable=in_target)
        exists = ~np.isnan(outcomes.error.values)
        return outcomes.assign_attrs(
            task=self.name,
            points_source_outside=int((exists & (source_patch < 0)).sum()),
            points_target_outside=int((exists & ~in_target).sum()),
            points_without_unique_match=int(((source_patch >= 0) & np.isnan(positions).any(axis=-1)).sum()),
            pairs_left_out=len(annotations.pairs) - len(pairs),
        )

    def floors(self, annotations: Annotations) -> dict[str, xr.Dataset]:
        """Copied positions, by the same yardstick."""
        return {f"{name} floor": outcomes for name, outcomes in floors(annotations, self.yardstick).items()}

    def _carry(
        self,
        tokens: xr.DataArray,
        grid: PatchGrid,
        source: npt.NDArray[np.int64],
        patch: npt.NDArray[np.int64],
        target: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float64]:
        """Positions (point, xy) in target input pixels for source image, source patch and target image (point,)."""
        distinct, which = np.unique(source * len(grid.centres) + patch, return_inverse=True)
        from_image, from_patch = np.divmod(distinct, len(grid.centres))
        descriptors = np.empty((len(distinct), tokens.sizes["channel"]), dtype=np.float32)
        for first, block in _blocks(tokens, from_image):
            here = slice(*np.searchsorted(from_image, [first, first + len(block)]))
            descriptors[here] = block[from_image[here] - first, from_patch[here]]

        positions = np.empty((len(target), 2))
        order = np.argsort(target, kind="stable")
        for first, block in _blocks(tokens, target):
            bounds = np.searchsorted(target[order], np.arange(first, first + len(block) + 1))
            for image, (start, stop) in enumerate(pairwise(bounds)):
                points = order[start:stop]
                if not len(points):
                    continue
                similarity = cosine_similarity(descriptors[which[points]], block[image])
                best = best_patches(similarity)
                if self.method == "argmax":
                    positions[points] = centre_positions(best, grid)
                else:
                    positions[points] = soft_positions(similarity, best, grid, self.window_radius, self.temperature)
        return positions


def floors(annotations: Annotations, yardstick: Yardstick = "box") -> dict[str, xr.Dataset]:
    """Outcomes of two predictions that look at no feature, for the metrics of `Correspondence`.

    `copy-position` predicts the same relative position, (x + 0.5) * target width / source width - 0.5 and likewise for
    y and heights; `identity` the same pixel coordinates. Both know all pairs: where images of an arm could not be
    decoded, select its pairs, `floors(...)["identity"].sel(pair=outcomes.pair)`. Neither loses points to a crop.
    """
    source = keypoints(annotations.pairs, "source")
    source_size = np.array([pair.source_size for pair in annotations.pairs], dtype=np.float64).reshape(-1, 1, 2)
    target_size = np.array([pair.target_size for pair in annotations.pairs], dtype=np.float64).reshape(-1, 1, 2)
    predictions = {"copy-position": (source + 0.5) * target_size / source_size - 0.5, "identity": source}
    chosen = np.arange(len(annotations.pairs))
    return {
        name: score(annotations, chosen, predicted, yardstick).assign_attrs(task=f"correspondence floor: {name}")
        for name, predicted in predictions.items()
    }


def _measurable(store: xr.Dataset, annotations: Annotations) -> npt.NDArray[np.int64]:
    """Positions in `annotations.pairs` of those whose two images could be decoded, and are in the store.

    A run holds fewer images than its cache where that grew since.
    """
    # One place more, for all images beyond the store.
    readable = np.append(store.readable.values, False)
    beyond = store.sizes["image"]
    return np.array(
        [
            index
            for index, pair in enumerate(annotations.pairs)
            if readable[min(pair.source, beyond)] and readable[min(pair.target, beyond)]
        ],
        dtype=np.int64,
    )


def _patches_under(
    pairs: Sequence[KeypointPair], side: Side, annotations: Annotations, grid: PatchGrid
) -> npt.NDArray[np.int64]:
    """Patch that contains each keypoint, (pair, point); -1 where a crop cut it off and where there is no point."""
    positions = keypoints(pairs, side)
    for row, pair in enumerate(pairs):
        size = pair.source_size if side == "source" else pair.target_size
        # Hand annotation may overshoot the border by a pixel; only a crop makes a point impossible to carry over.
        within = np.clip(positions[row], -0.5, np.array(size) - 0.5)
        positions[row] = annotations.geometry(*size).forward(within)
    return grid.containing(positions)


def _blocks(tokens: xr.DataArray, images: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """First image and tokens (image, patch, channel) of each stored block that holds one of `images`."""
    lengths = tokens.chunksizes.get("image", (tokens.sizes["image"],))
    edges = np.cumsum([0, *lengths])
    for block in np.unique(np.searchsorted(edges, images, side="right") - 1):
        part = tokens.isel(image=slice(int(edges[block]), int(edges[block + 1])))
        yield int(edges[block]), part.transpose("image", "patch", "channel").values
