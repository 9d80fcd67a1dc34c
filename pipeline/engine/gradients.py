"""No update follows from a loss or gradient that is not finite, on any of DeepSpeed's optimizers.

Those of ZeRO and of bf16 see to it that an update with such gradients is left out (DeepSpeed 0.19.8); fp32 without ZeRO
is torch's own optimizer, which does not.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler
from deepspeed.utils import safe_get_local_grad

from pipeline.models.losses import TokenLoss


class GuardedLoss:
    """A loss that gives gradients which are not finite where it is not finite itself; without, some may be.

    Attributes:
        loss: what it is computed by.
        observer: is given the loss of each micro-batch.
    """

    def __init__(self, loss: TokenLoss) -> None:
        self.loss = loss
        self.observer: Callable[[torch.Tensor], None] | None = None

    def __call__(self, outputs: Any, labels: Any) -> torch.Tensor:
        loss = self.loss(outputs, labels)
        if self.observer:
            self.observer(loss)
        if loss.requires_grad:
            loss.register_hook(partial(_spoil_unless_finite, loss.detach()))
        return loss


def _spoil_unless_finite(loss: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return gradient + 0 * loss  # 0 times infinity is not a number


class GradientGuard:
    """Leaves out the updates that DeepSpeed does not, and knows which gradients were not finite.

    Attributes:
        not_finite: names, as the module has them, of this rank's parameters whose gradients were not finite when the
            update of the last step was left out.
    """

    def __init__(self, engine: DeepSpeedEngine) -> None:
        self.not_finite: list[str] = []
        self._has_looked = False
        self._engine = engine
        self._optimizer = engine.optimizer
        if isinstance(self._optimizer, torch.optim.Optimizer):
            engine.clip_fp32_gradients = lambda: None  # it would forget the norm that it finds, and spoil all gradients
            self._optimizer.register_step_pre_hook(lambda *_: self._clip_or_drop())
        else:
            self._look_before("clear_hp_grads" if isinstance(self._optimizer, BF16_Optimizer) else "zero_grad")

    def start_step(self) -> bool:
        """Forget the gradients of the step before.

        Returns:
            Whether ones that are not finite will only tell that the loss scale of fp16 is too high still.
        """
        self.not_finite, self._has_looked = [], False
        scaler = getattr(self._optimizer, "loss_scaler", None)  # loading a checkpoint puts another one in its place
        if not isinstance(scaler, DynamicLossScaler):
            return False
        scaler.raise_error_at_min_scale = False  # what to do then is the config's to say
        return bool(scaler.cur_scale > scaler.min_scale)

    @torch.no_grad()
    def _clip_or_drop(self) -> None:
        """What DeepSpeed's own optimizers do: without gradients, torch's changes neither weights nor moments."""
        parameters = [parameter for parameter in self._engine.module.parameters() if parameter.grad is not None]
        norm, most = self._norm(parameters), self._engine.gradient_clipping()
        self._engine._global_grad_norm = norm
        self._optimizer.overflow = not math.isfinite(norm)  # DeepSpeed counts it as a step that was skipped
        if self._optimizer.overflow:
            self._look()
            self._optimizer.zero_grad(set_to_none=True)
        elif most:
            torch._foreach_mul_([parameter.grad for parameter in parameters], (most / (norm + 1e-6)).clamp(max=1.0))

    def _norm(self, parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
        """The global 2-norm of their gradients, of which `pipeline.models.parameters.initialize` marked who counts."""
        mpu = self._engine.mpu
        grads = ((one.tensor_model_parallel, one.grad) for one in parameters)  # type: ignore[attr-defined]
        counted = [grad for counts, grad in grads if counts and grad is not None]
        total = torch.zeros((), device=self._engine.device)
        if counted:
            total += torch.stack(torch._foreach_norm(counted)).square().sum()
        torch.distributed.all_reduce(total, group=mpu.get_model_parallel_group())
        # Copies of the model that round this sum otherwise would clip otherwise, and drift apart.
        norm = total.sqrt() / mpu.get_data_parallel_world_size()
        torch.distributed.all_reduce(norm, group=mpu.get_data_parallel_group())
        return norm

    def _look_before(self, clears: str) -> None:
        """Look at the gradients before the optimizer's method `clears` is called in a step that is left out."""
        clear = getattr(self._optimizer, clears)

        def look_and_clear(*args: Any, **kwargs: Any) -> Any:
            if self._optimizer.overflow and not self._has_looked:  # DeepSpeed clears twice
                self._look()
            return clear(*args, **kwargs)

        setattr(self._optimizer, clears, look_and_clear)

    def _look(self) -> None:
        self._has_looked = True
        for name, parameter in self._engine.module.named_parameters():
            gradient = _held_gradient(parameter)
            if gradient is not None and not gradient.isfinite().all():
                self.not_finite.append(name)


def _held_gradient(parameter: torch.nn.Parameter) -> torch.Tensor | None:
    """What this rank holds of the gradient of a step, before it is cleared."""
    if hasattr(parameter, "ds_id"):
        return safe_get_local_grad(parameter)
    mapping = getattr(parameter, "_hp_mapping", None)
    if mapping is None:
        return parameter.grad
    return mapping.get_lp_grad_fragment(parameter._index_in_param_group)  # type: ignore[attr-defined]
