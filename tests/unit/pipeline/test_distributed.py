"""A rank's device, its world, and its random streams."""

import pytest
import torch
from megatron.core.tensor_parallel import get_cuda_rng_tracker

from pipeline import distributed
from pipeline.errors import ClusterError
from pipeline.topology import Coordinate, Topology

CPU = torch.device("cpu")


def test_a_device_is_taken_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed.device_for("cpu", 3) == CPU
    assert distributed.device_for("cuda", 1) == torch.device("cuda", 1)
    with pytest.raises(ClusterError, match=r"run\.device=cuda .* 2 GPUs .* local rank 2"):
        distributed.device_for("cuda", 2)


def test_a_world_of_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ClusterError, match="3 ranks were started but the layout is TP 2 x PP 1 x DP 1, which needs 2"):
        distributed.start(Topology(tensor=2), device=CPU, seed=1)


def draws(seed: int, tensor: int, *, data: int = 0) -> tuple[float, float]:
    """The first number of the common stream, and of the model-parallel one."""
    distributed.seed_streams(seed, Coordinate(pipeline=0, data=data, tensor=tensor))
    with get_cuda_rng_tracker().fork():
        own = float(torch.rand(()))
    return float(torch.rand(())), own


def test_tensor_parallel_ranks_share_one_stream_and_differ_in_the_other() -> None:
    with distributed.single_process():
        first, second = draws(5, 0), draws(5, 1)
        assert first[0] == second[0]
        assert first[1] != second[1]
        assert draws(5, 0) == first
        assert draws(6, 0) != first
        copy = draws(5, 0, data=1)
        assert copy[0] != first[0]
        assert copy[1] != first[1]
    assert not torch.distributed.is_initialized()


def test_the_world_of_one_ends_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), distributed.single_process():
        raise ZeroDivisionError
    assert not torch.distributed.is_initialized()
