from __future__ import annotations

import pytest
import torch

from cachetool.environment import copying_alone


@pytest.mark.parametrize(("device", "within"), [("cpu", 2), ("cuda", 1), ("mps", 1)])
def test_only_blocks_on_the_cpu_have_helpers_of_openmp(device: str, within: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with copying_alone(torch.device(device)):
            assert torch.get_num_threads() == within
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
