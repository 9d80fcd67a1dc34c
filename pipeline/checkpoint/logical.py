"""Any checkpoint as full tensors by logical name, whatever layout it was saved under.

DeepSpeed's files hold slices of slices: tensor parallelism splits a parameter into one slice a tensor rank, and ZeRO
flattens a rank's slices into one vector and cuts that over the data-parallel ranks. `Fragment` names a run of one
slice in one file; the reader lists all of them once and puts together what is asked for. Files are memory-mapped.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoint import files
from pipeline.checkpoint.manifest import CheckpointManifest
from pipeline.config.load import build
from pipeline.errors import CheckpointError
from pipeline.models.families import parameter_table
from pipeline.models.parameters import ParameterSpec

OPTIMIZER_FILE = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")


@dataclass(frozen=True)
class Fragment:
    """`numel` elements from `start` of a flat fp32 vector: the vector of optimizer group `group` in `file`."""

    file: str
    group: int
    start: int
    numel: int


class LogicalCheckpoint:
    """A checkpoint's parameters as the unsplit model has them.

    Attributes:
        path: the checkpoint folder.
        config: of the run, resolved.
        step: completed optimizer steps.
        consumed_samples: sequences used by all ranks together.
        table: the parameters that can be read.

    Raises:
        CheckpointError: the manifest names other parameters than its config describes.
    """

    def __init__(self, path: Path, manifest: CheckpointManifest) -> None:
        self.path = path
        self.config = build(manifest.config, check_data=False)
        self.step = manifest.step
        self.consumed_samples = manifest.consumed_samples
        self.table = parameter_table(self.config.model)
        if manifest.parameters != self.table.describe():
            raise CheckpointError(
                f"{path} names other parameters than its own config describes: it was written by another version. "
                "Export it with the version that wrote it."
            )
        self._load = lru_cache(maxsize=None)(self._map_file)
        self._fragments = self._list_fragments(manifest)

    def read(self, name: str) -> torch.Tensor:
        """The full parameter `name`, fp32 (the master weight where training keeps one), in the shape of its row.

        Raises:
            CheckpointError: part of it is missing, or tensor-parallel ranks disagree on one that they all hold.
        """
        [row] = [row for row in self.table if row.name == name]
        slices = [self._slice(row, rank) for rank in range(self._tensor_parallel_size)]
        if row.split_dim is None and not all(torch.equal(slices[0], other) for other in slices):
            raise CheckpointError(
                f"{self.path}: the tensor-parallel ranks hold different values of {name}, which each has in full: the "
                "run has drifted apart. Go back to an earlier checkpoint."
            )
        return row.join(slices).detach()  # masters are saved as the parameters of an optimizer

    @property
    def _tensor_parallel_size(self) -> int:
        return self.config.parallel.tensor_parallel_size

    def _slice(self, row: ParameterSpec, tensor_rank: int) -> torch.Tensor:
        """What tensor rank `tensor_rank` holds of a parameter."""
        shape = torch.Size(row.local_shape(self._tensor_parallel_size))
        if self.config.parallel.zero_stage == 0:
            found = self._unsharded(row, tensor_rank)
        else:
            fragments = self._fragments[row.module_name, tensor_rank]
            flat = [self._flat(fragment).narrow(0, fragment.start, fragment.numel) for fragment in fragments]
            # ZeRO 3 pads the last data rank's share.
            found = torch.cat(flat)[: shape.numel()] if flat else torch.empty(0)
        if found.numel() != shape.numel():
            raise CheckpointError(
                f"{self.path}: {row.name} has {found.numel()} of {shape.numel()} values for tensor rank {tensor_rank}. "
                "The checkpoint is damaged; take another one."
            )
        return found.view(shape)

    def _unsharded(self, row: ParameterSpec, tensor_rank: int) -> torch.Tensor:
        if self.config.parallel.pipeline_parallel_size > 1:
            state = self._load(f"layer_{row.layer:02d}-model_{tensor_rank:02d}-model_states.pt")
            name = row.local_name
        else:
            state = self._load(f"mp_rank_{tensor_rank:02d}_model_states.pt")["module"]
            name = row.module_name
        found: torch.Tensor = state.get(name, torch.empty(0))
        return found

    def _list_fragments(self, manifest: CheckpointManifest) -> dict[tuple[str, int], list[Fragment]]:
        """Module name and tensor rank to the fragments of that slice, in the order of the data ranks."""
        found: dict[tuple[str, int], list[Fragment]] = defaultdict(list)
        matches = (OPTIMIZER_FILE.fullmatch(record.name) for record in manifest.files)
        # DeepSpeed numbers the ranks of a model copy: stages first, the tensor ranks of each stage within.
        ordered = sorted((int(match[1]), int(match[2]), match[0]) for match in matches if match)
        for _, model_rank, file in ordered:
            for name, fragment in self._fragments_in(file):
                place = name.removeprefix("tied_modules."), model_rank % self._tensor_parallel_size
                # The copy of a tied parameter on the last stage is the same as the first stage's.
                if not name.startswith("tied_modules.") or model_rank < self._tensor_parallel_size:
                    found[place].append(fragment)
        return found

    def _fragments_in(self, file: str) -> Iterator[tuple[str, Fragment]]:
        if self.config.parallel.zero_stage == 3:
            yield from self._partitioned(file)
            return
        for group, mapping in enumerate(self._load(file)["optimizer_state_dict"]["param_slice_mappings"]):
            for name, address in mapping.items():
                yield name, Fragment(file, group, address.start, address.numel)

    def _partitioned(self, file: str) -> Iterator[tuple[str, Fragment]]:
        """ZeRO 3 gives each data rank an equal share of every parameter, one behind the other."""
        model_file = file.removeprefix("bf16_").replace("optim_states", "model_states")
        shapes = self._load(model_file)["param_shapes"]
        for group, by_name in enumerate(shapes):
            start = 0
            for name, shape in by_name.items():
                share = -(-torch.Size(shape).numel() // self.config.parallel.data_parallel_size)
                yield name, Fragment(file, group, start, share)
                start += share

    def _flat(self, fragment: Fragment) -> torch.Tensor:
        state = self._load(fragment.file)["optimizer_state_dict"]
        key = "fp32_flat_groups" if self.config.parallel.zero_stage == 3 else "single_partition_of_fp32_groups"
        flat: torch.Tensor = state[key][fragment.group]
        return flat

    def _map_file(self, name: str) -> Any:
        return files.load(self.path / name, mmap=True)


def open_checkpoint(path: Path) -> LogicalCheckpoint:
    """The checkpoint in `path`: a checkpoint folder, or a run directory, whose newest good one is taken.

    Raises:
        CheckpointError: there is none.
    """
    found = files.newest(path)
    return LogicalCheckpoint(*found) if found else LogicalCheckpoint(path, files.load_verified(path))
