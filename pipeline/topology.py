"""Where each rank stands on the grid of pipeline stages, data-parallel replicas and tensor-parallel slices."""

import math
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
    tensor-parallel ranks, which talk most, are neighbours on one node. Another axis, such as one for the context or for
    experts, is a name in AXES, in its place of this order, and a number here and in `Coordinate`.
    """

    pipeline: int = 1
    data: int = 1
    tensor: int = 1

    @property
    def world_size(self) -> int:
        return math.prod(self.size(axis) for axis in AXES)

    def size(self, axis: Axis) -> int:
        """The ranks along one axis."""
        size: int = getattr(self, axis)
        return size

    def coordinate(self, rank: int) -> Coordinate:
        """The place of global rank `rank`.

        Raises:
            ValueError: `rank` is not on the grid.
        """
        if not 0 <= rank < self.world_size:
            raise ValueError(f"rank {rank} is not on a grid of {self.world_size} ranks")
        place = {}
        for axis in reversed(AXES):
            rank, place[axis] = divmod(rank, self.size(axis))
        return Coordinate(**place)

    def rank(self, place: Coordinate) -> int:
        """The global rank at `place`."""
        rank = 0
        for axis in AXES:
            rank = rank * self.size(axis) + getattr(place, axis)
        return rank

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
