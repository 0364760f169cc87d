"""Features for scikit-learn: equal to what the stores hold, grouped by image, without what could not be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score

import cachetool
from cachetool.errors import IncompleteError
from tests.interchange.conftest import cache as cache
from tests.interchange.conftest import complete_key
from tests.reference.quick import quick
from tests.store.conftest import make_example


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with quick():
        opened = cachetool.extract(
            "tiny-reg", "shapes", limit=40, root=tmp_path_factory.mktemp("features"), layers=[6, 12], workers=0
        )
    return Path(opened.attrs["cachetool_path"])


def test_cls_and_rows_per_token(shapes: Path) -> None:
    cache = cachetool.open(shapes)
    X, y, groups = cachetool.features(cache)
    assert X.dtype == np.float32
    assert np.array_equal(X, cache.cls.sel(layer=12).values)
    assert np.array_equal(y, cache.label.values)
    assert groups.tolist() == list(range(40))
    X, y, groups = cachetool.features(shapes, layer=6, tokens="registers")
    assert np.array_equal(X.reshape(40, 4, 96), cache.registers.sel(layer=6).values)
    assert np.array_equal(groups, np.repeat(np.arange(40), 4))
    assert np.array_equal(y, np.repeat(cache.label.values, 4))
    score = cross_val_score(LogisticRegression(max_iter=200), X, y, groups=groups, cv=GroupKFold(2))
    assert score.shape == (2,)


def test_normalised_as_torch_does(shapes: Path) -> None:
    cache = cachetool.open(shapes)
    plain, normal = (cachetool.features(shapes, 12, "patches", normalized=flag).X for flag in (False, True))
    weight, bias = (torch.from_numpy(cache[name].values) for name in ("norm_weight", "norm_bias"))
    expected = torch.nn.functional.layer_norm(torch.from_numpy(plain), (96,), weight, bias, 1e-6)
    np.testing.assert_allclose(normal, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_unreadable_images_are_left_out_and_named(cache: Path) -> None:
    with pytest.warns(UserWarning, match=r"1 of 10 images could not be read and are left out: größe/0005.jpg"):
        X, _y, groups = cachetool.features(cache, layer=1, tokens="patches")
    assert sorted(set(groups.tolist())) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert len(X) == 9 * 6
    with pytest.raises(IncompleteError, match="state 3 of patches"):
        cachetool.features(cache, layer=3, tokens="patches")
    with pytest.raises(IncompleteError, match="heads"):
        cachetool.features(cache, layer=1, tokens="heads")


def test_without_labels(tmp_path: Path) -> None:
    from dataclasses import replace

    example = complete_key(make_example())
    images = replace(example.spec.images, label=None, class_name=None)
    path = replace(example, spec=replace(example.spec, images=images)).make(tmp_path / "a.zarr")
    assert cachetool.features(path, layer=1).y is None
