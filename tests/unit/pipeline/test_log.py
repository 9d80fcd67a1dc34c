"""One line format, a file per rank, and chatty libraries kept off the terminal."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """No handler of a test outlives it."""
    names = (log.LOGGER, *log.CHATTY)
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.mark.parametrize(("rank", "on_terminal"), [(0, True), (3, False)])
def test_every_rank_writes_its_file_and_rank_0_the_terminal(
    rank: int, on_terminal: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.set_up(rank=rank, directory=tmp_path / "log")
    log.get().info("step %d", 7)
    line = (tmp_path / "log" / f"rank_{rank:05d}.log").read_text()
    assert line.endswith(f"rank {rank} INFO pretrain: step 7\n")
    shown = capsys.readouterr().err
    assert shown[len("12:34:56") :] == (" step 7\n" if on_terminal else "")


def test_setting_up_again_does_not_double_the_lines(tmp_path: Path) -> None:
    for _ in range(2):
        log.set_up(rank=1, directory=tmp_path)
    log.get().info("once")
    assert (tmp_path / "rank_00001.log").read_text().count("once") == 1


def test_libraries_log_to_the_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = logging.getLogger("DeepSpeed")
    library.addHandler(logging.StreamHandler())
    log.set_up(rank=0, directory=tmp_path)
    log.redirect_chatty_libraries()
    library.info("creating an optimizer")
    assert capsys.readouterr().err == ""
    assert "DeepSpeed: creating an optimizer" in (tmp_path / "rank_00000.log").read_text()
