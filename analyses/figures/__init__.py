"""Figures: colour-blind-safe, with units and intervals, drawn from the tidy table alone.

- `dose_and_plausibility`: does damage follow distance from natural tokens, or content?
- `layer_sweep`: from which state on does an edit do damage?
- `lesions`: registers one by one and together
- `heat_map`: all edits on all tasks
- `refit`: is the head broken, or the information gone?
- `write_figures`: all of these, for all models and data sets of a table
- `register_figure`: the figure of the demo
"""

from analyses.figures.dose_and_plausibility import dose_and_plausibility
from analyses.figures.heat_map import heat_map
from analyses.figures.layer_sweep import layer_sweep
from analyses.figures.lesions import lesions
from analyses.figures.refit import refit
from analyses.figures.registers import register_figure
from analyses.figures.writing import write_figures

__all__ = [
    "dose_and_plausibility",
    "heat_map",
    "layer_sweep",
    "lesions",
    "refit",
    "register_figure",
    "write_figures",
]
