"""How ranks know who they are and where they meet: the environment that torchrun, srun or our launcher gives them."""

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ClusterError

TORCHRUN_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
SLURM_NAMES = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
IN_A_STEP = "SLURM_STEP_ID"  # a batch script has the names of its first task, too, but is in no step
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
RENDEZVOUS = "PRETRAIN_RENDEZVOUS"  # where started ranks meet, as torch names it


def joined_rank(environ: Mapping[str, str]) -> dict[str, str] | None:
    """Torchrun's variables of this process if torchrun or srun started it; None if it is to start the ranks itself."""
    names = TORCHRUN_NAMES
    if not all(name in environ for name in names):
        names = SLURM_NAMES
        # One task alone, as `srun --pty bash` gives, is no rank among others.
        if IN_A_STEP not in environ or environ.get("SLURM_NTASKS") == "1":
            return None
    if not all(name in environ for name in names):
        return None
    return {known: environ[name] for known, name in zip(TORCHRUN_NAMES, names, strict=True)}


def started_rank(rank: int, world_size: int, folder: Path) -> dict[str, str]:
    """What torchrun would set, for a rank started on this machine.

    The ranks meet through a file in `folder`, so that no port can be taken, and talk over loopback.
    """
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        RENDEZVOUS: f"file://{folder}/store",
    } | LOOPBACK


def init_method() -> str:
    """Where this process's ranks meet, for `torch.distributed.init_process_group`.

    Raises:
        ClusterError: srun started it, and nothing says where.
    """
    if RENDEZVOUS in os.environ:
        return os.environ[RENDEZVOUS]
    if missing := sorted({"MASTER_ADDR", "MASTER_PORT"} - os.environ.keys()):
        raise ClusterError(
            f"{' and '.join(missing)} must be set in the environment for ranks that srun started: the host of rank 0, "
            "and a free port of it, the same for all ranks."
        )
    return "env://"
