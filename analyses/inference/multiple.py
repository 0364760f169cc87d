"""Several comparisons at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Adjust the p-values of one family so that the chance of any false claim is held.

    With p(1) <= ... <= p(m) of m hypotheses, the adjusted value of the i-th is max over j <= i of
    min(1, (m - j + 1) p(j)) (Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 1979), whatever the dependence between the tests.

    Parameters
    ----------
    p_values
        (hypothesis,); NaN where there was no test, which does not count as a member of the family.

    Returns
    -------
    float64 (hypothesis,), NaN where it was NaN.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(raw.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(raw))
    order = tested[np.argsort(raw[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * raw[order]))
    return adjusted
