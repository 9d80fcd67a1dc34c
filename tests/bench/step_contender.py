"""One side of `bench_step.py`: trains a step each time that it is told to, and says how long it took.

It runs as `python -m tests.bench.step_contender SIDE TASK ADDRESS FOLDER ...` and talks by a socket at ADDRESS.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import torch
import transformers

from pipeline import distributed, launch
from pipeline.config.schema import RunConfig
from pipeline.convert.form import form_of
from pipeline.convert.special_ids import SpecialIds
from pipeline.engine.build import build
from pipeline.models.families import parameter_table
from pipeline.topology import Topology
from tests.bench.step_task import TASKS, batches, run_config

Train = Callable[[], float]
"""Trains a step and returns its loss."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["ours", "transformers"])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("address")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--accumulate", type=int, required=True)
    parser.add_argument("--tensor", type=int, default=1)
    parser.add_argument("--pipeline", type=int, default=1)
    parser.add_argument("--zero", type=int, default=0)
    args = parser.parse_args()
    config = run_config(
        TASKS[args.task],
        folder=args.folder,
        accumulate=args.accumulate,
        layout=(args.tensor, args.pipeline),
        zero_stage=args.zero,
    )
    if args.side == "transformers":
        serve(Client(args.address), plain_loop(config))
    else:
        log_dir, ranks = args.folder / "log", config.parallel.world_size
        launch.run("tests.bench.step_contender:rank", config, args.address, world_size=ranks, log_dir=log_dir)


def rank(config: RunConfig, address: str) -> None:
    """One rank of ours."""
    parallel, number, device = config.parallel, int(os.environ["RANK"]), torch.device("cpu")
    topology = Topology(tensor=parallel.tensor_parallel_size, pipeline=parallel.pipeline_parallel_size)
    distributed.start(topology, device=device, seed=config.run.seed)
    engine = build(config, parameter_table(config.model), topology, rank=number, device=device)
    stream = batches(config)
    connection = Client(address) if number == 0 else None

    def train() -> float:
        return engine.train_step(stream, learning_rate=config.optimizer.lr).loss

    serve(connection if topology.world_size == 1 else _HeardByAll(connection), train)


class _HeardByAll:
    """The connection of the first rank, with what it receives being told to all."""

    def __init__(self, connection: Connection | None) -> None:
        self._connection = connection

    def recv(self) -> Any:
        try:
            heard = [self._connection.recv() if self._connection else None]
        except EOFError:
            heard = [None]
        torch.distributed.broadcast_object_list(heard, src=0)
        if heard[0] is None:
            raise EOFError
        return heard[0]

    def send(self, message: Any) -> None:
        if self._connection:
            self._connection.send(message)


def serve(connection: Any, train: Train) -> None:
    """Say that all is built; then a step for each message, until the other end closes."""
    connection.send(())
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        wall, processor = time.perf_counter(), time.process_time()
        loss = train()
        connection.send((time.perf_counter() - wall, time.process_time() - processor, loss))


def plain_loop(config: RunConfig) -> Train:
    """A step of transformers' class, with the same weights, as its users write it in plain torch."""
    model, settings = _transformers_model(config).train(), config.optimizer
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    stream, accumulate = _as_transformers_takes(config), config.gradient_accumulation_steps

    def train() -> float:
        total = 0.0
        for inputs in islice(stream, accumulate):
            loss = model(**inputs).loss / accumulate
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        return total

    return train


def _transformers_model(config: RunConfig) -> transformers.PreTrainedModel:
    form = form_of(config.model)
    content = form.config(config.model, torch.float32, SpecialIds())
    model = getattr(transformers, content["architectures"][0])(transformers.AutoConfig.for_model(**content))
    head = model.get_output_embeddings()
    if not config.model.tie_embeddings and head.weight is model.get_input_embeddings().weight:
        # T5's class ties them whatever its config says, but for a folder that holds both.
        head.weight = torch.nn.Parameter(torch.empty_like(head.weight))
    weights: dict[str, torch.Tensor] = {}
    for row in parameter_table(config.model):
        weights |= dict(form.to_hugging_face(row, row.initial_value(config.run.seed), config.model))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= set(model.all_tied_weights_keys), missing
    return model


def _as_transformers_takes(config: RunConfig) -> Iterator[dict[str, Any]]:
    for batch in batches(config):
        if config.objective.name == "causal":  # it shifts labels itself
            batch = {"input_ids": batch["input_ids"], "labels": batch["input_ids"]}
        yield {name: torch.from_numpy(values).long() for name, values in batch.items()}


if __name__ == "__main__":
    main()
