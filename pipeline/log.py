"""Logging of one rank: one line format, every rank to its own file, rank 0 to the terminal too."""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TextIO

from pipeline.devices import num_gpus

LOGGER = "pretrain"
# Of megatron-core: about TransformerEngine and apex, CUDA graphs, and how CUDA queues kernels.
REMARKS = (
    "Transformer Engine and Apex are not installed",
    "full scope is deprecated",
    "When using async grad allreduce",
)
CHATTY = ("DeepSpeed", "deepspeed", "megatron", "transformers", "torch", "torch.distributed")


_terminal: TextIO | None = None


def show_at(stream: TextIO) -> None:
    """Take `stream` for this process's terminal: a started rank's own output is redirected to its file."""
    global _terminal
    _terminal = stream


def set_up(*, rank: int, directory: Path | None = None) -> logging.Logger:
    """The logger of this rank, which replaces any earlier one; the lines of rank 0 go to the terminal, too.

    Args:
        directory: `RUN_DIR/log`, made if need be; the file `rank_00000.log` in it is appended to. None writes no file.
    """
    logger = logging.getLogger(LOGGER)
    _take_handlers_off(logger)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if rank == 0:
        terminal = logging.StreamHandler(_terminal or sys.stderr)
        logger.addHandler(_formatted(terminal, "%(asctime)s %(message)s", "%H:%M:%S"))
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(directory / f"rank_{rank:05d}.log", encoding="utf-8")
        line = f"%(asctime)s rank {rank} %(levelname)s %(name)s: %(message)s"
        logger.addHandler(_formatted(file, line, "%Y-%m-%d %H:%M:%S"))
    return logger


def quieten_imports() -> None:
    """Keep remarks about what we do not use off the terminal, here and in the processes that are started from here."""
    for remark in REMARKS:
        warnings.filterwarnings("ignore", message=remark)
    os.environ["PYTHONWARNINGS"] = ",".join(f"ignore:{remark}" for remark in REMARKS)
    if not num_gpus():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def get() -> logging.Logger:
    """The logger of this process; `set_up` says where its lines go."""
    return logging.getLogger(LOGGER)


def redirect_chatty_libraries() -> None:
    """Send what DeepSpeed, megatron-core, transformers and torch log to this rank's file alone.

    Call it after `set_up` and again after importing them: they put their own handlers on when they are imported.
    Without a file their warnings go to the terminal of `set_up`, and the rest nowhere.
    """
    handlers = get().handlers
    files = [handler for handler in handlers if isinstance(handler, logging.FileHandler)]
    for name in CHATTY:
        logger = logging.getLogger(name)
        _take_handlers_off(logger, close=False)
        logger.propagate = False
        logger.setLevel(logging.INFO if files and not name.startswith("torch") else logging.WARNING)
        for handler in files or handlers:
            logger.addHandler(handler)


def _formatted(handler: logging.Handler, line: str, time: str) -> logging.Handler:
    handler.setFormatter(logging.Formatter(line, time))
    return handler


def _take_handlers_off(logger: logging.Logger, *, close: bool = True) -> None:
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        if close:
            handler.close()
