"""Standard input: all of it or nothing, and never another one's."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.errors import DataError, Interrupted
from data_prep.text.standard_input import spool


class FakeInput:
    """A standard input that holds some bytes."""

    def __init__(self, content: bytes) -> None:
        self._read_end, write_end = os.pipe()
        os.write(write_end, content)
        os.close(write_end)

    def fileno(self) -> int:
        return self._read_end


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", FakeInput(content))

    return give


def go_on() -> None:
    pass


def test_the_same_input_or_none_goes_on_and_another_is_refused(tmp_path: Path, give: Callable[[bytes], None]) -> None:
    path = tmp_path / "stdin.jsonl"
    give(b"one\ntwo\n")
    spool(path, go_on)
    assert path.read_bytes() == b"one\ntwo\n"
    for content in (b"one\ntwo\n", b""):
        give(content)
        spool(path, go_on)
    for content in (b"one\ntwX\n", b"one\n", b"one\ntwo\nthree\n"):
        give(content)
        with pytest.raises(DataError, match="standard input differs from what the job began with"):
            spool(path, go_on)


def test_an_end_that_comes_with_a_stop_is_not_believed(tmp_path: Path, give: Callable[[bytes], None]) -> None:
    calls = 0

    def stop_at_the_end() -> None:
        nonlocal calls
        calls += 1
        if calls == 4:  # after the chunk came, the end comes: what feeds us was stopped by the same signal
            raise Interrupted("stopped")

    give(b"half of it")
    with pytest.raises(Interrupted):
        spool(tmp_path / "stdin.jsonl", stop_at_the_end)
    assert list(tmp_path.iterdir()) == []


def test_a_closed_standard_input_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="standard input is closed"):
        spool(tmp_path / "stdin.jsonl", go_on)
