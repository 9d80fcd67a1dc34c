"""A tokenizing job under kills, stops, hangs, full disks and company: the bytes are those of the undisturbed run."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest

from data_prep.data_sets.verify import verify
from data_prep.errors import DataError
from data_prep.manifest import load_manifest
from data_prep.tokenizer.tokenizer_training import train_tokenizer
from data_prep.tokenizing import claims
from data_prep.tokenizing.tokenize import tokenize
from tests.small_models import sentences

NUM_KILLS = 30
UNIT_BYTES = 40_000
EXIT_INTERRUPTED = 75


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer") / "unigram"
    train_tokenizer(sentences(200, seed=0), kind="unigram", vocab_size=390, out=out)
    return out


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.2 MB, some of it twice, in several kinds of file."""
    folder = tmp_path_factory.mktemp("corpus")
    texts = sentences(6000, seed=1)
    lines = [orjson.dumps({"text": text}) + b"\n" for text in [*texts, *texts[:500]]]
    (folder / "a.jsonl").write_bytes(b"".join(lines[:3000]))
    (folder / "b.jsonl").write_bytes(b"".join(lines[3000:]) + b"\n")
    (folder / "c.txt").write_text("\n\n".join(texts[:100]))
    return folder


def command(corpus: Path, tokenizer: Path, out: Path, *more: str) -> list[str]:
    words = ["data", "tokenize", "--input", corpus, "--tokenizer", tokenizer, "--out", out, "--dedup"]
    words += ["--unit-bytes", UNIT_BYTES, "--txt-documents", "block", "--workers", 1, *more]
    return [sys.executable, "-m", "pipeline.cli", *map(str, words)]


def files(folder: Path) -> dict[str, bytes]:
    """Everything in the folder, whatever it is called."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(
    corpus: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], float]:
    """The files of a run that nothing disturbs, and its seconds."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    started = time.monotonic()
    subprocess.run(command(corpus, tokenizer, out), check=True, capture_output=True)
    seconds = time.monotonic() - started
    assert len(load_manifest(out).shards) > 25
    verify(out)
    return files(out), seconds


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_until(condition: Callable[[], object], child: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it does not come"
        assert child is None or child.poll() is None, child.communicate()
        time.sleep(0.005)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 2])
def test_kills_at_random_instants_lose_and_double_nothing(
    tmp_path: Path, corpus: Path, tokenizer: Path, undisturbed: tuple[dict[str, bytes], float], workers: int
) -> None:
    expected, seconds = undisturbed
    draw = random.Random(workers)
    kills = runs = 0
    while kills < NUM_KILLS // 2:
        out = tmp_path / f"out{runs}"
        runs += 1
        words = command(corpus, tokenizer, out, "--workers", str(workers))
        while kills < NUM_KILLS // 2:
            child = start(words)
            try:
                child.wait(draw.uniform(0.3, 1.0) * seconds)
                assert child.returncode == 0, child.communicate()
                break
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.communicate()
                kills += 1
        subprocess.run(words, check=True, capture_output=True)
        assert files(out) == expected
        verify(out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_asked_to_stop_it_keeps_what_is_done_and_goes_on(
    tmp_path: Path,
    corpus: Path,
    tokenizer: Path,
    undisturbed: tuple[dict[str, bytes], float],
    number: signal.Signals,
    workers: str,
) -> None:
    out = tmp_path / "out"
    words = command(corpus, tokenizer, out, "--workers", workers)
    child = start(words)
    wait_until((out / "shard_00002.json").exists, child)
    child.send_signal(number)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == EXIT_INTERRUPTED, errors
    assert "units are done and kept; give the same command again to go on" in errors
    assert not (out / "manifest.json").exists()
    assert not list(out.rglob("*.tmp"))
    assert not list(out.rglob("*.lock"))
    subprocess.run(words, check=True, capture_output=True)
    assert files(out) == undisturbed[0]


def test_two_runs_at_once_share_the_work(
    tmp_path: Path, corpus: Path, tokenizer: Path, undisturbed: tuple[dict[str, bytes], float]
) -> None:
    out = tmp_path / "out"
    children = [start(command(corpus, tokenizer, out)) for _ in range(3)]
    for child in children:
        _, errors = child.communicate(timeout=100)
        assert child.returncode == 0, errors
    assert files(out) == undisturbed[0]


def workers_of(parent: int) -> list[int]:
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in found]


def test_a_worker_that_is_killed_is_replaced_by_the_other(
    tmp_path: Path, corpus: Path, tokenizer: Path, undisturbed: tuple[dict[str, bytes], float]
) -> None:
    out = tmp_path / "out"
    child = start(command(corpus, tokenizer, out, "--workers", "2"))
    wait_until(lambda: len(workers_of(child.pid)) == 2 and list(out.glob("work/*.lock")), child)
    os.kill(workers_of(child.pid)[0], signal.SIGKILL)
    _, errors = child.communicate(timeout=100)
    assert child.returncode == 0, errors
    assert files(out) == undisturbed[0]


def test_workers_end_with_the_process_that_started_them(tmp_path: Path, corpus: Path, tokenizer: Path) -> None:
    out = tmp_path / "out"
    child = start(command(corpus, tokenizer, out, "--workers", "2"))
    wait_until(lambda: len(workers_of(child.pid)) == 2 and list(out.glob("work/*.lock")), child)
    workers = workers_of(child.pid)
    child.kill()
    child.communicate()
    wait_until(lambda: not any(Path(f"/proc/{worker}/exe").exists() for worker in workers))


def test_all_workers_killed_is_said(tmp_path: Path, corpus: Path, tokenizer: Path) -> None:
    out = tmp_path / "out"
    child = start(command(corpus, tokenizer, out, "--workers", "2"))
    wait_until(lambda: len(workers_of(child.pid)) == 2 and list(out.glob("work/*.lock")), child)
    for worker in workers_of(child.pid):
        os.kill(worker, signal.SIGKILL)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "all 2 worker processes were ended from outside (exit codes [-9, -9]" in errors
    assert "Traceback" not in errors


def test_a_worker_that_hangs_loses_its_unit_to_another(
    tmp_path: Path,
    corpus: Path,
    tokenizer: Path,
    undisturbed: tuple[dict[str, bytes], float],
) -> None:
    out = tmp_path / "out"
    hanging = start(command(corpus, tokenizer, out))
    wait_until(lambda: list(out.glob("shard_*.json")) and list(out.glob("work/shard_*.lock")), hanging)
    os.kill(hanging.pid, signal.SIGSTOP)
    held = [one.item for one in claims.held_claims(out / "work")]
    started = time.monotonic()
    code = (
        "from data_prep.tokenizing import claims; claims.STALE_SECONDS = 3.0\n"
        "from pipeline.cli import main; raise SystemExit(main())"
    )
    words = command(corpus, tokenizer, out)
    subprocess.run([sys.executable, "-c", code, *words[3:]], check=True, capture_output=True)
    if held:
        assert time.monotonic() - started > 2
    # It lives, so what it is writing stays.
    found = {name: content for name, content in files(out).items() if not name.endswith(".tmp")}
    assert found == undisturbed[0]
    os.kill(hanging.pid, signal.SIGCONT)  # it comes back, and finds its unit done, or makes the same bytes
    _, errors = hanging.communicate(timeout=60)
    assert hanging.returncode == 0, errors
    assert files(out) == undisturbed[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB."""
    if os.geteuid():
        pytest.skip("only root can mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_message_and_loses_nothing(
    small_disk: Path, corpus: Path, tokenizer: Path, undisturbed: tuple[dict[str, bytes], float]
) -> None:
    out = small_disk / "out"
    for workers in ("1", "2"):
        child = start(command(corpus, tokenizer, out, "--workers", workers))
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 1, errors
        assert errors.count("error:") == 1
        assert "No space left on device" in errors
        assert "free space, and give the same command again" in errors
        assert "Traceback" not in errors
        assert not list(out.rglob("*.tmp"))
        assert not list(out.rglob("*.lock"))
    done = len(list(out.glob("shard_*.json")))
    assert 0 < done < 30
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    subprocess.run(command(corpus, tokenizer, out), check=True, capture_output=True)
    assert files(out) == undisturbed[0]


def test_a_read_only_or_vanishing_input_is_named(tmp_path: Path, corpus: Path, tokenizer: Path) -> None:
    copy = Path(shutil.copytree(corpus, tmp_path / "copy"))
    out = tmp_path / "out"
    child = start(command(copy, tokenizer, out))
    wait_until((out / "shard_00001.json").exists, child)
    (copy / "c.txt").unlink()
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "c.txt cannot be read: No such file or directory" in errors
    shutil.copy2(corpus / "c.txt", copy)
    subprocess.run(command(copy, tokenizer, out), check=True, capture_output=True)
    verify(out)


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_damage_to_any_file_of_a_data_set_is_found(
    tmp_path: Path, tokenizer: Path, undisturbed: tuple[dict[str, bytes], float], damage: str
) -> None:
    """34 random damages of each kind; only `job.json` may be lost, which a finished data set does not need."""
    folder = tmp_path / "out"
    for name, content in undisturbed[0].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    tokenizer_copy = shutil.copytree(tokenizer, tmp_path / "tokenizer")
    assert tokenizer_copy
    draw = random.Random(damage)
    found = 0
    names = sorted(name for name, content in undisturbed[0].items() if content and name != "job.json")
    for name in draw.sample(names, 34):
        path, content = folder / name, bytearray(undisturbed[0][name])
        place = draw.randrange(len(content))
        if damage == "delete":
            path.unlink()
        elif damage == "cut":
            path.write_bytes(content[:place])
        else:
            content[place] ^= 1 << draw.randrange(8)
            path.write_bytes(content)
        with pytest.raises(DataError):
            verify(folder)
        found += 1
        path.write_bytes(undisturbed[0][name])
    verify(folder)
    assert found == 34


def test_a_task_of_an_array_finishes_when_it_is_the_last(
    tmp_path: Path, corpus: Path, tokenizer: Path, undisturbed: tuple[dict[str, bytes], float]
) -> None:
    out = tmp_path / "out"
    children = [start(command(corpus, tokenizer, out, "--task", f"{index}/4")) for index in range(4)]
    for child in children:
        _, errors = child.communicate(timeout=100)
        assert child.returncode == 0, errors
    assert files(out) == undisturbed[0]


def test_status_of_a_job_elsewhere(tmp_path: Path, corpus: Path, tokenizer: Path) -> None:
    out = tmp_path / "out"
    child = start(command(corpus, tokenizer, out))
    wait_until(lambda: list(out.glob("work/shard_*.lock")), child)
    status = [sys.executable, "-m", "pipeline.cli", "data", "status", str(out), "--json"]
    during = orjson.loads(subprocess.check_output(status))
    child.communicate(timeout=60)
    after = orjson.loads(subprocess.check_output(status))
    assert during["units"] == after["units"] == after["units_done"]
    assert after["state"] == "complete"
    assert after["documents"] == load_manifest(out).num_documents


def test_tokenize_in_a_thread_and_twice_in_a_process(tmp_path: Path, corpus: Path, tokenizer: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    cores = os.sched_getaffinity(0)
    outcomes = [tokenize(inputs=[corpus], tokenizer=tokenizer, out=tmp_path / name) for name in ("one", "two")]
    assert outcomes[0].manifest
    assert outcomes[0].manifest == outcomes[1].manifest
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before
    assert os.sched_getaffinity(0) == cores
    assert np.sum([source.num_tokens for source in outcomes[0].manifest.sources]) == outcomes[0].manifest.num_tokens
