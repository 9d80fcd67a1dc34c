"""Whether what several ranks hold in copies is the same on all of them, to the bit.

Compared are, over the tensor-parallel ranks, the parameters that each of them holds in full, with their fp32 master
weights: with ZeRO, this rank's share of either. Over the data-parallel ranks, all parameters that are not sharded.
Over the pipeline stages, the copies of a tied weight, and their masters where no data parallelism cuts them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from deepspeed.utils import safe_get_local_fp32_param
from megatron.core import parallel_state
from torch.distributed import ProcessGroup

from pipeline import distributed
from pipeline.engine.engine import Engine
from pipeline.engine.staged import StagedModel
from pipeline.errors import UserError
from pipeline.models.parameters import ParameterTable

CHUNK = 1 << 20  # elements whose fingerprint is computed at once: 8 MiB of multipliers
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Odd, with bits that look random: 2^64 divided by the golden ratio, and a constant of the SplitMix64 generator, which
# are negative as int64.
MIX = (0x9E3779B97F4A7C15 - 2**64, 0xBF58476D1CE4E5B9 - 2**64)
SHOWN = 5  # parameters that a message names


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Tensors that must be the same on every rank of a group, with the names to be told."""

    group: ProcessGroup
    tensors: dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A name, and the ranks that hold one value of it each: the largest part of the group first."""

    name: str
    ranks: list[list[int]]

    def __str__(self) -> str:
        most, *others = self.ranks
        if len(others) == 1 and len(most) > len(others[0]):
            return f"{self.name} of {distributed.in_words(others[0])} differs from that of {distributed.in_words(most)}"
        return f"{self.name} differs between {', '.join(distributed.in_words(part) for part in self.ranks)}"


def refuse_drift(engine: Engine, table: ParameterTable, step: int) -> None:
    """Raise UserError, the same on all ranks, if copies differ after `step` steps; every rank calls this."""
    own = [difference for copies in _all_copies(engine, table) for difference in _differences(copies)]
    found = torch.tensor(len(own), device=engine.device)
    torch.distributed.all_reduce(found)
    if not found:
        return
    merged: dict[str, list[Difference]] = defaultdict(list)
    for difference in (each for of_rank in distributed.all_gathered(own) for each in of_rank):
        merged[difference.name].append(difference)
    told = [str(difference) for of_name in merged.values() for difference in of_name[:1]]
    more = f", and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    raise UserError(
        f"after step {step} ranks hold different values of what must be equal: {'; '.join(told[:SHOWN])}{more}. The "
        "run has drifted apart, as it does after a fault of memory, of the network, or of this program. Go back to a "
        "checkpoint from before: remove those of later steps, and run the same command again."
    )


def fingerprint(tensor: torch.Tensor) -> torch.Tensor:
    """An int64 scalar, on the device of `tensor`, that depends on its bits and on where they stand.

    It is the sum, modulo 2^64, of each element's bits times an odd number that follows from its position: two tensors
    that differ in one element, or by an exchange of two, never have the same; others do by a chance of about 2^-64.
    """
    bits = tensor.detach().contiguous().flatten()
    bits = bits.view(BITS[tensor.element_size()])
    multipliers = _multipliers(min(CHUNK, max(bits.numel(), 1)), tensor.device)
    found = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for part in bits.split(CHUNK):
        found = found * MIX[0] + (part.long() * multipliers[: part.numel()]).sum()
    return found


def _multipliers(count: int, device: torch.device) -> torch.Tensor:
    """Odd numbers, int64, that follow from their positions in no simple way."""
    mixed = torch.arange(1, count + 1, device=device) * MIX[0]
    mixed = (mixed ^ (mixed >> 31)) * MIX[1]
    return (mixed ^ (mixed >> 29)) | 1


def _all_copies(engine: Engine, table: ParameterTable) -> Iterator[Copies]:
    """What this rank holds in common with others, group by group: the same groups and names on all their ranks."""
    over_tensor, over_data = {}, {}
    names = {}
    for module_name, parameter in engine.deepspeed.module.named_parameters():
        row = table.row_of(module_name)
        names[id(parameter)] = row.name
        if row.split_dim is None:
            over_tensor[row.name] = own_part(parameter)
            if (master := _master(parameter)) is not None:
                over_tensor[_of_master(row.name)] = master
        if parameter.numel():  # ZeRO 3 leaves only those whole that are small
            over_data[row.name] = parameter
    yield Copies(group=parallel_state.get_tensor_model_parallel_group(), tensors=over_tensor)
    yield Copies(group=parallel_state.get_data_parallel_group(), tensors=over_data)
    if isinstance(engine.deepspeed.module, StagedModel):
        for weight, group in engine.deepspeed.module.get_tied_weights_and_groups():
            yield Copies(group=group, tensors=_tied(weight, names[id(weight)]))


def _tied(weight: torch.Tensor, name: str) -> dict[str, torch.Tensor]:
    tensors = {name: weight}
    master = _master(weight)
    if master is not None and parallel_state.get_data_parallel_world_size() == 1:
        tensors[_of_master(name)] = master
    return tensors


def _of_master(name: str) -> str:
    return f"the fp32 master of {name}"


def own_part(parameter: torch.nn.Parameter) -> torch.Tensor:
    """All of the parameter, or this rank's share of it under ZeRO 3."""
    return parameter.ds_tensor if hasattr(parameter, "ds_tensor") else parameter


def _master(parameter: torch.Tensor) -> torch.Tensor | None:
    """What this rank holds of the fp32 master weight: all of it, a part, or nothing."""
    if hasattr(parameter, "ds_id"):
        return safe_get_local_fp32_param(parameter)
    mapping = getattr(parameter, "_hp_mapping", None)
    return None if mapping is None else mapping.hp_fragment


def _differences(copies: Copies) -> list[Difference]:
    """What differs within the group, found by the first of its ranks; the others report nothing."""
    ranks = torch.distributed.get_process_group_ranks(copies.group)
    if len(ranks) == 1 or not copies.tensors:
        return []
    own = torch.stack([fingerprint(tensor) for tensor in copies.tensors.values()])
    gathered = [torch.empty_like(own) for _ in ranks]
    torch.distributed.all_gather(gathered, own, group=copies.group)
    if torch.distributed.get_rank() != ranks[0]:
        return []
    table = torch.stack(gathered)  # a row for each rank, a column for each name
    differing = (table != table[0]).any(dim=0).tolist()
    names = list(copies.tensors)
    return [
        Difference(name=names[column], ranks=_parted(table[:, column].tolist(), ranks))
        for column, differs in enumerate(differing)
        if differs
    ]


def _parted(fingerprints: Sequence[int], ranks: Sequence[int]) -> list[list[int]]:
    """The ranks by what they hold, the largest part first."""
    return [
        [rank for rank, found in zip(ranks, fingerprints, strict=True) if found == value]
        for value, _ in Counter(fingerprints).most_common()
    ]
