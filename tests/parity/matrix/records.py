"""What a case of the matrix is, how cases are made in numbers, and which of many are enough."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any, Literal, NamedTuple

from pipeline.config.schema import Dtype

Options = Mapping[str, Any]
"""Dotted config key -> value."""
Kind = Literal["loss", "evaluation", "grad_norm", "weight", "learned"]
"""What two runs are compared by."""


class Layout(NamedTuple):
    """How the work is split."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    zero: int = 0
    sequence_parallel: bool = False

    @property
    def world_size(self) -> int:
        return self.tensor * self.pipeline * self.data

    def __str__(self) -> str:
        sizes = {"tp": self.tensor, "pp": self.pipeline, "dp": self.data}
        parts = [f"{axis}{size}" for axis, size in sizes.items() if size > 1]
        parts += [f"zero{self.zero}"] if self.zero else []
        return "_".join([*parts, "sp"] if self.sequence_parallel else parts) or "one_rank"


UNSPLIT = Layout()


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a split run may be from the unsplit one.

    Attributes:
        loss: of the loss of each step; relative.
        evaluation: of the loss on held-out data after the last step; relative.
        grad_norm: of the gradient norm of each step; relative.
        weight: of each weight after the last step; absolute.
        learned: of what each parameter has learned, its last values less its first ones; relative, in 2-norms.
    """

    loss: float
    evaluation: float
    grad_norm: float
    weight: float
    learned: float
    reason: str

    def of(self, kind: Kind) -> float:
        value: float = getattr(self, kind)
        return value


@dataclass(frozen=True, kw_only=True)
class Case:
    """A run whose figures and weights are those of the unsplit run in fp32.

    Attributes:
        model: key of `cases.MODELS`.
        feature: what is particular about it, as part of its name.
        options: what both runs have beside the model's.
        split_options: what the split one has in addition.
    """

    model: str
    layout: Layout
    feature: str = ""
    options: Options = field(default_factory=dict)
    split_options: Options = field(default_factory=dict)
    precision: Dtype = "fp32"
    tolerance: Tolerance

    def __str__(self) -> str:
        return "-".join(part for part in (self.model, self.feature, str(self.layout)) if part)


@dataclass(frozen=True, kw_only=True)
class Control:
    """A fault, a case in which the matrix must see it, and the differences by which it does.

    Attributes:
        fault: key of `faults.FAULTS`.
    """

    fault: str
    case: Case
    seen_by: tuple[Kind, ...]

    def __str__(self) -> str:
        return f"{self.fault.replace(' ', '_')}-{self.case}"


def layouts(max_ranks: int) -> list[Layout]:
    """Every splitting over so many ranks that DeepSpeed has, but that over one rank without ZeRO."""
    found = [
        Layout(tensor, pipeline, data, zero, sequence_parallel)
        for tensor, pipeline, data in product((1, 2, 4), (1, 2, 4), (1, 2))
        for zero in ((0, 1) if pipeline > 1 else (0, 1, 2, 3))
        for sequence_parallel in ((False, True) if tensor > 1 else (False,))
    ]
    return [layout for layout in found if layout != UNSPLIT and layout.world_size <= max_ranks]


def pairwise(cases: Sequence[Case]) -> list[Case]:
    """A small part of `cases` in which every two values occur together that do so in one of them.

    Values are those of the model, the feature, each axis, ZeRO and sequence parallelism. Greedy: the case that adds
    most pairs comes next, and of several the one on the fewest ranks.
    """
    missing = set().union(*map(_pairs, cases))
    chosen = []
    while missing:
        best = max(cases, key=lambda case: (len(missing & _pairs(case)), -case.layout.world_size))
        missing -= _pairs(best)
        chosen.append(best)
    return chosen


def _pairs(case: Case) -> set[tuple[tuple[str, object], ...]]:
    values = {"model": case.model, "feature": case.feature, **case.layout._asdict()}
    return set(combinations(values.items(), 2))
