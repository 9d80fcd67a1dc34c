"""What a run does about a loss or gradient that is not finite: `monitor.on_divergence`."""

from collections.abc import Callable

from pipeline import log
from pipeline.config.schema import RunConfig
from pipeline.engine.divergence import Output, diagnose
from pipeline.engine.engine import Engine, StepResult
from pipeline.engine.replicas import own_part
from pipeline.errors import UserError
from pipeline.flops import layer_flops
from pipeline.models.parameters import ParameterTable

WAY_OUT = "Lower optimizer.lr or raise schedule.warmup_steps, look at the data"


class Divergences:
    """Names what is not finite, and counts how often it was.

    Attributes:
        count: steps of this start of the run that were left out or rolled back.
    """

    def __init__(self, config: RunConfig, engine: Engine, table: ParameterTable) -> None:
        self.count = 0
        self._config = config
        self._engine = engine
        self._table = table
        self._layer_names = [layer.name for layer in layer_flops(config)]

    def weights_are_finite(self) -> bool:
        """Whether those of all ranks are; every rank calls this."""
        parameters = self._engine.deepspeed.module.parameters()
        return self._engine.on_every_rank(all(own_part(parameter).isfinite().all() for parameter in parameters))

    def figures(self) -> dict[str, float | None]:
        """For `MetricsWriter`; nothing as long as all is well."""
        return {"train/divergences": float(self.count)} if self.count else {}

    def take(self, step: int, result: StepResult, *, first_sample: int) -> str:
        """Where step `step` went wrong, logged and returned if the run may go on behind it; every rank calls this.

        Args:
            first_sample: position of the step's first sample in the run's order.

        Raises:
            UserError: it is to stop, has met as many such steps as it may, or cannot go on with the weights it has.
        """
        monitor = self._config.monitor
        found = diagnose(self._engine, self._table, self._layer_names, self._engine.repeat_forward)
        said = (
            f"step {step} has loss {result.loss} and gradient norm {result.grad_norm}: training has diverged. {found}"
            f"{self._of_samples(found.output, first_sample)}"
        )
        if monitor.on_divergence == "stop":
            raise UserError(
                f"{said} The step was not saved: run the same command again to go on from the newest checkpoint. "
                f"{WAY_OUT}, or set monitor.on_divergence=skip or roll_back."
            )
        if monitor.on_divergence == "skip" and found.weights:
            raise UserError(
                f"{said} monitor.on_divergence=skip cannot mend weights: run the same command again to go on from the "
                f"newest checkpoint. {WAY_OUT}, or set monitor.on_divergence=roll_back."
            )
        if self.count >= monitor.max_divergences:
            raise UserError(
                f"{said} So did {self.count} steps before, and no more may: monitor.max_divergences="
                f"{monitor.max_divergences}. {WAY_OUT}, or raise max_divergences."
            )
        self.count += 1
        log.get().warning("%s", said)
        return said

    def warn_of_validation(self, loss: float | None, evaluate: Callable[[], object]) -> None:
        """Say where a validation loss, which `evaluate()` computes, went wrong; every rank calls this.

        The weights have not learned from it, so the run goes on.
        """
        if loss is None:
            log.get().warning("no token of data.validation=%s is to be predicted", self._config.data.validation)
            return
        found = diagnose(self._engine, self._table, self._layer_names, evaluate)
        place = self._of_samples(found.output, 0, " --validation")
        log.get().warning("the validation loss is %s. %s%s", loss, found, place)

    def _of_samples(self, output: Output | None, first_sample: int, option: str = "") -> str:
        """A sentence that leads to the samples behind an output."""
        if output is None:
            return ""
        count = self._config.batch.micro_batch_size
        group = output.micro_batch * self._config.parallel.data_parallel_size + output.data_rank
        return (
            " Its samples are shown by `pretrain data preview RUN.yaml "
            f"--position {first_sample + group * count} --count {count}{option}`."
        )
