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
from pipeline.engine.build import build
from pipeline.engine.replicas import refuse_drift
from pipeline.errors import DataError, Interrupted, UserError
from pipeline.flops import training_flops
from pipeline.models.families import parameter_table
from pipeline.monitor import environment
from pipeline.monitor.divergences import Divergences
from pipeline.monitor.metrics import MetricsWriter
from pipeline.monitor.peak_flops import peak_flops
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
        self.table = parameter_table(config.model)
        self.data_rank = topology.coordinate(rank).data
        self.data = self._open_data()
        self.num_validation_batches = self._count_validation_batches()
        resumed = self._find_checkpoint()
        self.engine = build(config, self.table, topology, rank=rank, device=device)
        self.divergences = Divergences(config, self.engine, self.table)
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
        progress, metrics = self._progress(), self._metrics()
        try:
            if monitor.check_replicas_every_steps:
                refuse_drift(self.engine, self.table, self.completed_steps)
            while self.completed_steps < config.run.steps:
                step, first_sample, waited = self.completed_steps + 1, self.consumed_samples, batches.wait_seconds
                rate, batch_size = learning_rate(config, step), config.batch_ramp.size_at(first_sample)
                self.engine.set_global_batch_size(batch_size)
                result = self.engine.train_step(batches, learning_rate=rate)
                self.completed_steps = step
                self.consumed_samples += batch_size
                stopping, last = stop.agreed(), step == config.run.steps
                saving = last or stopping or _due(step, config.checkpoint.every_steps)
                if result.diverged or (saving and not self.divergences.weights_are_finite()):
                    said = self.divergences.take(step, result, first_sample=first_sample)
                    if monitor.on_divergence == "roll_back":
                        self._roll_back(said)
                        if metrics:
                            metrics.close()
                        progress, metrics = self._progress(), self._metrics()
                        continue
                figures = progress.step_done(
                    result,
                    lr=rate,
                    consumed_tokens=self.consumed_samples * config.model.seq_len,
                    data_wait_seconds=batches.wait_seconds - waited,
                )
                figures |= self.divergences.figures() | self._figures_of_sources()
                if _due(step, monitor.check_replicas_every_steps):
                    refuse_drift(self.engine, self.table, step)
                if self.num_validation_batches and (last or (_due(step, monitor.eval_every_steps) and not stopping)):
                    figures["validation/loss"] = self._evaluate()
                if metrics and (last or _due(step, monitor.log_every_steps) or "validation/loss" in figures):
                    metrics.write(step, figures)
                    log.get().info("%s", progress.line(step, figures))
                if saving:
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
        resumed = self._newest_checkpoint()
        if resumed:
            folder, manifest = resumed
            position = manifest.consumed_samples
            checkpoint_load.refuse_another_run(folder, manifest, self.config, self.table, self._data_record(position))
        return resumed

    def _newest_checkpoint(self) -> tuple[Path, CheckpointManifest] | None:
        found = [files.newest(self.run_dir) if self.is_writer else None]
        torch.distributed.broadcast_object_list(found, src=0)
        return found[0]

    def _roll_back(self, said: str) -> None:
        """Load the newest checkpoint. The data goes on behind the step that has diverged, of which `said` tells."""
        found = self._newest_checkpoint()
        if found is None:
            raise UserError(
                f"{said} monitor.on_divergence=roll_back has nothing to go back to: no checkpoint was saved before. "
                "Set checkpoint.every_steps to fewer steps, lower optimizer.lr or raise schedule.warmup_steps."
            )
        folder, manifest = found
        checkpoint_load.load(self.engine, folder)
        left_out = self.consumed_samples - manifest.consumed_samples
        log.get().warning("rolled back to %s; the %s samples since are not read again", folder, left_out)
        self.completed_steps = manifest.step

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

    def _progress(self) -> Progress:
        config, steps_left = self.config, self.config.run.steps - self.completed_steps
        last_sample = config.batch_ramp.after(self.consumed_samples, steps_left)
        return Progress(
            num_steps=config.run.steps,
            consumed_tokens=self.consumed_samples * config.model.seq_len,
            num_tokens=last_sample * config.model.seq_len,
            device_flops_per_token=training_flops(config) / config.model.seq_len / config.parallel.world_size,
            peak_flops=peak_flops(self.engine.device, config.precision.dtype),
        )

    def _metrics(self) -> MetricsWriter | None:
        if not self.is_writer:
            return None
        return MetricsWriter(
            self.run_dir, completed_steps=self.completed_steps, tensorboard=self.config.monitor.tensorboard
        )

    def _evaluate(self) -> float | None:
        """The validation loss; a warning, too, where there is none, or where it is not finite."""
        assert self.data.validation
        samples, count = self._micro_batches(self.data.validation), self.num_validation_batches

        def evaluate() -> float | None:
            return self.engine.evaluate(samples.after(0, count=count), num_micro_batches=count)

        loss = evaluate()
        if not self.engine.on_every_rank(loss is not None and math.isfinite(loss)):
            self.divergences.warn_of_validation(loss, evaluate)
        return loss

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
