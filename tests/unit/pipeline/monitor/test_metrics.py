"""metrics.jsonl and TensorBoard."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.monitor.metrics import MetricsWriter, read_metrics


def write(
    run_dir: Path, steps: range, *, completed_steps: int = 0, tensorboard: bool = False, offset: float = 0
) -> None:
    writer = MetricsWriter(run_dir, completed_steps=completed_steps, tensorboard=tensorboard)
    for step in steps:
        writer.write(step, {"train/loss": 1 / (step + 2) + offset, "train/grad_norm": None})
    writer.close()


def test_figures_are_not_rounded_and_unknown_ones_left_out(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    assert read_metrics(tmp_path) == [{"step": step, "train/loss": 1 / (step + 2)} for step in (1, 2, 3)]


@pytest.mark.parametrize("completed", [0, 2, 4, 9])
def test_steps_that_are_done_again_are_dropped(tmp_path: Path, completed: int) -> None:
    write(tmp_path, range(1, 5))
    write(tmp_path, range(completed + 1, 7), completed_steps=completed, offset=1)
    records = read_metrics(tmp_path)
    expected = [*range(1, min(completed, 4) + 1), *range(completed + 1, 7)]
    assert [record["step"] for record in records] == expected
    assert all((record["train/loss"] > 1) == (record["step"] > completed) for record in records)


def test_half_a_line_left_by_a_kill_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-9])
    write(tmp_path, range(3, 5), completed_steps=2)
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_tensorboard_shows_each_step_once(tmp_path: Path) -> None:
    write(tmp_path, range(1, 5), tensorboard=True)
    write(tmp_path, range(3, 7), completed_steps=2, tensorboard=True, offset=1)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    events = board.Scalars("train/loss")
    assert [event.step for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event.value > 1 for event in events] == [False, False, True, True, True, True]


def test_lines_that_are_no_records_are_dropped(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('garbage\n[]\n{"loss": 1}\n{"step": 4, "tr')
    write(tmp_path, range(4, 6), completed_steps=3)
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
