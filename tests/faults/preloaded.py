"""What the server process of `tests.faults.commands` imports before it forks."""

from __future__ import annotations

import torch

import cachetool.api
import cachetool.cli
from cachetool.datasets import open_dataset
from tests.reference.quick import quick_load

torch.set_num_threads(1)  # a pool of threads would not survive the fork
quick_load("tiny-reg")
_ = open_dataset("shapes").labels  # which it keeps
cachetool.cli.build()
