"""Colours of patches against scikit-learn's principal components."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from analyses.geometry.patch_colours import SPREAD, patch_colours
from cachetool.errors import InvalidEditError, MissingDataError
from tests.analyses.geometry.stand_in import CHANNELS, COLUMNS, ROWS, store, tokens

LAST = (4,)


def test_one_basis_and_scale_for_both_arms() -> None:
    intact, edited = tokens(layers=1), tokens(layers=1, seed=3)
    found = patch_colours(store(edited, 2, LAST), store(intact, 4, LAST), images=(5, 0)).colour
    readable = np.delete(intact["patches"][:, 0], 3, axis=0).reshape(-1, CHANNELS).astype(np.float64)
    model = PCA(3, svd_solver="full").fit(readable)
    deviation = np.sqrt(model.explained_variance_ * (len(readable) - 1) / len(readable))
    for arm, values in (("intact", intact), ("edited", edited)):
        scores = model.transform(values["patches"][[5, 0], 0].reshape(-1, CHANNELS).astype(np.float64)) / deviation
        sign = np.sign(model.components_[np.arange(3), np.abs(model.components_).argmax(axis=1)])
        expected = np.clip(scores * sign / SPREAD, -1, 1) / 2 + 0.5
        np.testing.assert_allclose(found.sel(arm=arm).values, expected.reshape(2, ROWS, COLUMNS, 3), atol=1e-5)
    assert found.attrs["explained"] == pytest.approx(model.explained_variance_ratio_.tolist())
    assert found.image_id.values.tolist() == ["image 5", "image 0"]


def test_what_is_lacking_is_named() -> None:
    whole = store(tokens(layers=1), layers=LAST)
    with pytest.raises(InvalidEditError, match="expected positions from 0 to 8, found 9, -1"):
        patch_colours(whole, whole, images=(9, 0, -1))
    with pytest.raises(MissingDataError, match=r"expected patches of state 4, the model's last, found cls, .* \[1\]"):
        patch_colours(whole, store(tokens(layers=1), layers=(1,)))
