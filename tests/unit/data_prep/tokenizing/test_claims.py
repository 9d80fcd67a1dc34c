"""Claims: one holder at a time, given up by death and by silence, and never wrong about a process that lives."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from data_prep.tokenizing import claims
from data_prep.tokenizing.claims import Held, claimed, held_claims, read_claim


def hold_in_another_process(folder: Path) -> "subprocess.Popen[str]":
    """A process that holds `item` until its standard input ends."""
    code = (
        "import sys; from pathlib import Path; from data_prep.tokenizing.claims import claimed\n"
        "with claimed(Path(sys.argv[1]), 'item') as claim:\n"
        "    assert claim; print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    assert child.stdout.readline() == "held\n"
    return child


def only(folder: Path) -> Held:
    [held] = held_claims(folder)
    return held


def test_one_process_holds_an_item(tmp_path: Path) -> None:
    child = hold_in_another_process(tmp_path)
    with claimed(tmp_path, "item") as claim, claimed(tmp_path, "other") as other:
        assert claim is None
        assert other is not None
        assert {held.item for held in held_claims(tmp_path)} == {"item", "other"}
    child.communicate("")
    with claimed(tmp_path, "item") as claim:
        assert claim is not None
    assert held_claims(tmp_path) == []


def test_the_claim_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    child = hold_in_another_process(tmp_path)
    assert not only(tmp_path).is_stale
    child.kill()
    child.communicate()
    assert only(tmp_path).is_stale
    with claimed(tmp_path, "item") as claim:
        assert claim is not None


def test_a_process_with_the_number_of_a_dead_one_is_not_it(tmp_path: Path) -> None:
    with claimed(tmp_path, "item"):
        path = tmp_path / "item.lock"
        content = json.loads(path.read_bytes())
        content["owner"]["started"] -= 1
        path.write_text(json.dumps(content))
        assert only(tmp_path).owner.is_gone()


def test_silence_frees_a_claim_and_a_beat_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = hold_in_another_process(tmp_path)
    path = tmp_path / "item.lock"
    now = path.stat().st_mtime
    os.utime(path, (now, now - claims.STALE_SECONDS + 20))
    assert not only(tmp_path).is_stale
    os.utime(path, (now, now - claims.STALE_SECONDS - 1))
    assert only(tmp_path).is_stale
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.0)
    with claimed(tmp_path, "item") as claim:
        assert claim is not None
        claim.beat({"documents": 7})
        assert only(tmp_path).note == {"documents": 7}
        assert only(tmp_path).silent_seconds < 30
    child.communicate("")
    assert not path.exists()


def test_a_process_of_another_machine_is_believed_until_it_is_silent(tmp_path: Path) -> None:
    path = tmp_path / "item.lock"
    owner = {"host": "elsewhere", "machine": "elsewhere", "pid": 1, "started": 1}
    path.write_text(json.dumps({"owner": owner, "note": {}}))
    assert not only(tmp_path).is_stale
    with claimed(tmp_path, "item") as claim:
        assert claim is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"owner": {}}', b"\xff"])
def test_a_lock_file_that_says_nothing_counts_by_its_time(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "item.lock"
    path.write_bytes(content)
    held = read_claim(path)
    assert held
    assert not held.is_stale
    os.utime(path, (1, 1))
    with claimed(tmp_path, "item") as claim:
        assert claim is not None


def test_of_many_threads_one_gets_it(tmp_path: Path) -> None:
    barrier, won = threading.Barrier(16), []

    def race() -> None:
        barrier.wait()
        with claimed(tmp_path, "item") as claim:
            won.append(claim is not None)
            barrier.wait()

    threads = [threading.Thread(target=race) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(won) == 1
