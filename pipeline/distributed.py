"""The process groups of one rank: torch's world, megatron-core's grid, and the device that the rank drives."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from megatron.core import parallel_state, tensor_parallel
from torch._C._distributed_c10d import HashStore

from pipeline import cpu, rendezvous
from pipeline.devices import Device
from pipeline.errors import ClusterError
from pipeline.topology import Topology

# The random stream that megatron-core's layers draw from where tensor-parallel ranks must differ.
MODEL_PARALLEL_STREAM = "model-parallel-rng"


def device_for(name: Device, local_rank: int) -> torch.device:
    """The device of this rank, which drives GPU `local_rank` of its node where `name` is `cuda`.

    Raises:
        ClusterError: `cuda` was asked for and this machine has no GPU for this rank.
    """
    if name == "cpu":
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ClusterError(
            f"run.device=cuda is wrong because this node has {torch.cuda.device_count()} GPUs and a rank here has "
            f"local rank {local_rank}. Start at most one rank a GPU, or set run.device=cpu."
        )
    return torch.device("cuda", local_rank)


def start(topology: Topology, *, device: torch.device, seed: int, timeout_seconds: int = 1800) -> None:
    """Join the world named by the environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) and build the grid's groups.

    Raises:
        ClusterError: the number of ranks that were started is not the layout's, or they do not know where to meet.
    """
    world_size = int(os.environ["WORLD_SIZE"])
    if world_size != topology.world_size:
        raise ClusterError(
            f"{world_size} ranks were started but the layout is {topology}, which needs {topology.world_size}. "
            f"Start {topology.world_size} ranks or change parallel.*."
        )
    if device.type == "cuda":
        # Lets megatron-core's all-reduce begin before the product that it overlaps with.
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
        torch.cuda.set_device(device)
    else:
        cpu.prepare()
        if "OMP_NUM_THREADS" not in os.environ:
            neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            torch.set_num_threads(max(len(os.sched_getaffinity(0)) // neighbours, 1))
    torch.distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=rendezvous.init_method(),
        rank=int(os.environ["RANK"]),
        world_size=world_size,
        timeout=timedelta(seconds=timeout_seconds),
    )
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=topology.tensor,
        pipeline_model_parallel_size=topology.pipeline,
        create_gloo_process_groups=False,
    )
    seed_streams(seed, topology.coordinate(torch.distributed.get_rank()).tensor)


def seed_streams(seed: int, tensor_rank: int) -> None:
    """Seed torch alike on all ranks, and the model-parallel stream by tensor rank."""
    torch.manual_seed(seed)
    tracker = tensor_parallel.get_cuda_rng_tracker()
    tracker.reset()
    tracker.add(MODEL_PARALLEL_STREAM, seed + 2718 + tensor_rank)


def stop() -> None:
    """Leave the world."""
    parallel_state.destroy_model_parallel()
    torch.distributed.destroy_process_group()


@contextmanager
def single_process(seed: int = 0) -> Iterator[None]:
    """A world of this process alone, on the CPU, for the commands that run the training model unsplit."""
    current_device = torch.cuda.current_device
    cpu.prepare()
    os.environ.update(rendezvous.LOOPBACK)
    torch.distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
    seed_streams(seed, 0)
    try:
        yield
    finally:
        stop()
        torch.cuda.current_device = current_device
