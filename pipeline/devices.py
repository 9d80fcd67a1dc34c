"""What this machine computes on, found out without importing torch."""

import os
from importlib import metadata
from pathlib import Path
from typing import Literal

Device = Literal["cpu", "cuda"]


def num_gpus() -> int:
    """The NVIDIA GPUs that this machine, or the container that this is, shows, as far as CUDA_VISIBLE_DEVICES lets."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([one for one in visible.split(",") if one.strip() not in ("", "-1")])
    return sum(1 for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdecimal())


def resolve(name: Literal["auto", "cpu", "cuda"]) -> Device:
    """The device that `run.device` means here: `auto` takes CUDA where there is a GPU and torch is built for one."""
    if name != "auto":
        return name
    return "cuda" if num_gpus() and not metadata.version("torch").endswith("+cpu") else "cpu"
