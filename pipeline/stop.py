"""Being asked to stop: the request reaches one rank, and all of them leave at the same step."""

import signal

import torch


class StopRequest:
    """Remembers SIGTERM and SIGUSR1, which schedulers and the launcher send, until all ranks ask about it together."""

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._asked = False
        for number in self.SIGNALS:
            signal.signal(number, self._remember)

    def agreed(self) -> bool:
        """Whether any rank was asked to stop; every rank calls this at the same step and gets the same answer."""
        asked = torch.tensor([int(self._asked)], device=self._device)
        torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
        return bool(asked.item())

    def _remember(self, *_: object) -> None:
        self._asked = True
