from __future__ import annotations

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

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


def test_products_of_numpy_keep_their_threads_where_a_device_computes() -> None:
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library.get("threading_layer") == "pthreads"]

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        if 2 not in before:
            pytest.skip("NumPy's products have no threads of their own here")
        with copying_alone(torch.device("cuda")):
            assert threads() == before
