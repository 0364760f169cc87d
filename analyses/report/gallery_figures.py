"""The galleries of a page as figures for papers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from analyses.examples.correspondences import carried_pairs
from analyses.examples.nearest import nearest_cutouts
from analyses.examples.photos import photo
from analyses.examples.token_maps import INTACT, token_maps
from analyses.figures.carried_keypoints import carried_keypoints
from analyses.figures.nearest_patches import nearest_patches
from analyses.figures.token_maps import token_maps as draw_token_maps
from analyses.report.galleries import ARMS_OF_PAIRS, CUTOUTS, PAIRS, basis_of
from analyses.report.subject import Subject, gallery_runs
from cachetool.errors import CachetoolError
from cachetool.events import Events, Silent
from cachetool.objects import Place

FORMATS = (".svg", ".png")
"""Formats that each figure is written in."""


def write_gallery_figures(
    subject: Subject,
    images: Sequence[int],
    directory: Path,
    *,
    runs: Sequence[Place] = (),
    weights: Path | None = None,
    device: str | None = None,
    events: Events | None = None,
) -> list[Path]:
    """Write maps of tokens, nearest patches and carried keypoints of one cache, as far as it holds them.

    Parameters
    ----------
    subject
        The cache with its runs, results and data set.
    images
        Positions of the example images.
    directory
        Where `tokens-POSITION`, `nearest-patches` and `keypoints` go, as SVG and PNG.
    runs, weights, device
        As for `analyses.report.report.build_report`.
    events
        Told of what cannot be drawn, and why.

    Returns
    -------
    The files.
    """
    listener, written = events or Silent(), []
    shown = gallery_runs(subject, runs)

    def attempt(name: str, write: Callable[[Path], None]) -> None:
        try:
            for ending in FORMATS:
                write(directory / f"{name}{ending}")
                written.append(directory / f"{name}{ending}")
        except CachetoolError as error:
            listener.message(f"{subject.name}: no figure {name}: {error}")

    annotations = subject.annotations
    try:
        maps = token_maps(subject.cache, shown, images, basis=basis_of(subject), weights=weights, device=device)
    except CachetoolError as error:
        listener.message(f"{subject.name}: no maps of tokens: {error}")
    else:
        photos = {} if annotations is None else {image: photo(annotations, image) for image in images}
        for index, image in enumerate(images):
            attempt(f"tokens-{image}", lambda path, index=index: draw_token_maps(maps, photos, path, image=index))  # type: ignore[misc]
    if annotations is not None and "nearest-patches" in subject.results:
        cutouts = nearest_cutouts(subject.results["nearest-patches"], annotations, count=CUTOUTS)
        attempt("nearest-patches", lambda path: nearest_patches(cutouts, path))
    if annotations is not None and annotations.pairs:
        arms = {INTACT: subject.cache, **dict(list(shown.items())[:ARMS_OF_PAIRS])}
        attempt(
            "keypoints",
            lambda path: carried_keypoints(carried_pairs(arms, annotations, count=PAIRS), annotations, path),
        )
    return written
