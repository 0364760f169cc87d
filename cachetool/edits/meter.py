"""The off-distribution meter: how far injected tokens lie from the natural ones of the same kind at the same state.

Three measures, since each has a blind spot:

- Mahalanobis distance (Mahalanobis, "On the generalised distance in statistics", 1936) under the mean and covariance
  of natural tokens. There are fewer of these than a covariance needs, so it is shrunk (Ledoit and Wolf, "A
  well-conditioned estimator for large-dimensional covariance matrices", Journal of Multivariate Analysis 88, 2004).
  It is 0 for the mean token, although no natural token lies there.
- Norm. Also blind to direction.
- Distance to the nearest natural token, of another image than the one the token comes from.

Each is ranked among natural tokens that neither the covariance nor the neighbours have seen. A percentile runs from 0
(below all of them) to 100 (above all); `two_sided` runs from 100 (in the middle) to 0 (outside), so that the mean
token, which is suspiciously central, stands out as much as one that lies too far away.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from sklearn.covariance import LedoitWolf

from cachetool.edits.calibration import Calibration, Reference
from cachetool.edits.selection import Selection
from cachetool.edits.sources import Images
from cachetool.errors import InvalidEditError

FEWEST = 4
"""Natural tokens that each half must have for the meter to mean anything."""

CHUNK = 16384
"""Pairs whose Mahalanobis distance is measured at a time: bounds the memory."""

COMPARED = 2**22
"""Distances to natural tokens that are held at a time: 32 MiB."""


@dataclass(frozen=True)
class Distances:
    """How far tokens lie from natural ones; each float64 (pair,), or (image,) after `per_image`."""

    mahalanobis: NDArray[np.float64]
    """Mahalanobis distance under the Ledoit-Wolf covariance of the fit half."""
    mahalanobis_percentile: NDArray[np.float64]
    """Its rank among held-out natural tokens, 0 to 100."""
    mahalanobis_two_sided: NDArray[np.float64]
    """How unremarkable it is in either direction: 100 at the median, 0 outside all natural tokens."""
    norm: NDArray[np.float64]
    """Euclidean norm."""
    norm_percentile: NDArray[np.float64]
    """Its rank among held-out natural tokens, 0 to 100."""
    norm_two_sided: NDArray[np.float64]
    """How unremarkable it is in either direction."""
    neighbour: NDArray[np.float64]
    """Euclidean distance to the nearest natural token of the fit half that comes from another image."""
    neighbour_percentile: NDArray[np.float64]
    """Its rank among the same distances of held-out natural tokens, 0 to 100."""
    neighbour_two_sided: NDArray[np.float64]
    """How unremarkable it is in either direction."""


class FittedReference:
    """Natural tokens of one kind at one state, ready to measure against."""

    def __init__(self, reference: Reference) -> None:
        """Fit covariance and neighbours on one half, rank the other. Raises `InvalidEditError` for too few tokens."""
        if not enough(reference):
            raise InvalidEditError(
                f"the off-distribution meter needs {FEWEST} natural tokens or more in each half, but the calibration "
                f"holds {len(reference.fit)} to fit and {len(reference.held_out)} held out; calibrate with more images "
                "or reference tokens"
            )
        names, self._image_of_row = np.unique(reference.fit_image.astype(str), return_inverse=True)
        self._code_of_image = {str(name): code for code, name in enumerate(names)}
        # At state 0 [CLS] and registers are the same for every image: no covariance, but a sharp answer.
        self._constant = bool((reference.fit == reference.fit[0]).all())
        if self._constant:
            self._centre = reference.fit[0].astype(np.float64)
        else:
            fitted = LedoitWolf(store_precision=False).fit(reference.fit.astype(np.float64))
            self._centre = fitted.location_
            factor = cholesky(fitted.covariance_, lower=True)
            self._whiten = solve_triangular(factor, np.eye(len(factor)), lower=True).T
        self._fit = reference.fit.astype(np.float64)
        self._squares = np.einsum("rc,rc->r", self._fit, self._fit)
        self._held_out_mahalanobis = np.sort(self._mahalanobis(reference.held_out))
        self._held_out_norms = np.sort(_norms(reference.held_out))
        # No image is in both halves, so there is none to leave out here.
        nobody = np.empty((len(reference.held_out), 0), dtype=object)
        self._held_out_neighbours = np.sort(self._nearest(reference.held_out, 1, nobody))

    def measure(self, injected: NDArray[np.float32], exclude: NDArray[np.object_]) -> Distances:
        """Distances of tokens (pair, channel); tokens of the images `exclude` (pair, excluded) are no neighbours."""
        # Zero and mean put the same token everywhere: measure it once.
        repeats = len(injected) if len(injected) > 1 and (injected == injected[0]).all() else 1
        measured = injected[:1] if repeats > 1 else injected
        mahalanobis = np.repeat(self._mahalanobis(measured), repeats)
        norm = np.repeat(_norms(measured), repeats)
        neighbour = self._nearest(measured, repeats, exclude)
        mahalanobis_percentile = percentile(self._held_out_mahalanobis, mahalanobis)
        norm_percentile = percentile(self._held_out_norms, norm)
        neighbour_percentile = percentile(self._held_out_neighbours, neighbour)
        return Distances(
            mahalanobis=mahalanobis,
            mahalanobis_percentile=mahalanobis_percentile,
            mahalanobis_two_sided=two_sided(mahalanobis_percentile),
            norm=norm,
            norm_percentile=norm_percentile,
            norm_two_sided=two_sided(norm_percentile),
            neighbour=neighbour,
            neighbour_percentile=neighbour_percentile,
            neighbour_two_sided=two_sided(neighbour_percentile),
        )

    def _mahalanobis(self, tokens: NDArray[np.float32]) -> NDArray[np.float64]:
        if self._constant:
            return np.where((tokens == self._centre).all(axis=1), 0.0, np.inf)
        distances = np.empty(len(tokens))
        for start in range(0, len(tokens), CHUNK):
            whitened = (tokens[start : start + CHUNK] - self._centre) @ self._whiten
            distances[start : start + CHUNK] = np.sqrt(np.einsum("pc,pc->p", whitened, whitened))
        return distances

    def _nearest(
        self, measured: NDArray[np.float32], repeats: int, exclude: NDArray[np.object_]
    ) -> NDArray[np.float64]:
        """Distance to the nearest row whose image is not excluded, float64 (pair,); infinite where none is left.

        A product and a minimum, since scikit-learn's search costs 0.9 ms before it looks at a token, in each of some
        thousand calls of a replay: 32 tokens among 500 take it 1.3 ms, this 0.6 ms (one thread, 384 channels).
        """
        codes = np.array([self._code_of_image.get(name, -1) for name in exclude.ravel()], dtype=np.int64)
        codes = codes.reshape(exclude.shape)
        nearest = np.empty(len(exclude))
        step = max(1, COMPARED // len(self._fit))
        for start in range(0, len(exclude), step):
            chunk = slice(start, start + step)
            if start == 0 or repeats == 1:
                tokens = measured[chunk].astype(np.float64)
                squares = self._compare(tokens)
            candidates = np.repeat(squares, len(codes[chunk]), axis=0) if repeats > 1 else squares
            for code in codes[chunk].T:
                candidates[self._image_of_row == code[:, None]] = np.inf
            row = candidates.argmin(axis=1)
            apart = tokens - self._fit[row]
            distance = np.sqrt(np.einsum("pc,pc->p", apart, apart))
            nearest[chunk] = np.where(np.isinf(candidates[np.arange(len(row)), row]), np.inf, distance)
        return nearest

    def _compare(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """Squared distance of tokens (pair, channel) to each row, (pair, row), less the token's own square."""
        return np.asarray(self._squares - 2 * (tokens @ self._fit.T))


class Meter:
    """Measures injected tokens against the reference tokens of one calibration; fits each kind of token once."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._fitted: dict[tuple[int, str, int], FittedReference | None] = {}

    def measure(
        self, layer: int, selection: Selection, injected: NDArray[np.float32], exclude: NDArray[np.object_]
    ) -> Distances:
        """Distances of the tokens put in at one state.

        Parameters
        ----------
        layer
            The state.
        selection
            The edited tokens, (pair,).
        injected
            What stands there after the edit, (pair, channel).
        exclude
            Ids of images whose tokens are no neighbours, (pair, excluded): see `own_images`.

        Returns
        -------
        One value per pair; NaN where the calibration holds no or too few natural tokens of the kind at that state.
        """
        columns = {field.name: np.full(len(selection), np.nan) for field in fields(Distances)}
        slots = self._calibration.slots(selection.token_type, selection.token)
        for slot in np.unique(slots).tolist():
            fitted = self._fit(layer, selection.token_type, slot)
            if fitted is None:
                continue
            pairs = np.flatnonzero(slots == slot)
            measured = fitted.measure(injected[pairs], exclude[pairs])
            for name, column in columns.items():
                column[pairs] = getattr(measured, name)
        return Distances(**columns)

    def _fit(self, layer: int, token_type: str, slot: int) -> FittedReference | None:
        kind = (layer, token_type, slot)
        if kind not in self._fitted:
            held = self._calibration.has_reference(layer, token_type)
            reference = self._calibration.reference(layer, token_type, slot) if held else None
            self._fitted[kind] = FittedReference(reference) if reference is not None and enough(reference) else None
        return self._fitted[kind]


def own_images(
    images: Images, image: NDArray[np.int64], donors: NDArray[np.int64] | None = None
) -> NDArray[np.object_]:
    """Ids of the images that an injected token may stem from, (pair, excluded): the edited one and its donor.

    A donor's token is natural, so its own row among the reference tokens would always be at distance 0. `image` (pair,)
    indexes the cache's images, `donors` (image,) is what `Replacement.donors` returns.
    """
    ids = np.asarray(images.image_id, dtype=object)
    columns = [ids[image]] if donors is None else [ids[image], ids[donors[image]]]
    return np.stack(columns, axis=1)


def per_image(distances: Distances, image: NDArray[np.int64], images: int) -> Distances:
    """Averages over the edited tokens of each image, (image,); NaN for an image without any.

    `image` (pair,) is the index of each pair's image among `images`.
    """
    edited = np.bincount(image, minlength=images)
    averages = {}
    for field in fields(Distances):
        sums = np.bincount(image, weights=getattr(distances, field.name), minlength=images)
        averages[field.name] = np.divide(sums, edited, out=np.full(images, np.nan), where=edited > 0)
    return Distances(**averages)


def enough(reference: Reference) -> bool:
    """Whether there are natural tokens enough to measure against."""
    return min(len(reference.fit), len(reference.held_out)) >= FEWEST


def percentile(ascending: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank of each value in an ascending sample, 0 to 100; ties count half."""
    below = np.searchsorted(ascending, values, side="left")
    not_above = np.searchsorted(ascending, values, side="right")
    return np.asarray(50.0 * (below + not_above) / len(ascending))


def two_sided(percentiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """How unremarkable a percentile is in either direction: 100 at the median, 0 outside the sample."""
    return np.asarray(2.0 * np.minimum(percentiles, 100.0 - percentiles))


def _norms(tokens: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.einsum("pc,pc->p", tokens, tokens, dtype=np.float64)))
