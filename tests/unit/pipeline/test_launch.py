"""Ranks: joined where a scheduler started them, or started here; what comes back from them, good and bad."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import launch, log, rendezvous
from pipeline.errors import ClusterError, DataError, Interrupted, UserError

log.quieten_imports()

# What the ranks below run.


def answer(*given: Any) -> tuple[Any, ...]:
    place = tuple(int(os.environ[name]) for name in rendezvous.TORCHRUN_NAMES)
    time.sleep(0.2 * (3 - place[0]))  # the last rank is first to answer
    return (*place, *given)


def add_ranks() -> int:
    import torch

    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group(
        "gloo", init_method=os.environ[rendezvous.RENDEZVOUS], rank=rank, world_size=world_size
    )
    total = torch.tensor(rank)
    torch.distributed.all_reduce(total)
    return int(total)


def speak() -> None:
    log.set_up(rank=int(os.environ["RANK"]))
    log.get().info("logged")
    print("printed", flush=True)
    os.system("echo printed by another program")


def refuse(rank: int) -> None:
    if int(os.environ["RANK"]) == rank:
        raise DataError("shard_00001.bin is cut")
    time.sleep(60)


def fail_one_after_another(first: int) -> None:
    own = int(os.environ["RANK"])
    time.sleep(0.0 if own == first else 0.5)
    raise ZeroDivisionError(f"of {own}")


def interrupt() -> None:
    raise Interrupted("saved after step 3 of 9")


def die(rank: int, how: int) -> None:
    if int(os.environ["RANK"]) == rank:
        if how:
            os.kill(os.getpid(), how)
        os._exit(3)
    time.sleep(60)


def exit_early() -> None:
    sys.exit("enough")


def run(function: Any, *args: Any, world_size: int, log_dir: Path) -> list[Any]:
    return launch.run(f"{__name__}:{function.__name__}", *args, world_size=world_size, log_dir=log_dir)


def test_results_come_in_rank_order(tmp_path: Path) -> None:
    found = run(answer, "given", {"a": 1}, world_size=3, log_dir=tmp_path / "log")
    assert found == [(rank, 3, rank, "given", {"a": 1}) for rank in range(3)]


def test_ranks_find_each_other(tmp_path: Path) -> None:
    assert run(add_ranks, world_size=3, log_dir=tmp_path) == [3, 3, 3]


def test_output_goes_to_the_files_and_what_rank_0_logs_is_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(speak, world_size=2, log_dir=tmp_path)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.endswith("logged\n")
    assert shown.err.count("\n") == 1
    for rank in range(2):
        assert (tmp_path / f"rank_{rank:05d}.log").read_text().splitlines()[-2:] == [
            "printed",
            "printed by another program",
        ]


def test_wrong_input_is_told_without_a_traceback(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        run(refuse, 1, world_size=2, log_dir=tmp_path)
    assert str(caught.value) == "shard_00001.bin is cut"
    assert not isinstance(caught.value, ClusterError)
    assert time.monotonic() - began < 30, "the other rank was waited for"
    assert "DataError: shard_00001.bin is cut" in (tmp_path / "rank_00001.log").read_text()


@pytest.mark.parametrize("first", [0, 1])
def test_of_several_failures_the_first_is_shown(tmp_path: Path, first: int) -> None:
    with pytest.raises(ClusterError) as caught:
        run(fail_one_after_another, first, world_size=2, log_dir=tmp_path)
    assert str(caught.value).startswith("Traceback (most recent call last):\n")
    assert str(caught.value).endswith(f"\nZeroDivisionError: of {first}\nrank {first} failed")


def test_an_interrupted_run_is_no_failure(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match=r"^saved after step 3 of 9$"):
        run(interrupt, world_size=2, log_dir=tmp_path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (signal.SIGKILL, "rank 1 was ended by SIGKILL without a word; the kernel does this when memory runs out. "),
        (signal.SIGBUS, "rank 1 was ended by SIGBUS without a word. "),
        (0, "rank 1 exited with code 3 without a word. "),
    ],
)
def test_a_rank_that_dies_is_named(tmp_path: Path, how: int, message: str) -> None:
    with pytest.raises(ClusterError) as caught:
        run(die, 1, int(how), world_size=2, log_dir=tmp_path)
    assert str(caught.value).startswith(message)


def test_a_library_that_exits_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"SystemExit: enough\nrank 0 failed$"):
        run(exit_early, world_size=1, log_dir=tmp_path)
