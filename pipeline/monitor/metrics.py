"""The run's figures by step: `metrics.jsonl` and TensorBoard, written by one rank."""

import json
import math
from pathlib import Path
from typing import Any

from data_prep.atomic import replacing


class MetricsWriter:
    """Writes one record a step to `RUN_DIR/metrics.jsonl` and the same figures to `RUN_DIR/tensorboard`.

    Args:
        completed_steps: steps done before this start. Records after it, of an earlier start that got further than its
            last checkpoint, are removed, so that no step is there twice.
    """

    def __init__(self, run_dir: Path, *, completed_steps: int, tensorboard: bool) -> None:
        self._path = run_dir / "metrics.jsonl"
        _drop_after(self._path, completed_steps)
        self._file = self._path.open("a", encoding="utf-8")
        self._board: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=completed_steps + 1)

    def write(self, step: int, figures: dict[str, float | None]) -> None:
        """Record `figures`, named `group/name`, for step `step`; one that is None or not finite is left out.

        JSON has no word for what is not finite.
        """
        known = {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}
        self._file.write(json.dumps({"step": step} | known) + "\n")
        self._file.flush()
        if self._board:
            for name, value in known.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        if self._board:
            self._board.close()


def read_metrics(run_dir: Path) -> list[dict[str, float]]:
    """The records of a run, in the order of their steps."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def _step_of(line: str) -> int:
    """The step of a record; 0 for what is none, such as the half line that a kill or a power cut leaves."""
    try:
        return int(json.loads(line)["step"]) if line.endswith("\n") else 0
    except (ValueError, KeyError, TypeError):
        return 0


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if 0 < _step_of(line) <= step]
    with replacing(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
