"""D2: semantic segmentation by a linear head on final patch tokens, scored by mIoU on masks at their own size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import xarray as xr

from analyses.tasks import soft_probe
from analyses.tasks.base import Metric, Task
from analyses.tasks.mask_memory import MaskMemory
from analyses.tasks.pixel_counts import COUNTS, count_pixels, per_class, pixel_metrics
from analyses.tasks.soft_labels import SoftLabels, soft_labels
from analyses.tasks.soft_probe import SoftProbe, fit_soft_probe
from analyses.tasks.states import missing_state, read_state
from analyses.tasks.upsampling import NO_CLASS, upsampled_argmax
from cachetool.annotations import Annotations
from cachetool.errors import DatasetError, MissingDataError, UnknownNameError

__all__ = ["MASK_BYTES", "Segmentation", "SegmentationHead", "per_class"]

MASK_BYTES = 512 * 2**20
"""Decoded masks that a task keeps in memory, bytes, training and evaluated images together."""

_PIXELS_AT_ONCE = 2**18  # 16 classes of so many pixels are 16 MiB of float32


@dataclass(frozen=True, eq=False)
class SegmentationHead:
    """A linear probe on patches and the names of the classes that it tells apart."""

    probe: SoftProbe
    """Fitted on soft labels of training patches."""
    names: tuple[str, ...]
    """Names of the mask values of the training set."""
    dataset: str
    """Name of the training set, for messages."""


@dataclass(frozen=True)
class Segmentation(Task):
    """Mean intersection over union (Everingham et al., IJCV 111, 2015) of a linear head on normalised patch tokens.

    The head is multinomial logistic regression on soft labels, the shares of the classes among a patch's annotated
    pixels (`analyses.tasks.soft_probe`). Its logits are upsampled bilinearly to the size of the mask before the argmax;
    masks are never resized. Images must have been resized without a crop, so that patches cover them edge to edge.
    """

    training_patches: int = 200_000
    """Most patches that the head is fitted on, drawn evenly from all annotated ones of the training images. The fit
    holds their features once for each class of a patch: about 3.5 GB at 768 channels and 1.3 classes a patch."""
    strength: float | None = None
    """Inverse strength of the penalty, scikit-learn's C; None lets held-out training images choose it."""
    seed: int = 0
    """Decides which patches are drawn and which training images are held out."""
    layer: int | None = None
    """State whose patches are read, as stored; None for the last one after the final norm."""
    _masks: MaskMemory = field(default_factory=lambda: MaskMemory(MASK_BYTES), init=False, repr=False, compare=False)
    _labels: WeakKeyDictionary[Annotations, tuple[bytes, SoftLabels]] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    kind: ClassVar[str] = "segmentation"
    description: ClassVar[str] = "linear head on patches fitted on a training cache (mIoU)"
    fitted: ClassVar[bool] = True
    reads_masks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        problems = []
        if self.training_patches < 1:
            problems.append(f"training_patches is at least 1, got {self.training_patches}")
        if self.strength is not None and not self.strength > 0:
            problems.append(f"strength lies above 0, got {self.strength}")
        if self.seed < 0:
            problems.append(f"seed is at least 0, got {self.seed}")
        if problems:
            raise UnknownNameError(f"cannot set up the segmentation task: {'; '.join(problems)}")

    @property
    def name(self) -> str:
        """`segmentation`, with the state unless that is the last."""
        return self.kind if self.layer is None else f"{self.kind}@{self.layer}"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Mean over classes of intersection over union, and the share of annotated pixels that are right."""
        return pixel_metrics()

    @property
    def tokens(self) -> tuple[str, ...]:
        """Patches alone."""
        return ("patches",)

    @property
    def settings(self) -> dict[str, Any]:
        """How the head is fitted, and how its logits become pixels."""
        return {
            "training_patches": self.training_patches,
            "labels": "share of each class among the annotated pixels of a patch",
            "features": "standardised",
            "strength": soft_probe.SEARCH if self.strength is None else self.strength,
            "tolerance": soft_probe.TOLERANCE,
            "maximal_iterations": soft_probe.MAXIMAL_ITERATIONS,
            "seed": self.seed,
            "upsampling": "bilinear logits",
            "layer": self.layer,
        }

    def obstacle(self, store: xr.Dataset, annotations: Annotations) -> str | None:
        """Masks, an uncropped transform, and patch tokens of the state that is read are needed."""
        if annotations.mask_names is None:
            return f"{annotations.dataset.name} has no masks"
        if annotations.transform.crop != "none":
            return (
                f"its images were cropped ({annotations.transform.crop}), so that no patch covers the pixels cut off: "
                "extract a data set whose images are resized whole, such as segmentation:DIR"
            )
        if "patches" not in store:
            return "it holds no patch tokens: extract the cache, or replay the run, with the token type `patches`"
        readable = np.flatnonzero(store.readable.values)
        if not len(readable):
            return f"no image of {annotations.dataset.name} could be decoded"
        if (reason := missing_state(store, self.layer)) is not None:
            return reason
        if store.attrs.get("kind") == "cache":  # a run may lack patches because its edit removed them
            sample = read_state(store, "patches", self.layer).isel(image=int(readable[0]))
            if bool(sample.isnull().all()):
                return "it holds no patch tokens at the state that is read: extract that state of `patches` too"
        return None

    def fit(self, train: xr.Dataset, annotations: Annotations) -> SegmentationHead:
        """Fit the head on annotated patches of a training cache or run; patches that an edit removed are left out.

        Raises
        ------
        MissingDataError
            There is an `obstacle`.
        DatasetError
            The annotations are of other images, or the annotated patches are of fewer than two classes.
        """
        self._require(train, annotations)
        labels = self._soft_labels(train, annotations)
        features = np.empty((len(labels.image), train.sizes["channel"]), dtype=np.float32)
        for first, tokens in _blocks(train, self.layer):
            begin, end = np.searchsorted(labels.image, [first, first + len(tokens)])
            features[begin:end] = tokens[labels.image[begin:end] - first, labels.patch[begin:end]]
        present = np.asarray(np.isfinite(features).all(axis=1), dtype=np.bool_)
        if not present.all():
            labels, features = labels.select(present), features[present]
        probe = fit_soft_probe(features, labels, strength=self.strength, seed=self.seed)
        return SegmentationHead(probe, tuple(annotations.mask_names or ()), annotations.dataset.name)

    def measure(self, store: xr.Dataset, head: SegmentationHead, annotations: Annotations) -> xr.Dataset:
        """Count the pixels of each class in the images that could be decoded.

        Returns
        -------
        `intersection`, `predicted` and `annotated` (image, mask_class), int64: pixels that are predicted as the class
        and annotated as it, that are predicted as it, and that are annotated as it; pixels without annotation never
        count. A pixel that a removed patch has part in is predicted as no class. The attributes tell the head's
        strength, the held-out losses that chose it, whether its fit converged, the number of its patches, and which
        annotated classes it cannot predict because no training patch showed them.

        Raises
        ------
        MissingDataError
            There is an `obstacle`.
        DatasetError
            The annotations are of other images, or name other classes than the head's training set.
        """
        self._require(store, annotations)
        names = tuple(annotations.mask_names or ())
        _require_same_classes(head, names, annotations.dataset.name)
        images = np.flatnonzero(store.readable.values)
        counts = np.zeros((len(COUNTS), store.sizes["image"], len(names)), dtype=np.int64)
        for first, tokens in _blocks(store, self.layer):
            block = images[(images >= first) & (images < first + len(tokens))]
            masks = {int(image): self._masks.mask(annotations, int(image)) for image in block}
            for batch in _batches(masks):
                logits = head.probe.logits(tokens[np.array(batch) - first])
                grid = logits.transpose(0, 2, 1).reshape(len(batch), -1, annotations.rows, annotations.columns)
                predictions = upsampled_argmax(grid, *masks[batch[0]].shape)
                for image, prediction in zip(batch, _mask_values(head.probe)[predictions], strict=True):
                    counts[:, image] = count_pixels(prediction, masks[image], len(names))
        untrained = np.setdiff1d(np.flatnonzero(counts[2].sum(axis=0)), head.probe.classes)
        return xr.Dataset(
            {name: (("image", "mask_class"), counts[index, images]) for index, name in enumerate(COUNTS)},
            {
                "image_id": ("image", store.image_id.values[images]),
                "mask_class": ("mask_class", np.array(names, dtype=object)),
            },
            head.probe.facts | {"classes_without_training": ", ".join(names[label] for label in untrained)},
        )

    def _require(self, store: xr.Dataset, annotations: Annotations) -> None:
        if (reason := self.obstacle(store, annotations)) is not None:
            raise MissingDataError(f"cannot measure {self.name}: {reason}")
        here, there = tuple(store.image_id.values), annotations.image_ids[: store.sizes["image"]]
        if here != there:
            raise DatasetError(
                f"the annotations of {annotations.dataset.name} are not of the store's {len(here)} images in their "
                "order; pass `cachetool.open_annotations` of the cache that the store is, or was replayed from"
            )

    def _soft_labels(self, store: xr.Dataset, annotations: Annotations) -> SoftLabels:
        """Drawn soft labels of the readable images, kept, so that refitting on a run decodes no mask again."""
        key = store.readable.values.tobytes()
        kept = self._labels.get(annotations)
        if kept is None or kept[0] != key:
            images = np.flatnonzero(store.readable.values).tolist()
            found = soft_labels(annotations, images, lambda image: self._masks.mask(annotations, image))
            kept = self._labels[annotations] = key, found.sample(self.training_patches, self.seed)
        return kept[1]


def _blocks(store: xr.Dataset, layer: int | None) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """First image and patch tokens, (image, patch, channel), of each stored block, one after another."""
    tokens = read_state(store, "patches", layer)
    sizes = tokens.chunksizes.get("image", (tokens.sizes["image"],))
    for first, last in pairwise(np.cumsum([0, *sizes]).tolist()):
        yield first, tokens.isel(image=slice(first, last)).values


def _batches(masks: dict[int, npt.NDArray[np.uint8]]) -> Iterator[list[int]]:
    """Images whose masks have the same size, as many at once as memory should hold."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for image, mask in masks.items():
        shapes.setdefault(mask.shape, []).append(image)
    for (height, width), images in shapes.items():
        size = max(1, _PIXELS_AT_ONCE // (height * width))
        yield from (images[first : first + size] for first in range(0, len(images), size))


def _mask_values(probe: SoftProbe) -> npt.NDArray[np.uint8]:
    """Mask value for each index of a class in the probe, (256,); no class stays no class."""
    values = np.full(NO_CLASS + 1, NO_CLASS, dtype=np.uint8)
    values[: len(probe.classes)] = probe.classes
    return values


def _require_same_classes(head: SegmentationHead, names: tuple[str, ...], dataset: str) -> None:
    """Raise `DatasetError` unless mask values mean the same in both data sets."""
    differing = [
        f"{value} is {here or 'no class'} in {dataset} and {there or 'no class'} in {head.dataset}"
        for value, (here, there) in enumerate(zip_longest(names, head.names))
        if here != there
    ]
    if differing:
        raise DatasetError(
            f"masks of {dataset} and of the training set {head.dataset} name other classes: {'; '.join(differing)}; "
            "name a training set with the same classes in the same order"
        )
