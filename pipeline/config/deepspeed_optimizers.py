"""The optimizers that DeepSpeed's JSON can name: those of torch.optim, and DeepSpeed's own, as data."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class OptimizerRow:
    """One optimizer.

    Attributes:
        takes: of betas and eps, what it has.
        is_tested: DeepSpeed takes it with ZeRO unasked; others only with "zero_allow_untested_optimizer".
        not_with_zero: why it cannot work on ZeRO's flat vectors, which hold many parameters one behind the other.
        whole_matrices: what it does to a matrix is more than what it does to each part of one.
        cuda_only: it is a CUDA kernel.
        refused: why no run can have it.
    """

    takes: frozenset[str] = frozenset()
    is_tested: bool = False
    not_with_zero: str = ""
    whole_matrices: bool = False
    cuda_only: bool = False
    refused: str = ""


_BETAS, _EPS = frozenset({"betas"}), frozenset({"eps"})
_ADAM = _BETAS | _EPS
_WHOLE_MATRICES = "it looks at whole matrices, and ZeRO cuts them"
_ONE_GROUP = "DeepSpeed's ZeRO builds it anew over one group, and norms would decay like matrices"
_NO_MUP = "it needs the model to be set up by mup, which it is not"

# By the name that DeepSpeed looks for; its own in lower case, which it compares regardless of case.
OPTIMIZERS: Mapping[str, OptimizerRow] = MappingProxyType(
    {
        "adam": OptimizerRow(takes=_ADAM, is_tested=True),
        "adamw": OptimizerRow(takes=_ADAM, is_tested=True),
        "adagrad": OptimizerRow(takes=_EPS, not_with_zero=_ONE_GROUP),
        "lion": OptimizerRow(takes=_BETAS, is_tested=True, cuda_only=True),
        "lamb": OptimizerRow(takes=_ADAM, not_with_zero=_WHOLE_MATRICES, whole_matrices=True, cuda_only=True),
        "muon": OptimizerRow(takes=_ADAM, is_tested=True, whole_matrices=True),
        "muadam": OptimizerRow(refused=_NO_MUP),
        "muadamw": OptimizerRow(refused=_NO_MUP),
        "musgd": OptimizerRow(refused=_NO_MUP),
        "ASGD": OptimizerRow(),
        "Adadelta": OptimizerRow(takes=_EPS),
        "Adafactor": OptimizerRow(not_with_zero=_WHOLE_MATRICES, whole_matrices=True),
        "Adamax": OptimizerRow(takes=_ADAM),
        "LBFGS": OptimizerRow(refused="it computes the loss several times a step"),
        "NAdam": OptimizerRow(takes=_ADAM),
        "RAdam": OptimizerRow(takes=_ADAM),
        "RMSprop": OptimizerRow(takes=_EPS),
        "Rprop": OptimizerRow(refused="it is for gradients of all data at once"),
        "SGD": OptimizerRow(),
        "SparseAdam": OptimizerRow(refused="it is for sparse gradients"),
    }
)
REMOVED = frozenset({"onebitadam", "onebitlamb", "zerooneadam"})


def row_of(name: str) -> OptimizerRow | None:
    """The optimizer that DeepSpeed takes for `name`; None where there is none."""
    return OPTIMIZERS.get(name.lower()) or OPTIMIZERS.get(name)


def nearest(name: str) -> str | None:
    by_lower = {known.lower(): known for known in OPTIMIZERS}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None
