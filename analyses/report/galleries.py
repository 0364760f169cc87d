"""Example images of one cache as the page shows them: maps of tokens, nearest patches, carried keypoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray as xr

from analyses.examples.correspondences import CarriedPair, carried_pairs
from analyses.examples.nearest import nearest_cutouts
from analyses.examples.photos import photo
from analyses.examples.token_maps import INTACT, token_maps
from analyses.figures.token_maps import ATTENTION_PERCENTILE
from analyses.geometry.patch_colours import ColourBasis
from analyses.report.pictures import coloured, mapped, photograph, scale
from analyses.report.subject import Subject
from cachetool.errors import CachetoolError

BASIS_IMAGES = 1000
"""Images that the colours' principal components are computed from, so that large caches do not hold the page up."""

PAIRS, CUTOUTS = 4, 8
ARMS_OF_PAIRS = 3
"""Edits beside the intact arm under which keypoints are carried."""


@dataclass(frozen=True)
class Picture:
    """One picture with what it shows, for those who do not see it."""

    uri: str
    """Data URI."""
    text: str
    """What it shows."""


@dataclass(frozen=True)
class MapRow:
    """One kind of map under every arm."""

    name: str
    """Kind of map."""
    pictures: tuple[Picture | None, ...]
    """One an arm; None where the arm does not hold what is needed."""
    low: str
    """Value of the lower end of the scale; empty for colours, which have none."""
    high: str
    """Value of the upper end."""
    scale: str
    """Data URI of the scale."""


@dataclass(frozen=True)
class ExampleImage:
    """One image with its maps."""

    name: str
    """Id, and class where known."""
    photo: Picture | None
    """What the model saw."""
    rows: tuple[MapRow, ...]
    """Kinds of maps."""


@dataclass(frozen=True)
class TokenGallery:
    """Images, intact beside every ablation."""

    arms: tuple[str, ...]
    """Names of the columns, intact first."""
    images: tuple[ExampleImage, ...]
    """Images."""
    explained: float
    """Share of the variance that the colours carry."""
    basis_images: int
    """Number of images that the colours' basis comes from."""
    without_attention: tuple[str, ...]
    """Arms that do not hold the state whose attention is shown."""


@dataclass(frozen=True)
class CutoutRow:
    """The patches nearest to one register at one layer."""

    layer: int
    """State."""
    register: int
    """Register."""
    pictures: tuple[Picture, ...]
    """From the nearest on."""


@dataclass(frozen=True)
class Keypoint:
    """One keypoint of a pair under one arm, in pixels of the photograph shown."""

    x: float
    y: float
    true_x: float
    true_y: float
    right: bool
    text: str


@dataclass(frozen=True)
class CarriedView:
    """A target image with the keypoints that one arm carried to it."""

    arm: str
    """The arm."""
    right: int
    """Keypoints within the tolerance."""
    points: int
    """Keypoints of the pair."""
    keypoints: tuple[Keypoint, ...]
    """Those that were carried somewhere."""


@dataclass(frozen=True)
class PairView:
    """A pair of images with its keypoints under every arm."""

    category: str
    """What both show."""
    source: Picture
    """Source image."""
    target: Picture
    """Target image."""
    size: int
    """Side of both pictures in pixels."""
    source_points: tuple[tuple[float, float], ...]
    """Annotated keypoints in the source picture."""
    carried: tuple[CarriedView, ...]
    """One an arm."""


def token_gallery(
    subject: Subject,
    runs: Mapping[str, xr.Dataset],
    images: Sequence[int],
    *,
    weights: Path | None = None,
    device: str | None = None,
) -> TokenGallery:
    """Maps of tokens over some images. Raises `CachetoolError` where the cache lacks what they are made of."""
    maps = token_maps(subject.cache, runs, images, basis=basis_of(subject), weights=weights, device=device)
    return TokenGallery(
        arms=tuple(maps.arm.values.tolist()),
        images=tuple(_example(subject, maps, index, image) for index, image in enumerate(images)),
        explained=float(sum(maps.attrs["explained"])),
        basis_images=min(BASIS_IMAGES, subject.cache.sizes["image"]),
        without_attention=tuple(maps.attrs["without_attention"]),
    )


def basis_of(subject: Subject) -> ColourBasis:
    """The colours' basis, of the first images. Raises `MissingDataError` where the cache lacks final patches."""
    return ColourBasis.of(subject.cache.isel(image=slice(BASIS_IMAGES)))


def cutout_gallery(subject: Subject) -> list[CutoutRow]:
    """Patches nearest to each register. Raises `CachetoolError` where an image cannot be decoded."""
    found = subject.results.get("nearest-patches")
    if found is None or subject.annotations is None:
        return []
    cutouts = nearest_cutouts(found, subject.annotations, count=CUTOUTS)
    rows = []
    for (layer, register), own in groupby(cutouts, key=lambda one: (one.layer, one.register)):
        pictures = tuple(
            Picture(photograph(one.cutout), f"{one.image_id}, row {one.row}, column {one.col}, cosine {one.cosine:.3f}")
            for one in own
        )
        rows.append(CutoutRow(layer, register, pictures))
    return rows


def pair_gallery(subject: Subject, runs: Mapping[str, xr.Dataset]) -> list[PairView]:
    """Carried keypoints of some pairs. Raises `CachetoolError` where the cache lacks what they are made of."""
    if subject.annotations is None or not subject.annotations.pairs:
        return []
    arms = {INTACT: subject.cache, **dict(list(runs.items())[:ARMS_OF_PAIRS])}
    return [_pair(subject, pair) for pair in carried_pairs(arms, subject.annotations, count=PAIRS)]


def _example(subject: Subject, maps: xr.Dataset, index: int, image: int) -> ExampleImage:
    name = str(maps.image_id.values[index])
    if "class_name" in subject.cache.coords:
        name += f" ({subject.cache.class_name.values[image]})"
    one = maps.isel(image=index)
    arms = maps.arm.values.tolist()
    tinted = [
        Picture(coloured(values), f"principal components of patches, {arm}") if np.isfinite(values).any() else None
        for arm, values in zip(arms, one.colour.values, strict=True)
    ]
    colours = MapRow("principal components as colours", tuple(tinted), "", "", "")
    # Norms of outlier patches are tens of times those of others, which a linear scale would show as one colour.
    rows = [colours, _row("norm", "norm of patches, last state (logarithmic)", one.norm, arms, "cividis", log=True)]
    if len(arms) > 1:
        rows.append(_row("cosine", "cosine with intact", one.cosine, arms, "viridis", ends=(None, 1.0)))
    if "attention" in one:
        most = float(np.nanpercentile(one.attention.values, ATTENTION_PERCENTILE))
        rows.append(_row("attention", "attention of [CLS], last block", one.attention, arms, "magma", ends=(0.0, most)))
    return ExampleImage(name, _photo(subject, image), tuple(rows))


def _row(
    kind: str,
    name: str,
    values: xr.DataArray,
    arms: Sequence[str],
    colours: str,
    *,
    ends: tuple[float | None, float | None] = (None, None),
    log: bool = False,
) -> MapRow:
    """One scale for all arms of an image, so that arms can be compared."""
    known = values.values[np.isfinite(values.values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    low, high = low if ends[0] is None else ends[0], high if ends[1] is None else ends[1]
    bend = np.log if log and low > 0 else np.positive
    pictures = tuple(
        Picture(
            mapped(bend(one), float(bend(low)), float(bend(high)), colours), f"{kind} of patches, {arm}: {_range(one)}"
        )
        if np.isfinite(one).any()
        else None
        for arm, one in zip(arms, values.values, strict=True)
    )
    return MapRow(
        name,
        pictures,
        f"{low:.3g}",
        f"{high:.3g}" + (" and more" if known.size and known.max() > high else ""),
        scale(colours),
    )


def _range(values: npt.NDArray[np.floating]) -> str:
    return f"{np.nanmin(values):.3g} to {np.nanmax(values):.3g}"


def _photo(subject: Subject, image: int) -> Picture | None:
    if subject.annotations is None:
        return None
    try:
        return Picture(photograph(photo(subject.annotations, image)), f"image {subject.annotations.image_ids[image]}")
    except CachetoolError:
        # The file went away or was damaged since the extraction; what tokens show is there all the same.
        return None


def _pair(subject: Subject, pair: CarriedPair) -> PairView:
    annotations = subject.annotations
    assert annotations is not None
    source, target = (photo(annotations, image) for image in (pair.source, pair.target))
    to_source, to_target = (annotations.geometry(*size) for size in (pair.source_size, pair.target_size))
    truth = to_target.forward(pair.target_points)
    views = []
    for arm, predicted in pair.predicted.items():
        places, right = to_target.forward(predicted), pair.correct[arm]
        keypoints = tuple(
            Keypoint(
                x=float(places[index, 0]),
                y=float(places[index, 1]),
                true_x=float(truth[index, 0]),
                true_y=float(truth[index, 1]),
                right=bool(right[index]),
                text=f"keypoint {index}, {arm}: {'right' if right[index] else 'wrong'}",
            )
            for index in np.flatnonzero(np.isfinite(places).all(axis=1))
        )
        views.append(CarriedView(arm, int(right.sum()), len(right), keypoints))
    points = tuple((float(x), float(y)) for x, y in to_source.forward(pair.source_points))
    return PairView(
        pair.category,
        Picture(photograph(source), f"source image of a pair of category {pair.category}"),
        Picture(photograph(target), f"target image of a pair of category {pair.category}"),
        len(source), points, tuple(views),
    )  # fmt: skip
