"""The process groups of one rank: torch's world, megatron-core's grid, and the device that the rank drives."""

import hashlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from megatron.core import parallel_state, tensor_parallel
from torch._C._distributed_c10d import HashStore, PrefixStore, Store
from torch.distributed.rendezvous import rendezvous as torch_rendezvous

from pipeline import cpu, rendezvous
from pipeline.devices import Device
from pipeline.errors import ClusterError, UserError
from pipeline.topology import Coordinate, Topology

Made = TypeVar("Made")

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
        store=meet(timeout_seconds=timeout_seconds),
        rank=int(os.environ["RANK"]),
        world_size=world_size,
        timeout=timedelta(seconds=timeout_seconds),
    )
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=topology.tensor,
        pipeline_model_parallel_size=topology.pipeline,
        create_gloo_process_groups=False,
    )
    seed_streams(seed, topology.coordinate(torch.distributed.get_rank()))


def meet(problem: str | None = None, *, timeout_seconds: int = 1800) -> Store:
    """Wait for all ranks that the environment speaks of, and tell them if this one cannot take part.

    Args:
        problem: why this rank cannot go on; None if it can.

    Returns:
        The place where they have met.

    Raises:
        UserError: a rank cannot go on; every rank raises the same, so that none waits for it.
    """
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    timeout = timedelta(seconds=timeout_seconds)
    store, _, _ = next(torch_rendezvous(rendezvous.init_method(), rank, world_size, timeout=timeout))
    if problem is not None:
        store.set(f"problem/{store.add('problems', 1)}", f"rank {rank} on {socket.gethostname()}: {problem}")
    if store.add("ranks", 1) == world_size:
        store.set("complete", "")
    store.wait(["complete"], timeout)
    if num_problems := store.add("problems", 0):
        first = store.get("problem/1").decode()
        if store.add("told", 1) == world_size:
            store.set("all told", "")
        if rank == 0:  # the place may be in this process
            store.wait(["all told"], timeout)
        raise UserError(first if num_problems == 1 else f"{first} ({num_problems} ranks of {world_size} say so)")
    return PrefixStore("world", store)


def on_all_ranks(make: Callable[[], Made]) -> Made:
    """What `make` returns; if it fails on any rank, all ranks raise a UserError that says where, so that none waits."""
    try:
        made, problem = make(), None
    except Exception as error:  # noqa: BLE001 (told to all)
        problem = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    problems = all_gathered(None if problem is None else (socket.gethostname(), problem))
    if found := [(rank, *told) for rank, told in enumerate(problems) if told is not None]:
        rank, host, text = found[0]
        raise UserError(text if len(found) == len(problems) else f"rank {rank} on {host}: {text}")
    return made


def all_gathered(value: Made) -> list[Made]:
    """The `value` of each rank, on every rank; called by all of them."""
    values: list[Made] = [value] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def in_words(ranks: Sequence[int]) -> str:
    """`rank 3`, or `ranks 0, 2`."""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def seed_streams(seed: int, place: Coordinate) -> None:
    """Seed the two random streams that dropout draws from.

    Tensor-parallel ranks share torch's own, for activations that each of them has in full; of the model-parallel
    stream, for split ones, each has its own. Ranks that differ in another axis share neither.
    """
    torch.manual_seed(_mixed(seed, place.pipeline, place.data))
    tracker = tensor_parallel.get_cuda_rng_tracker()
    tracker.reset()
    tracker.add(MODEL_PARALLEL_STREAM, _mixed(seed, place.pipeline, place.data, place.tensor))


def _mixed(*numbers: int) -> int:
    """A seed below 2^63 that differs where one of `numbers` does."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest(), "big") >> 1


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
    seed_streams(seed, Coordinate(pipeline=0, data=0, tensor=0))
    try:
        yield
    finally:
        stop()
        torch.cuda.current_device = current_device
