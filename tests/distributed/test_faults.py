"""What goes wrong while ranks run: Ctrl-C, a rank that dies or fails, a full disk. No process is left."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pipeline import train
from pipeline.checkpoint import files
from pipeline.checkpoint.manifest import find_checkpoints
from pipeline.config.load import to_yaml
from pipeline.config.schema import RunConfig
from pipeline.errors import ClusterError, UserError
from tests.distributed import runs
from tests.distributed.runs import Layout

REPO = Path(__file__).parents[2]
ENDS_WITHIN_SECONDS = 10.0
LAYOUT: Layout = (1, 2, 2, 1)
ENDLESS = {"run.steps": 100_000}
# One step takes longer than ranks that are asked to stop are waited for.
HEAVY = ENDLESS | {"batch.global_batch_size": 20_000}


class Command:
    """`pretrain train` of a config, in a process group of its own as a shell would give it."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        path = folder / "run.yaml"
        path.write_text(to_yaml(config))
        self.log = Path(config.run.dir) / "log/rank_00000.log"
        self._stderr_path = folder / "stderr"
        with self._stderr_path.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", "train", str(path)],
                stderr=stderr,
                start_new_session=True,
                cwd=REPO,
            )

    @property
    def stderr(self) -> str:
        return self._stderr_path.read_text()

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"it ended:\n{self.stderr}"
            assert time.monotonic() < until, f"it does not come:\n{self.stderr}"
            time.sleep(0.05)

    def ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def members(self) -> list[psutil.Process]:
        """All processes of its session."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found

    def ranks(self) -> list[psutil.Process]:
        """The ranks, which are children of the process that forks them, in their order."""
        [server] = [process for process in self.children() if "forkserver" in " ".join(process.cmdline())]
        return sorted(server.children(), key=lambda process: process.pid)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def ended(self) -> int:
        """The exit code, once every process is gone, which takes no longer than it may."""
        until = time.monotonic() + ENDS_WITHIN_SECONDS
        code = self.process.wait(ENDS_WITHIN_SECONDS)
        while self.members():
            assert time.monotonic() < until, [process.cmdline() for process in self.members()]
            time.sleep(0.05)
        return code

    def kill(self) -> None:
        for process in self.members():
            process.kill()
        self.process.wait()


@pytest.fixture
def start(data: Path, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts the command on a config with overrides; whatever is left of it is killed at the end."""
    started = []

    def start_command(**overrides: object) -> Command:
        command = Command(runs.run_config(data, tmp_path / "run", LAYOUT, overrides), tmp_path)
        started.append(command)
        return command

    yield start_command
    for command in started:
        command.kill()


def trained_steps(command: Command) -> int:
    return command.stderr.count("  loss ")


def test_ctrl_c_saves_and_ends_all_ranks(start: Callable[..., Command], tmp_path: Path) -> None:
    command = start(**ENDLESS)
    command.wait_for(lambda: trained_steps(command) >= 2)
    assert len(command.ranks()) == 4
    command.ctrl_c()
    assert command.ended() == 75
    assert "stopping: saving first; press Ctrl-C again to end at once" in command.stderr
    assert "interrupted: saved after step " in command.stderr.splitlines()[-1]
    assert "Traceback" not in command.stderr
    found = files.newest(tmp_path / "run")
    assert found
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir() if path.is_dir()] == [found[0].name]


@pytest.mark.parametrize("started", [False, True], ids=["importing", "ranks_starting"])
def test_ctrl_c_during_the_start_ends_all(start: Callable[..., Command], tmp_path: Path, started: bool) -> None:
    command = start(**ENDLESS)
    command.wait_for(lambda: bool(command.log.exists() if started else command.children()))
    command.ctrl_c()
    assert command.ended() in {75, 130}
    assert "Traceback" not in command.stderr
    assert "error:" not in command.stderr
    assert bool(find_checkpoints(tmp_path / "run")) == ("interrupted: saved" in command.stderr)


def test_a_step_that_is_too_long_is_not_waited_for(start: Callable[..., Command], tmp_path: Path) -> None:
    command = start(**HEAVY)
    command.wait_for(lambda: "training tokens" in command.stderr)
    command.ctrl_c()
    assert command.ended() == 130
    assert not find_checkpoints(tmp_path / "run")


def test_a_second_ctrl_c_ends_at_once(start: Callable[..., Command]) -> None:
    command = start(**HEAVY)
    command.wait_for(lambda: "training tokens" in command.stderr)
    command.ctrl_c()
    command.wait_for(lambda: "press Ctrl-C again" in command.stderr, 5)
    command.ctrl_c()
    began = time.monotonic()
    assert command.ended() == 130
    assert time.monotonic() - began < 3
    assert "Traceback" not in command.stderr


def test_a_rank_that_is_killed_ends_the_others(start: Callable[..., Command]) -> None:
    command = start(**ENDLESS)
    command.wait_for(lambda: trained_steps(command) >= 2)
    command.ranks()[2].kill()
    assert command.ended() == 1
    error = command.stderr[command.stderr.index("error: ") :]
    assert error.startswith(
        "error: rank 2 was ended by SIGKILL without a word; the kernel does this when memory runs out"
    )


def test_ranks_end_with_a_launcher_that_is_killed(start: Callable[..., Command]) -> None:
    command = start(**ENDLESS)
    command.wait_for(lambda: trained_steps(command) >= 2)
    command.process.kill()
    assert command.ended() == -signal.SIGKILL


@pytest.mark.parametrize("rank", [0, 3])
def test_the_traceback_of_the_rank_that_failed_comes_first(data: Path, tmp_path: Path, rank: int) -> None:
    config = runs.run_config(data, tmp_path, LAYOUT)
    with pytest.raises(ClusterError) as caught:
        runs.start(runs.train_and_fail, config, 3, rank)
    message = str(caught.value)
    assert message.startswith("Traceback (most recent call last):\n")
    assert message.endswith(f"ZeroDivisionError: on purpose\nrank {rank} failed")
    assert not living_ranks()


def test_a_divergence_is_told_in_one_sentence(data: Path, tmp_path: Path) -> None:
    config = runs.run_config(data, tmp_path, (1, 1, 2, 1), {"optimizer.lr": 1e38, "optimizer.grad_clip": 0.0})
    told = r"^step \d+ has loss (nan|inf) and gradient norm (nan|inf): training has diverged"
    with pytest.raises(UserError, match=told):
        runs.start(train.train, config)
    assert not find_checkpoints(tmp_path)
    assert not living_ranks()


def living_ranks() -> list[psutil.Process]:
    """The ranks that this process has started and that have not ended."""
    servers = [child for child in psutil.Process().children() if "forkserver" in " ".join(child.cmdline())]
    return [rank for server in servers for rank in server.children() if rank.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 6 MB: room for two checkpoints of the model and not for three."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("layout", [(1, 1, 1, 0), (1, 2, 1, 1)], ids=str)
def test_a_full_disk_is_told_and_the_checkpoints_before_stay(data: Path, small_disk: Path, layout: Layout) -> None:
    config = runs.run_config(data, small_disk / "run", layout, {"checkpoint.every_steps": 1})
    with pytest.raises(UserError) as caught:
        runs.start(train.train, config)
    folder = small_disk / "run/checkpoints"
    assert str(caught.value).startswith(f"{folder / 'step_0000003'} cannot be saved: ")
    assert "No space left on device. The checkpoints before it are as they were: free the disk" in str(caught.value)
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "step_0000001", "step_0000002"]
    found = files.newest(small_disk / "run")
    assert found
    assert found[0].name == "step_0000002"
    assert not living_ranks()
