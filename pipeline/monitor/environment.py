"""What a run ran on, for `RUN_DIR/environment.json` and the manifests of its checkpoints."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("pretrain-pipeline", "torch", "deepspeed", "megatron-core", "numpy")


def versions() -> dict[str, str]:
    """Package to version, for those that a checkpoint's files depend on."""
    return {name: metadata.version(name) for name in PACKAGES}


def describe(device: torch.device) -> dict[str, Any]:
    """Versions, device, machine and git commit."""
    return {
        "versions": versions(),
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "platform": platform.platform(),
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():  # installed, perhaps inside another project's repository
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
