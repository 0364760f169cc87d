"""Blocks computed by the workers of a dask cluster, written under the lock that the driver holds.

A task is one block of one store, so that it has one writer; a worker that is lost loses the block in hand, which
another one computes again. Values are those of a single process: blocks are cut into the same batches, and what is
summed over blocks is summed in their order.
"""

from cachetool.distributing.calibration import summarize_on
from cachetool.distributing.cluster import Cluster
from cachetool.distributing.connecting import ClusterLike, connect
from cachetool.distributing.extraction import compute_on
from cachetool.distributing.graphs import ClusterScheduler, GraphJob
from cachetool.distributing.replays import replay_on

__all__ = [
    "Cluster",
    "ClusterLike",
    "ClusterScheduler",
    "GraphJob",
    "compute_on",
    "connect",
    "replay_on",
    "summarize_on",
]
