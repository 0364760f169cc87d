"""What the images at hand say about other images: one bootstrap for all metrics, exact where it would promise too much.

- `design`: what is drawn (images, sequences, the images of pairs)
- `bootstrap`: all arms of a family on shared resamples
- `exact`: bounds where few units differ
- `compare`: intervals, p-values, equivalence
- `multiple`: families of comparisons
"""

from analyses.inference.bootstrap import RESAMPLES, Arm, Replicates, bootstrap, check_resamples
from analyses.inference.compare import EQUIVALENCE_MARGIN, Comparison, check_confidence, compare
from analyses.inference.design import Design
from analyses.inference.multiple import holm
from analyses.inference.paired import Difference, paired_difference

__all__ = [
    "EQUIVALENCE_MARGIN",
    "RESAMPLES",
    "Arm",
    "Comparison",
    "Design",
    "Difference",
    "Replicates",
    "bootstrap",
    "check_confidence",
    "check_resamples",
    "compare",
    "holm",
    "paired_difference",
]
