"""What this machine computes on, found out without importing torch."""

from importlib import metadata
from pathlib import Path
from typing import Literal

Device = Literal["cpu", "cuda"]


def num_gpus() -> int:
    """The NVIDIA GPUs that this machine, or the container that this is, shows."""
    return sum(1 for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdecimal())


def resolve(name: Literal["auto", "cpu", "cuda"]) -> Device:
    """The device that `run.device` means here: `auto` takes CUDA where there is a GPU and torch is built for one."""
    if name != "auto":
        return name
    return "cuda" if num_gpus() and not metadata.version("torch").endswith("+cpu") else "cpu"
