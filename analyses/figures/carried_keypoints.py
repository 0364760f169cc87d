"""Keypoints carried from image to image, right and wrong, intact beside edits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyses.examples.correspondences import CarriedPair, tolerance
from analyses.examples.photos import photo
from analyses.figures.style import BLUE, VERMILION, entitle, literal, save
from cachetool.annotations import Annotations
from cachetool.errors import MissingDataError

_CAPTION = (
    "Each keypoint of the source goes to the patch of the target whose feature is most similar (cosine). Right: within "
    "{tolerance}; of wrong ones a line leads to where the point belongs. Pairs are evenly spread over the data set."
)


def carried_keypoints(pairs: Sequence[CarriedPair], annotations: Annotations, path: Path) -> None:
    """Draw pairs of images with the keypoints that every arm carried over, and save them.

    Parameters
    ----------
    pairs
        What `analyses.examples.correspondences.carried_pairs` returned.
    annotations
        The data set of the same cache.
    path
        File to write; its ending decides the format.

    Raises
    ------
    MissingDataError
        There are no pairs.
    ImageError
        A file cannot be decoded; names it.
    """
    save(draw(pairs, annotations), path)


def draw(pairs: Sequence[CarriedPair], annotations: Annotations) -> Figure:
    """The figure: a row a pair, the source first, then the target under every arm."""
    if not pairs:
        raise MissingDataError("no pairs to draw; the data set needs keypoint pairs")
    arms = list(pairs[0].predicted)
    figure = Figure(figsize=(1.7 * (len(arms) + 1) + 0.2, 1.85 * len(pairs) + 1.2), layout="constrained")
    grid = figure.subplots(len(pairs), len(arms) + 1, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, pair in zip(grid, pairs, strict=True):
        line[0].imshow(photo(annotations, pair.source))
        points = annotations.geometry(*pair.source_size).forward(pair.source_points)
        line[0].plot(*points.T, ls="", marker="o", ms=4, mfc="white", mec="black", mew=0.8)
        line[0].set_title(literal(f"source: {pair.category}"), fontsize=7)
        for axes, arm in zip(line[1:], arms, strict=True):
            _draw_target(axes, pair, arm, annotations)
    key = [
        Line2D([], [], ls="", marker="o", ms=5, mfc=BLUE, mec="white", label="right"),
        Line2D([], [], ls="-", lw=0.8, marker="x", ms=5, mew=1.6, color=VERMILION, label="wrong"),
    ]
    entitle(figure, "Keypoints carried over by patch cosine", _CAPTION.format(tolerance=tolerance()), key)
    return figure


def _draw_target(axes: Axes, pair: CarriedPair, arm: str, annotations: Annotations) -> None:
    picture = photo(annotations, pair.target)
    geometry = annotations.geometry(*pair.target_size)
    places, truth, right = (
        geometry.forward(pair.predicted[arm]),
        geometry.forward(pair.target_points),
        pair.correct[arm],
    )
    axes.imshow(picture)
    for place, belongs in zip(places[~right], truth[~right], strict=True):
        axes.plot([place[0], belongs[0]], [place[1], belongs[1]], lw=0.8, color=VERMILION)
    axes.plot(*places[~right].T, ls="", marker="x", ms=5, mew=1.6, color=VERMILION)
    axes.plot(*places[right].T, ls="", marker="o", ms=5, mfc=BLUE, mec="white", mew=0.8)
    # Lines may lead beyond a crop, which must not change what is seen of the image.
    axes.set_xlim(-0.5, picture.shape[1] - 0.5)
    axes.set_ylim(picture.shape[0] - 0.5, -0.5)
    axes.set_title(literal(f"{arm}:\n{int(right.sum())} of {len(right)} right"), fontsize=6)
