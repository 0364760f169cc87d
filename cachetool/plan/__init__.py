"""What work will cost, said before it is done: bytes, memory, and time from a short measurement on this machine."""

from cachetool.plan.costs import Plan
from cachetool.plan.extraction import plan_extraction
from cachetool.plan.replay import plan_replay

__all__ = ["Plan", "plan_extraction", "plan_replay"]
