"""Keypoints of example pairs agree with the task that measures all pairs."""

from __future__ import annotations

import numpy as np
import pytest

import cachetool
from analyses.examples.correspondences import carried_pairs
from analyses.tasks.correspondence import Correspondence
from cachetool.errors import MissingDataError
from tests.analyses.conftest import Small


def test_some_pairs_are_carried_as_all_pairs_are(small: Small) -> None:
    annotations, run = cachetool.open_annotations(small.cache), small.opened()[2]
    cache = cachetool.open(small.cache)
    found = carried_pairs({"intact": cache, "shuffle": run}, annotations, count=3)
    last = len(annotations.pairs) - 1
    assert [one.pair for one in found] == [0, round(last / 2), last]
    for name, store in (("intact", cache), ("shuffle", run)):
        whole = Correspondence().measure(store, None, annotations)
        for one in found:
            points = len(one.source_points)
            row = whole.sel(pair=one.pair)
            np.testing.assert_array_equal(one.predicted[name], row.predicted.values[:points])
            assert one.correct[name].tolist() == (row.error.values[:points] <= 0.1 * float(row.yardstick)).tolist()
    assert any(one.correct["intact"].any() for one in found)
    assert not all(one.correct["intact"].all() for one in found)


def test_a_store_without_patches_is_named(small: Small) -> None:
    cache = cachetool.open(small.cache)
    annotations = cachetool.open_annotations(small.cache)
    with pytest.raises(MissingDataError, match="bare: it holds no patch tokens"):
        carried_pairs({"intact": cache, "bare": cache.drop_vars("patches")}, annotations)
