"""Pre-training: what every rank runs, from the run config to the last checkpoint."""

import math
import os
import socket
from pathlib import Path

import torch

from pipeline import devices, distributed, log
from pipeline.checkpoint import files
from pipeline.checkpoint import load as checkpoint_load
from pipeline.checkpoint.manifest import CheckpointManifest, DataRecord
from pipeline.checkpoint.save import save
from pipeline.config.deepspeed import deepspeed_config
from pipeline.config.load import resolved
from pipeline.config.schema import RunConfig
from pipeline.data.loader import Batches, MicroBatches, Prefetcher
from pipeline.data.run_data import RunData, open_run_data
from pipeline.engine import StepResult, build
from pipeline.errors import DataError, Interrupted, UserError
from pipeline.models import gpt
from pipeline.monitor import environment
from pipeline.monitor.metrics import MetricsWriter
from pipeline.monitor.progress import Progress
from pipeline.monitor.run_dir import describe_run
from pipeline.optim.schedule import learning_rate
from pipeline.stop import StopRequest
from pipeline.topology import Topology


def train(config: RunConfig) -> None:
    """One rank's part of a run: go on from the newest checkpoint or begin anew; train, evaluate, save.

    The environment names the rank, as torchrun sets it.

    Raises:
        Interrupted: the run was asked to stop, and has saved.
        UserError: the data, a checkpoint or the cluster do not fit the config, or the loss is not a number any more.
    """
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    device = distributed.device_for(devices.resolve(config.run.device), local_rank)
    log.set_up(rank=rank, directory=Path(config.run.dir) / "log")
    log.redirect_chatty_libraries()
    topology = Topology(
        tensor=config.parallel.tensor_parallel_size,
        pipeline=config.parallel.pipeline_parallel_size,
        data=config.parallel.data_parallel_size,
    )
    distributed.start(topology, device=device, seed=config.run.seed)
    stop = StopRequest(device)  # from now on: a rank that waits for others is to end when it is asked to
    try:
        _Trainer(config, topology, rank=rank, device=device).run(stop)
    finally:
        distributed.stop()


class _Trainer:
    """The parts of one rank's run, and how far it is.

    Attributes:
        completed_steps: optimizer steps done, those of earlier starts included.
        consumed_samples: sequences used by all ranks together: the data position.
    """

    def __init__(self, config: RunConfig, topology: Topology, *, rank: int, device: torch.device) -> None:
        self.config = config
        self.run_dir = Path(config.run.dir)
        self.is_writer = rank == 0
        self.table = gpt.parameter_table(config.model)
        self.data_rank = topology.coordinate(rank).data
        self.data = self._open_data()
        self.num_validation_batches = self._count_validation_batches()
        resumed = self._find_checkpoint()
        self.engine = build(config, self.table, topology, rank=rank, device=device)
        self.completed_steps = self.consumed_samples = 0
        if resumed:
            folder, manifest = resumed
            checkpoint_load.load(self.engine, folder)
            self.completed_steps, self.consumed_samples = manifest.step, manifest.consumed_samples
            log.get().info("going on from %s", folder)
        if self.completed_steps >= config.run.steps:
            log.get().info("nothing to do: %s of run.steps=%s are done", self.completed_steps, config.run.steps)
        self._describe(topology, device)

    def run(self, stop: StopRequest) -> None:
        """Train until the last step, or until all ranks have agreed to stop."""
        config, monitor = self.config, self.config.monitor
        batches = Prefetcher(
            self._micro_batches(self.data.train).after(self.consumed_samples), config.data.prefetch_batches
        )
        progress = Progress(
            num_steps=config.run.steps, tokens_per_step=config.tokens_per_step, completed_steps=self.completed_steps
        )
        metrics = self._metrics()
        try:
            for step in range(self.completed_steps + 1, config.run.steps + 1):
                waited = batches.wait_seconds
                rate = learning_rate(config, step)
                result = self.engine.train_step(batches, learning_rate=rate)
                self.completed_steps = step
                self.consumed_samples += config.batch.global_batch_size
                figures = progress.step_done(
                    result,
                    lr=rate,
                    consumed_tokens=self.consumed_samples * config.model.seq_len,
                    data_wait_seconds=batches.wait_seconds - waited,
                )
                figures |= self._figures_of_sources()
                _refuse_divergence(config, step, result)
                stopping, last = stop.agreed(), step == config.run.steps
                if self.num_validation_batches and (last or (_due(step, monitor.eval_every_steps) and not stopping)):
                    figures["validation/loss"] = self._evaluate()
                if metrics and (last or _due(step, monitor.log_every_steps) or "validation/loss" in figures):
                    metrics.write(step, figures)
                    log.get().info("%s", progress.line(step, figures))
                if last or stopping or _due(step, config.checkpoint.every_steps):
                    self._save()
                if stopping and not last:
                    raise Interrupted(
                        f"saved after step {step} of {config.run.steps}; the same command goes on from there"
                    )
                progress.restart_clock()
        finally:
            batches.close()
            if metrics:
                metrics.close()

    def _micro_batches(self, samples: Batches) -> MicroBatches:
        return MicroBatches(
            samples,
            micro_batch_size=self.config.batch.micro_batch_size,
            rank=self.data_rank,
            size=self.config.parallel.data_parallel_size,
        )

    def _open_data(self) -> RunData:
        """What every rank reads, which must be the same on all machines."""
        data = distributed.on_all_ranks(lambda: open_run_data(self.config))
        fingerprints = distributed.all_gathered((socket.gethostname(), data.fingerprints()))
        for host, found in fingerprints:
            for name, fingerprint in found.items():
                if fingerprint != fingerprints[0][1][name]:
                    raise DataError(
                        f"{name} holds other tokens on {host} than on {fingerprints[0][0]}. Copy the same files to "
                        "every machine, or name a folder that they share."
                    )
        return data

    def _figures_of_sources(self) -> dict[str, float]:
        """What was read of each source so far; of a single source, the other figures tell it."""
        if len(self.data.sources) == 1:
            return {}
        tokens = self.data.tokens_read(self.consumed_samples)
        epochs = self.data.epochs_read(self.consumed_samples)
        return {f"tokens/{name}": float(count) for name, count in tokens.items()} | {
            f"epochs/{name}": count for name, count in epochs.items()
        }

    def _count_validation_batches(self) -> int:
        """Micro-batches of this rank in one evaluation; what is left over of the samples is not evaluated."""
        if not self.data.validation:
            return 0
        at_once = self.config.batch.micro_batch_size * self.config.parallel.data_parallel_size
        available = self.data.validation.num_samples
        count = min(self.config.monitor.eval_samples or available, available) // at_once
        if not count:
            raise DataError(
                f"data.validation={self.config.data.validation} is too small: it holds {available} samples and one "
                f"evaluation step takes {at_once}. Add text, or lower batch.micro_batch_size or monitor.eval_samples."
            )
        return count

    def _find_checkpoint(self) -> tuple[Path, CheckpointManifest] | None:
        """The checkpoint to go on from, found by the first rank and told to the others."""
        if self.config.checkpoint.resume == "never":
            checkpoint_load.refuse_used(self.run_dir)
            return None
        found = [files.newest(self.run_dir) if self.is_writer else None]
        torch.distributed.broadcast_object_list(found, src=0)
        [resumed] = found
        if resumed:
            folder, manifest = resumed
            position = manifest.consumed_samples
            checkpoint_load.refuse_another_run(folder, manifest, self.config, self.table, self._data_record(position))
        return resumed

    def _data_record(self, consumed_samples: int) -> DataRecord:
        """What the first samples of the run were read from."""
        return DataRecord(order=self.data.train.blend.fingerprint(consumed_samples), sources=self.data.fingerprints())

    def _describe(self, topology: Topology, device: torch.device) -> None:
        if not self.is_writer:
            return
        describe_run(
            self.run_dir,
            self.config,
            deepspeed=deepspeed_config(self.config, device_type=device.type),
            environment=environment.describe(device),
        )
        log.get().info(
            "%s parameters, %s on %s, %s tokens a step, %s training tokens",
            f"{self.table.num_parameters:,}",
            topology,
            device.type,
            f"{self.config.tokens_per_step:,}",
            f"{self.data.num_tokens:,}",
        )

    def _metrics(self) -> MetricsWriter | None:
        if not self.is_writer:
            return None
        return MetricsWriter(
            self.run_dir, completed_steps=self.completed_steps, tensorboard=self.config.monitor.tensorboard
        )

    def _evaluate(self) -> float:
        assert self.data.validation
        batches = self._micro_batches(self.data.validation).after(0, count=self.num_validation_batches)
        return self.engine.evaluate(batches, num_micro_batches=self.num_validation_batches)

    def _save(self) -> None:
        manifest = CheckpointManifest(
            step=self.completed_steps,
            consumed_samples=self.consumed_samples,
            config=resolved(self.config),
            parameters=self.table.describe(),
            data=self._data_record(self.consumed_samples),
            versions=environment.versions(),
            files=[],
        )
        folder = save(self.engine, self.run_dir, manifest, keep_last=self.config.checkpoint.keep_last)
        log.get().info("saved %s", folder)


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _refuse_divergence(config: RunConfig, step: int, result: StepResult) -> None:
    if result.skipped and config.precision.dtype == "fp16":
        return  # it may overflow for a step, until the loss scale fits
    # DeepSpeed's ZeRO calls every gradient that is not a number an overflow, and leaves the step out in silence.
    if not math.isfinite(result.loss) or result.skipped or not math.isfinite(result.grad_norm or 0.0):
        raise UserError(
            f"step {step} has loss {result.loss} and gradient norm {result.grad_norm}: training has diverged. Nothing "
            "was saved since; go on from the last checkpoint with a lower optimizer.lr or more schedule.warmup_steps."
        )
