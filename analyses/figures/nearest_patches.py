"""What the patches nearest to each register show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analyses.examples.nearest import CONTEXT, NearestPatch
from analyses.figures.style import ORANGE, entitle, save
from cachetool.errors import MissingDataError

_CAPTION = (
    "Patches of the whole cache with the highest cosine to the register's mean over images, from the nearest on, each "
    "with {context} patch of its surroundings on every side; layer {layer}. Number: cosine."
)


def nearest_patches(cutouts: Sequence[NearestPatch], path: Path, *, layer: int | None = None) -> None:
    """Draw the patches nearest to each register at one layer, and save them.

    Parameters
    ----------
    cutouts
        What `analyses.examples.nearest.nearest_cutouts` returned.
    path
        File to write; its ending decides the format.
    layer
        The layer; by default the last.

    Raises
    ------
    MissingDataError
        There are no patches of this layer.
    """
    save(draw(cutouts, layer), path)


def draw(cutouts: Sequence[NearestPatch], layer: int | None = None) -> Figure:
    """The figure: a row a register, from the nearest patch on."""
    shown = max((one.layer for one in cutouts), default=-1) if layer is None else layer
    own = [one for one in cutouts if one.layer == shown]
    if not own:
        known = sorted({one.layer for one in cutouts})
        raise MissingDataError(f"no nearest patches of layer {shown}; there are layers {known}")
    registers, ranks = (1 + max(getattr(one, name) for one in own) for name in ("register", "rank"))
    figure = Figure(figsize=(max(0.85 * ranks + 0.8, 5), 0.98 * registers + 1.1), layout="constrained")
    grid = figure.subplots(registers, ranks, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for one in own:
        axes = grid[one.register, one.rank]
        axes.imshow(one.cutout)
        side = len(one.cutout) / (2 * CONTEXT + 1)
        corner = CONTEXT * side - 0.5
        axes.add_patch(Rectangle((corner, corner), side, side, fill=False, edgecolor=ORANGE, linewidth=1))
        axes.set_title(f"{one.cosine:.3f}", fontsize=6, pad=2)
    for register in range(registers):
        axes = grid[register, 0]
        axes.text(-0.1, 0.5, f"register {register}", transform=axes.transAxes, ha="right", va="center", fontsize=7)
    entitle(figure, "Patches nearest to each register", _CAPTION.format(context=CONTEXT, layer=shown))
    return figure
