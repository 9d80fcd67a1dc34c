"""The models of `bench_step.py`, and batches for them, so that both sides compute the same.

Dims: B sequences of a micro-batch, S positions, T positions of the decoder.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config.load import build
from pipeline.config.schema import RunConfig
from pipeline.objectives.samples import IGNORED, Batch

MASK_RATE = 0.15
SHORTEST = 0.75  # of seq_len, of BERT's pairs, which end with their documents


@dataclass(frozen=True, kw_only=True)
class StepTask:
    """One model with its objective and its micro-batch, in the shape of a small real one."""

    name: str
    model: Mapping[str, Any]
    objective: Mapping[str, Any] = field(default_factory=dict)
    micro_batch_size: int = 4

    @property
    def tokens(self) -> int:
        """Of a micro-batch, padding included; t5: of the encoder."""
        return self.micro_batch_size * int(self.model["seq_len"])


SHAPE = {"num_layers": 6, "hidden_size": 256, "num_attention_heads": 4, "ffn_hidden_size": 1024, "seq_len": 256}
TASKS = {
    task.name: task
    for task in (
        StepTask(
            name="llama",
            model=SHAPE
            | {"architecture": "llama", "vocab_size": 32_000, "num_key_value_heads": 2}
            | {"ffn_hidden_size": 768},
        ),
        StepTask(name="gpt2", model=SHAPE | {"architecture": "gpt2", "vocab_size": 50_257}),
        StepTask(
            name="bert",
            model=SHAPE | {"architecture": "bert", "vocab_size": 30_522},
            objective={"name": "masked", "pairs": "nsp"},
        ),
        StepTask(
            name="t5",
            model=SHAPE
            | {"architecture": "t5", "vocab_size": 32_128, "num_layers": 4, "ffn_hidden_size": 768, "seq_len": 512},
            objective={"name": "span", "target_len": 114},
            micro_batch_size=2,
        ),
    )
}


def run_config(task: StepTask, *, folder: Path, accumulate: int, layout: tuple[int, int], zero_stage: int) -> RunConfig:
    """A run of `task` in fp32 on the CPU, in `layout` (tensor, pipeline); its data are `batches`."""
    tensor, pipeline = layout
    return build(
        {
            "run": {"dir": str(folder), "steps": 1000, "device": "cpu"},
            "model": dict(task.model),
            "objective": dict(task.objective),
            "data": {"train": "none"},
            "parallel": {
                "tensor_parallel_size": tensor,
                "pipeline_parallel_size": pipeline,
                "zero_stage": zero_stage,
            },
            "batch": {
                "micro_batch_size": task.micro_batch_size,
                "global_batch_size": task.micro_batch_size * accumulate,
            },
            "optimizer": {"lr": 1e-4},
            "precision": {"dtype": "fp32"},
        },
        check_data=False,
    )


def batches(config: RunConfig) -> Iterator[Batch]:
    """Micro-batches of random tokens, without end, the same at each call."""
    generator = np.random.default_rng(1)
    make = {"causal": _causal, "masked": _masked, "span": _span}[config.objective.name]
    while True:
        yield make(config, generator)


def _ids(config: RunConfig, generator: np.random.Generator, length: int) -> npt.NDArray[np.int32]:
    shape = (config.batch.micro_batch_size, length)
    return generator.integers(1, config.model.vocab_size, shape, dtype=np.int32)


def _causal(config: RunConfig, generator: np.random.Generator) -> Batch:
    tokens = _ids(config, generator, config.model.seq_len + 1)
    return {"input_ids": tokens[:, :-1], "labels": tokens[:, 1:]}


def _masked(config: RunConfig, generator: np.random.Generator) -> Batch:
    ids = _ids(config, generator, config.model.seq_len)
    lengths = generator.integers(int(SHORTEST * ids.shape[1]), ids.shape[1] + 1, len(ids))
    is_filled = np.arange(ids.shape[1]) < lengths[:, None]
    is_hidden = (generator.random(ids.shape) < MASK_RATE) & is_filled
    return {
        "input_ids": ids,
        "token_type_ids": (np.arange(ids.shape[1]) >= lengths[:, None] // 2).astype(np.int32) * is_filled,
        "attention_mask": is_filled,
        "labels": np.where(is_hidden, ids, np.int32(IGNORED)),
        "next_sentence_label": generator.integers(0, 2, len(ids), dtype=np.int32),
    }


def _span(config: RunConfig, generator: np.random.Generator) -> Batch:
    assert config.objective.target_len
    inputs, labels = (_ids(config, generator, size) for size in (config.model.seq_len, config.objective.target_len))
    return {
        "input_ids": inputs,
        "attention_mask": np.ones(inputs.shape, np.bool_),
        "decoder_input_ids": np.concatenate([np.zeros((len(labels), 1), np.int32), labels[:, :-1]], axis=1),
        "labels": labels,
    }
