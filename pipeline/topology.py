"""Where each rank stands on the grid of pipeline stages, data-parallel replicas and tensor-parallel slices."""

from dataclasses import dataclass
from typing import Literal

Axis = Literal["pipeline", "data", "tensor"]
AXES: tuple[Axis, ...] = ("pipeline", "data", "tensor")


@dataclass(frozen=True, kw_only=True)
class Coordinate:
    """One rank's place on the grid."""

    pipeline: int
    data: int
    tensor: int


@dataclass(frozen=True, kw_only=True)
class Topology:
    """The grid of ranks: the pipeline axis varies slowest, then data, then tensor.

    This is the order of both megatron-core (`tp-cp-ep-dp-pp`) and DeepSpeed (`PipeModelDataParallelTopology`), so that
    tensor-parallel ranks, which talk most, are neighbours on one node.
    """

    pipeline: int = 1
    data: int = 1
    tensor: int = 1

    @property
    def world_size(self) -> int:
        return self.pipeline * self.data * self.tensor

    def coordinate(self, rank: int) -> Coordinate:
        """The place of global rank `rank`.

        Raises:
            ValueError: `rank` is not on the grid.
        """
        if not 0 <= rank < self.world_size:
            raise ValueError(f"rank {rank} is not on a grid of {self.world_size} ranks")
        rest, tensor = divmod(rank, self.tensor)
        pipeline, data = divmod(rest, self.data)
        return Coordinate(pipeline=pipeline, data=data, tensor=tensor)

    def rank(self, place: Coordinate) -> int:
        """The global rank at `place`."""
        return (place.pipeline * self.data + place.data) * self.tensor + place.tensor

    def groups(self, axis: Axis) -> list[list[int]]:
        """The ranks that differ along `axis` alone, a list for each group, in rank order."""
        others = [other for other in AXES if other != axis]
        found: dict[tuple[int, ...], list[int]] = {}
        for rank in range(self.world_size):
            place = self.coordinate(rank)
            found.setdefault(tuple(getattr(place, other) for other in others), []).append(rank)
        return list(found.values())

    def __str__(self) -> str:
        return f"TP {self.tensor} x PP {self.pipeline} x DP {self.data}"
