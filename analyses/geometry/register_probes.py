"""What classes can be read from each register and from [CLS], by layer: linear probes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from analyses.geometry.tokens_of import tokens_of
from analyses.tasks.linear_probe import fit_linear_probe
from cachetool.errors import MissingDataError

Labels = npt.NDArray[np.object_]


def register_probes(store: xr.Dataset, train: xr.Dataset, *, strength: float | None = None) -> xr.Dataset:
    """Top-1 accuracy of a linear probe on every register, and on [CLS], at every layer that both stores hold.

    Probes are those of the classification task (`analyses.tasks.linear_probe`): standardised, multinomial logistic
    regression.

    Parameters
    ----------
    store
        A cache or run whose images have classes.
    train
        A cache of other images of the same classes, which are matched by name where both have names, else by index.
    strength
        Inverse penalty (C) of all probes; by default held-out training images choose one for each, which takes about
        eight times as long.

    Returns
    -------
    `correct` (image, layer, token), 1 where the probe predicts the image's class, float32, loaded; tokens are `cls`
    and `register 0`, ... NaN for images without a class, or that could not be read. Memory grows with the images,
    since a probe is fitted on all: `8 x images of both stores x registers x channels` bytes for one state, and
    `48 x training images x channels` for the fit.

    Raises
    ------
    MissingDataError
        Images have no classes, classes have no training image, or the stores share neither a state nor a token type.
    """
    truth, known = _labels(store), _labels(train)
    absent = sorted({str(label) for label in truth if label is not None} - {str(label) for label in known})
    if absent:
        raise MissingDataError(
            f"{len(absent)} classes have no training image: {', '.join(absent)}; name another --train"
        )
    layers = [layer for layer in store.layer.values.tolist() if layer in train.layer.values]
    types = [name for name in ("cls", "registers") if name in store and name in train]
    if not layers or not types:
        raise MissingDataError(
            "expected [CLS] or registers of the same states in both stores, found "
            f"{list(store.data_vars)} of {store.layer.values.tolist()} and "
            f"{list(train.data_vars)} of {train.layer.values.tolist()}"
        )
    columns: dict[str, list[npt.NDArray[np.float32]]] = {}
    for name in types:
        tested, fitted = tokens_of(store, name), tokens_of(train, name)
        for layer in layers:
            for token, (one, other) in _each(tested.sel(layer=layer).values, fitted.sel(layer=layer).values).items():
                label = name if token is None else f"register {token}"
                columns.setdefault(label, []).append(_correct(one, truth, other, known, strength))
    return xr.Dataset(
        {
            "correct": (
                ("image", "layer", "token"),
                np.stack([np.stack(layered, axis=1) for layered in columns.values()], axis=2),
                {"long_name": "top-1 accuracy of linear probes", "units": "1"},
            )
        },
        {"layer": layers, "token": list(columns), "image_id": ("image", store.image_id.values)},
    )


def _each(
    tested: npt.NDArray[np.float32], fitted: npt.NDArray[np.float32]
) -> dict[int | None, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Features (image, channel) of both stores by register; None for [CLS], which is one."""
    if tested.ndim == 2:
        return {None: (tested, fitted)}
    return {token: (tested[:, token], fitted[:, token]) for token in range(tested.shape[1])}


def _labels(store: xr.Dataset) -> Labels:
    """Class of every image: its name, else its index as text; None where it has none."""
    if "label" not in store.coords:
        raise MissingDataError("the images have no classes; name a data set with classes, such as imagefolder:DIR")
    labels = store.label.values
    names = store.class_name.values if "class_name" in store.coords else labels.astype(str)
    return np.array(
        [str(name) if label >= 0 else None for name, label in zip(names, labels, strict=True)], dtype=object
    )


def _correct(
    tested: npt.NDArray[np.float32],
    truth: Labels,
    fitted: npt.NDArray[np.float32],
    known: Labels,
    strength: float | None,
) -> npt.NDArray[np.float32]:
    """Whether each image (image,) is classified rightly; NaN where that cannot be said."""
    usable, training = (
        np.isfinite(features).all(axis=1) & np.array([label is not None for label in labels])
        for features, labels in ((tested, truth), (fitted, known))
    )
    names, index = np.unique(known[training].astype(str), return_inverse=True)
    probe = fit_linear_probe(fitted[training], index.astype(np.int64), strength=strength)
    predicted = names[probe.classes[probe.scores(tested[usable]).argmax(axis=1)]]
    found = np.full(len(tested), np.nan, dtype=np.float32)
    found[usable] = predicted == truth[usable].astype(str)
    return found
