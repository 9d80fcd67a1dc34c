"""Whether processes of this machine still run."""

import os
from pathlib import Path


def start_of(pid: int) -> int:
    """When a process started, in clock ticks since the machine started; 0 if it has ended, if only as a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])


def is_running(pid: int) -> bool:
    """Whether there is a process of this number; where there is no /proc, one that has ended may count, too."""
    if Path("/proc/self/stat").exists():
        return start_of(pid) != 0
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True
