"""Galleries as figures: what is drawn where, and that every part is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analyses.examples.correspondences import carried_pairs
from analyses.examples.nearest import nearest_cutouts
from analyses.examples.photos import photo
from analyses.examples.token_maps import token_maps
from analyses.figures import carried_keypoints, nearest_patches
from analyses.figures import token_maps as drawn_maps
from analyses.report.gallery_figures import write_gallery_figures
from analyses.report.subject import Subject, gallery_runs, open_subject
from cachetool.errors import MissingDataError
from tests.analyses.report.conftest import Reported


@pytest.fixture(scope="module")
def subject(reported: Reported) -> Subject:
    return open_subject(reported.cache)


def test_maps_are_drawn_under_their_arms_with_one_scale_a_row(subject: Subject) -> None:
    assert subject.annotations is not None
    runs = gallery_runs(subject)
    maps = token_maps(subject.cache, runs, [2, 30])
    figure = drawn_maps.draw(maps, {30: photo(subject.annotations, 30)}, 1)
    panels = [axes for axes in figure.axes if axes.images and not axes.get_label().startswith("<colorbar")]
    # Four rows of seven arms and the input; one run did not keep what attention takes.
    assert len(panels) == 4 * 7 + 1 - 1
    norms = panels[1 + 7 : 1 + 14]
    for arm, axes in enumerate(norms):
        np.testing.assert_array_equal(axes.images[0].get_array(), maps.norm.isel(image=1, arm=arm).values)
    assert len({axes.images[0].get_clim() for axes in norms}) == 1
    assert drawn_maps.draw(maps, {}, 0).axes  # without a photograph


def test_nearest_patches_are_drawn_a_row_a_register(subject: Subject) -> None:
    assert subject.annotations is not None
    cutouts = nearest_cutouts(subject.results["nearest-patches"], subject.annotations, count=3)
    figure = nearest_patches.draw(cutouts)
    assert len(figure.axes) == 4 * 3
    last = [one for one in cutouts if one.layer == 12]
    np.testing.assert_array_equal(figure.axes[4].images[0].get_array(), last[4].cutout)
    assert figure.axes[4].get_title() == f"{last[4].cosine:.3f}"
    with pytest.raises(MissingDataError, match=r"no nearest patches of layer 3; there are layers \[6, 11, 12\]"):
        nearest_patches.draw(cutouts, 3)


def test_keypoints_are_marked_right_and_wrong(subject: Subject) -> None:
    assert subject.annotations is not None
    pairs = carried_pairs({"intact": subject.cache}, subject.annotations, count=3)
    figure = carried_keypoints.draw(pairs, subject.annotations)
    for row, pair in enumerate(pairs):
        source, target = figure.axes[2 * row : 2 * row + 2]
        assert len(source.lines[0].get_xdata()) == len(pair.source_points)
        marks = {line.get_marker(): len(line.get_xdata()) for line in target.lines if line.get_marker() != "None"}
        right = int(pair.correct["intact"].sum())
        assert marks == {"x": len(pair.source_points) - right, "o": right}
        assert f"{right} of {len(pair.source_points)} right" in target.get_title()
    with pytest.raises(MissingDataError, match="no pairs to draw"):
        carried_keypoints.draw([], subject.annotations)


@pytest.mark.slow
def test_all_are_written_for_a_cache(subject: Subject, tmp_path: Path) -> None:
    written = write_gallery_figures(subject, [4], tmp_path)
    assert sorted(path.name for path in written) == [
        f"{name}{ending}" for name in ("keypoints", "nearest-patches", "tokens-4") for ending in (".png", ".svg")
    ]
    assert all(path.stat().st_size > 1000 for path in written)
