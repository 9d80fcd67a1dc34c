"""A contender of `bench_step.py` in its own process, which trains a step when it is told to."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SECONDS_TO_START = 600


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Who trains: `side` is ours or transformers, the sizes are those of ours."""

    name: str
    side: str
    tensor: int = 1
    pipeline: int = 1

    @property
    def num_ranks(self) -> int:
        return self.tensor * self.pipeline


class Step(NamedTuple):
    """One step: its duration by the clock on the wall, the processor's time of the first rank, and its loss."""

    seconds: float
    processor_seconds: float
    loss: float


class StepProcess:
    """A contender that has built its model and waits; closing it ends it."""

    def __init__(self, contender: Contender, task: str, *, accumulate: int, threads: int, zero_stage: int) -> None:
        self._name = f"{task}, {contender.name}"
        self._folder = Path(tempfile.mkdtemp(prefix="bench_step_"))
        address = str(self._folder / "socket")
        command = [sys.executable, "-W", "ignore", "-m", "tests.bench.step_contender", contender.side, task, address]
        command += [str(self._folder), "--accumulate", str(accumulate), "--zero", str(zero_stage)]
        command += ["--tensor", str(contender.tensor), "--pipeline", str(contender.pipeline)]
        environment = os.environ | {"OMP_NUM_THREADS": str(max(threads // contender.num_ranks, 1))}
        with socket.socket(socket.AF_UNIX) as server, (self._folder / "output.txt").open("wb") as output:
            server.bind(address)
            server.listen(1)
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
            self._connection = self._accept(server)
        self._hear()

    def step(self) -> Step:
        """Have it train one step."""
        self._connection.send(True)
        return Step(*self._hear())

    def close(self) -> None:
        self._connection.close()
        self._process.wait()
        shutil.rmtree(self._folder)

    def _accept(self, server: socket.socket) -> Connection:
        server.settimeout(1.0)
        for _ in range(SECONDS_TO_START):
            try:
                return Connection(server.accept()[0].detach())
            except TimeoutError:
                if self._process.poll() is not None:
                    break
        self._process.kill()
        raise SystemExit(self._how_it_ended())

    def _hear(self) -> Sequence[float]:
        try:
            heard: Sequence[float] = self._connection.recv()
        except EOFError:
            raise SystemExit(self._how_it_ended()) from None
        return heard

    def _how_it_ended(self) -> str:
        output = (self._folder / "output.txt").read_text(encoding="utf-8", errors="replace")
        return f"{self._name} ended with {self._process.wait()}:\n{output[-3000:]}"
