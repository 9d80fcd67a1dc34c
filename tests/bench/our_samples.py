"""Our side of `bench_data.py`: the samples of a run, as `pretrain train` makes them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.ma

from data_prep.tokenizer import json_tokenizer
from pipeline.config.load import build
from pipeline.data.loader import MicroBatches
from pipeline.data.run_data import open_run_data
from pipeline.objectives import denoisers, span
from tests.bench.data_task import MAX_NGRAM, SEED, Reader, Task

LATE = (numpy.ma, json_tokenizer, denoisers, span)  # otherwise imported where they are needed, and so measured


class OurSamples:
    """Micro-batches of `at_once` samples, by way of the config, the blend, the order and the objective."""

    def __init__(self, task: Task, folder: Path, *, at_once: int, reading: str) -> None:
        config = build(_sections(task, folder, at_once, reading), for_training=False)
        self.at_once = at_once
        self._batches = MicroBatches(open_run_data(config).train, micro_batch_size=at_once, rank=0, size=1)

    def stream(self) -> Iterator[Mapping[str, Any]]:
        return self._batches.after(0)

    def input_tokens(self, item: Mapping[str, Any]) -> float:
        is_filled = item.get("attention_mask", np.ones_like(item["input_ids"]))
        return float(is_filled.sum(axis=1).mean())


def open_samples(task: Task, folder: Path, *, cache: Path, at_once: int, reading: str) -> Reader:  # noqa: ARG001
    return OurSamples(task, folder, at_once=at_once, reading=reading)


def _sections(task: Task, folder: Path, at_once: int, reading: str) -> dict[str, Any]:
    objective: dict[str, Any] = {"name": task.objective}
    if task.masking is not None:
        objective |= {"masking": task.masking, "pairs": "nsp" if task.pairs else "none", "max_ngram": MAX_NGRAM}
    model = {"num_layers": 1, "hidden_size": 64, "num_attention_heads": 1, "ffn_hidden_size": 64}
    return {
        "run": {"dir": str(folder / "run"), "steps": 10**9, "seed": SEED},
        "model": model | {"seq_len": task.seq_len, "vocab_size": None},
        "objective": objective,
        "data": {"train": str(folder / task.data_set), "reading": reading},
        "batch": {"micro_batch_size": at_once, "global_batch_size": at_once},
        "optimizer": {"lr": 1e-3},
    }
