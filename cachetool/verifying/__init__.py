"""Is a store what it says it is: every byte against its checksum, a sample computed again, and what is bad mended."""

from cachetool.verifying.report import Compared, Problem, Repair, Report
from cachetool.verifying.verification import DEFAULT_RECOMPUTE, verify

__all__ = ["DEFAULT_RECOMPUTE", "Compared", "Problem", "Repair", "Report", "verify"]
