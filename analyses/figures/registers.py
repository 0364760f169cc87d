"""The figure of the demo: what each replacement of the registers does to classification and to patch features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from analyses.figures.style import BLUE, GREY, VERMILION, save
from analyses.inference import EQUIVALENCE_MARGIN, Difference


def register_figure(
    names: Sequence[str],
    differences: Sequence[Difference],
    cosines: Sequence[npt.NDArray[np.float32]],
    path: Path,
    *,
    title: str,
) -> None:
    """Draw the effect of each replacement on classification and on patch features, and save it.

    Parameters
    ----------
    names
        Replacement of each row.
    differences
        Change of top-1 accuracy against the intact arm.
    cosines
        Cosine of every final patch with its intact self, (value,), of each row.
    path
        File to write; its ending decides the format.
    """
    figure = Figure(figsize=(8.6, 0.55 * len(names) + 1.7), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rows = np.arange(len(names))[::-1]
    points = 100 * np.array([difference.estimate for difference in differences])
    low = points - 100 * np.array([difference.low for difference in differences])
    high = 100 * np.array([difference.high for difference in differences]) - points
    left.axvspan(-100 * EQUIVALENCE_MARGIN, 100 * EQUIVALENCE_MARGIN, color=GREY, alpha=0.25, lw=0, label="±1 pp")
    left.axvline(0, color=GREY, lw=1)
    left.errorbar(points, rows, xerr=np.stack([low, high]), fmt="o", color=BLUE, capsize=4, label="95 % interval")
    left.set_yticks(rows, names)
    left.set_ylim(-0.6, len(names) - 0.4)
    left.set_xlabel("change of top-1 accuracy (percentage points)")
    left.legend(frameon=False, fontsize="small", loc="best")
    for row, values in zip(rows, cosines, strict=True):
        quartiles = np.percentile(values, [5, 25, 50, 75, 95])
        right.plot(quartiles[[0, 4]], [row, row], color=VERMILION, lw=1.2)
        right.plot(quartiles[[1, 3]], [row, row], color=VERMILION, lw=5, solid_capstyle="butt")
        right.plot(quartiles[2], row, "o", color="white", markeredgecolor=VERMILION, markersize=6)
    right.set_xlabel("cosine of final patches with intact\n(median, quartiles, 5 to 95 %)")
    right.axvline(1, color=GREY, lw=1)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize="medium")
    save(figure, path)
