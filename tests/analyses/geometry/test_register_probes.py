"""Probes on registers: equal to the classification task's, and NaN where nothing can be said."""

from __future__ import annotations

import numpy as np
import pytest

import cachetool
from analyses.geometry.register_probes import register_probes
from analyses.tasks.classification import Classification
from cachetool.errors import MissingDataError
from tests.analyses.conftest import Small


def test_equal_to_the_classification_task(small: Small) -> None:
    cache, train = cachetool.open(small.cache), cachetool.open(small.train)
    found = register_probes(cache.sel(layer=[6, 12]), train, strength=1.0)
    assert found.token.values.tolist() == ["cls", "register 0", "register 1", "register 2", "register 3"]
    annotations, trained = cachetool.open_annotations(cache), cachetool.open_annotations(train)
    for readout, token, layer in (("cls", "cls", 12), ("registers:2@6", "register 2", 6)):
        task = Classification(readout, strength=1.0)
        outcomes = task.measure(cache, task.fit(train, trained), annotations)
        np.testing.assert_array_equal(found.correct.sel(layer=layer, token=token), outcomes.hit.astype(np.float32))


def test_images_without_class_or_pixels_are_nan(small: Small) -> None:
    cache = cachetool.open(small.cache).sel(layer=[12])[["cls"]].load()
    cache.cls.values[3] = np.nan
    cache.label.values[5] = -1
    found = register_probes(cache, cachetool.open(small.train), strength=1.0).correct
    assert found.token.values.tolist() == ["cls"]
    assert np.flatnonzero(np.isnan(found.values[:, 0, 0])).tolist() == [3, 5]


def test_what_is_lacking_is_named(small: Small) -> None:
    cache, train = cachetool.open(small.cache), cachetool.open(small.train)
    with pytest.raises(MissingDataError, match="the images have no classes"):
        register_probes(cache.drop_vars("label"), train)
    with pytest.raises(MissingDataError, match=r"expected .CLS. or registers of the same states in both stores"):
        register_probes(cache.sel(layer=[3]), train)
    few = train.isel(image=train.class_name.values == train.class_name.values[0])
    with pytest.raises(MissingDataError, match=r"9 classes have no training image: .*; name another --train"):
        register_probes(cache, few)
