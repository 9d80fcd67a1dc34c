"""The parameter table: a row for each parameter of a model, read by all that creates, counts, saves or exports it."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

# A tensor-parallel rank holds a multiple of this many vocabulary rows, which keeps GPU kernels on their fast path.
VOCAB_ROWS_MULTIPLE = 64


@dataclass(frozen=True, kw_only=True)
class ParameterSpec:
    """One parameter, as the unsplit model has it.

    Attributes:
        layer: index of the pipeline layer that owns it; counts the embedding as 0.
        local_name: its name inside that layer.
        shape: full shape, without vocabulary padding.
        split_dim: the dim that tensor parallelism splits; None where every rank holds all of it.
        num_blocks: equal blocks stacked along `split_dim`, each of which is split on its own (gate and up: 2).
        pads_vocab: rows are vocabulary entries, padded with zeros until they split evenly.
        init_std: standard deviation of the normal initialization; 0 for zeros, None for ones.
        init_factors: factors of `init_std` where rows differ: (number of rows, factor) of runs that repeat down dim 0.
        decay: whether weight decay applies.
    """

    name: str
    layer: int
    local_name: str
    shape: tuple[int, ...]
    split_dim: int | None = None
    num_blocks: int = 1
    pads_vocab: bool = False
    init_std: float | None
    init_factors: tuple[tuple[int, float], ...] = ()
    decay: bool = True

    @property
    def module_name(self) -> str:
        """Its name in a model whose layers are numbered, on whichever stage."""
        return f"{self.layer}.{self.local_name}"

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()

    def split(self, full: torch.Tensor, *, rank: int, size: int) -> torch.Tensor:
        """The slice of tensor-parallel rank `rank` of `size`: `full` has shape `shape`; vocabulary padding is added."""
        if self.split_dim is None:
            return full
        if self.pads_vocab:
            missing = padded_vocab_size(self.shape[0], size) - self.shape[0]
            full = torch.cat([full, full.new_zeros(missing, *self.shape[1:])])
        blocks = full.chunk(self.num_blocks, dim=self.split_dim)
        return torch.cat([block.chunk(size, dim=self.split_dim)[rank] for block in blocks], dim=self.split_dim)

    def join(self, slices: Sequence[torch.Tensor]) -> torch.Tensor:
        """The full tensor, shape `shape`, from the slices of all tensor-parallel ranks in rank order."""
        if self.split_dim is None:
            return slices[0]
        blocks = [
            torch.cat([piece.chunk(self.num_blocks, dim=self.split_dim)[index] for piece in slices], dim=self.split_dim)
            for index in range(self.num_blocks)
        ]
        full = torch.cat(blocks, dim=self.split_dim)
        return full[: self.shape[0]] if self.pads_vocab else full

    def local_shape(self, size: int) -> tuple[int, ...]:
        """The shape of one rank's slice under `size` tensor-parallel ranks."""
        if self.split_dim is None:
            return self.shape
        extent = padded_vocab_size(self.shape[0], size) if self.pads_vocab else self.shape[self.split_dim]
        return (*self.shape[: self.split_dim], extent // size, *self.shape[self.split_dim + 1 :])

    def initial_value(self, seed: int) -> torch.Tensor:
        """The full tensor at the start of training, fp32: a function of `seed` and name, not of the topology."""
        if self.init_std is None:
            return torch.ones(self.shape)
        if self.init_std == 0.0:
            return torch.zeros(self.shape)
        digest = hashlib.blake2b(f"{seed}:{self.name}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
        value = torch.randn(self.shape, generator=generator) * self.init_std
        if self.init_factors:
            counts, factors = zip(*self.init_factors, strict=True)
            runs = value.unflatten(0, (-1, sum(counts))).split(counts, dim=1)
            for run, factor in zip(runs, factors, strict=True):
                run *= factor
        return value


class ParameterTable:
    """All parameters of one model, in the order of its layers."""

    def __init__(self, rows: Iterable[ParameterSpec]) -> None:
        self.rows = tuple(rows)

    def __iter__(self) -> Iterator[ParameterSpec]:
        return iter(self.rows)

    @property
    def num_parameters(self) -> int:
        return sum(row.numel for row in self.rows)

    @cached_property
    def _by_module_name(self) -> dict[str, ParameterSpec]:
        return {row.module_name: row for row in self.rows}

    def row_of(self, module_name: str) -> ParameterSpec:
        """The row of a model's parameter; a tied one is found under the name that DeepSpeed gives it, too."""
        return self._by_module_name[module_name.removeprefix("tied_modules.")]

    def describe(self) -> dict[str, list[int]]:
        """Name to full shape, for the manifest of a checkpoint."""
        return {row.name: list(row.shape) for row in self.rows}


def padded_vocab_size(vocab_size: int, tensor_parallel_size: int) -> int:
    """The vocabulary rows that are stored, so that each tensor-parallel rank holds as many as the others."""
    unit = VOCAB_ROWS_MULTIPLE * tensor_parallel_size
    return -(-vocab_size // unit) * unit


@torch.no_grad()
def initialize(
    module: torch.nn.Module, table: ParameterTable, *, seed: int, tensor_rank: int, tensor_parallel_size: int
) -> None:
    """Give the parameters of `module`, one rank's part of the model, their first values, and mark who counts them.

    The mark makes DeepSpeed's gradient norm count each slice of a split parameter, and a replicated one once: without
    it the replicated ones of later pipeline stages are left out.
    """
    for name, parameter in module.named_parameters():
        row = table.row_of(name)
        is_copy = getattr(parameter, "ds_pipe_replicated", False)  # of a tied parameter, on another stage
        counts = not is_copy and (row.split_dim is not None or tensor_rank == 0)
        parameter.tensor_model_parallel = counts  # type: ignore[attr-defined]
        parameter.copy_(row.split(row.initial_value(seed), rank=tensor_rank, size=tensor_parallel_size))
