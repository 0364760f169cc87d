"""Linear probe on final tokens: what a frozen feature still tells about the class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import cachetool


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier, fitted once on intact features and applied to every run (the paper's protocol)."""

    classifier: Pipeline
    """Standardisation and multinomial logistic regression."""

    def hits(self, features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether each image is classified correctly, (image,), from features (image, channel) and labels (image,)."""
        return np.asarray(self.classifier.predict(features) == labels)


def final_cls(store: xr.Dataset) -> xr.DataArray:
    """The [CLS] token after the model's final norm, float32 (image, channel), lazy, of a cache or a run."""
    return cachetool.normalize(store.cls.isel(layer=-1), store)


def fit_linear_probe(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], regularisation: float = 1.0
) -> LinearProbe:
    """Fit a linear probe on standardised features; deterministic.

    Parameters
    ----------
    features
        (image, channel) of training images, intact.
    labels
        Class index (image,).
    regularisation
        Inverse strength of the L2 penalty, scikit-learn's C.
    """
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=regularisation, max_iter=2000))
    return LinearProbe(classifier.fit(features, labels))
