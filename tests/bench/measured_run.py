"""One run of a command on chosen cores: how long it took, by both clocks, and what its processes held in memory."""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SECONDS_BETWEEN_SAMPLES = 0.05


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """What a run needed.

    Attributes:
        seconds: from the start of the process to its end.
        cpu_seconds: of the process and of those that it started and waited for.
        peak_bytes: the most that was resident of any one of its processes, which counts shared pages in each.
        output: what it printed.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


def measured_run(
    command: Sequence[str], *, cores: Sequence[int], folder: Path, environment: Mapping[str, str]
) -> MeasuredRun:
    """Run `command` in `folder` to its end, it and its children on `cores` only.

    Raises:
        SystemExit: it failed; with the end of what it printed.
    """
    log = folder / "log.txt"
    pinned = ["taskset", "--cpu-list", ",".join(map(str, cores)), *command]
    with log.open("wb") as file:
        started = time.perf_counter()
        process = subprocess.Popen(pinned, cwd=folder, env=dict(environment), stdout=file, stderr=subprocess.STDOUT)
        memory = _Memory(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    output = log.read_text(encoding="utf-8", errors="replace")
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}:\n{output[-2000:]}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return MeasuredRun(seconds=seconds, cpu_seconds=cpu_seconds, peak_bytes=memory.stop(), output=output)


@dataclass
class _Memory:
    """Asks each process now and then for the most that it held so far, so that no peak is missed but the very last."""

    pid: int
    _peaks: dict[int, int] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> int:
        self._ended.set()
        self._thread.join()
        return max(self._peaks.values(), default=0)

    def _watch(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_SAMPLES):
            try:
                root = psutil.Process(self.pid)
                for pid in (self.pid, *(child.pid for child in root.children(recursive=True))):
                    self._peaks[pid] = max(self._peaks.get(pid, 0), _peak_bytes(pid))
            except psutil.NoSuchProcess:
                return


def _peak_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
