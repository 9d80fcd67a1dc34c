"""The grid of ranks agrees with DeepSpeed's and megatron-core's."""

import pytest
from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology
from hypothesis import given
from hypothesis import strategies as st
from megatron.core.parallel_state import RankGenerator

from pipeline.topology import AXES, Coordinate, Topology

topologies = st.builds(Topology, pipeline=st.integers(1, 6), data=st.integers(1, 6), tensor=st.integers(1, 6))


@given(topologies)
def test_coordinates_and_ranks_are_inverse(topology: Topology) -> None:
    places = [topology.coordinate(rank) for rank in range(topology.world_size)]
    assert [topology.rank(place) for place in places] == list(range(topology.world_size))
    assert len(set(places)) == topology.world_size
    assert all(getattr(place, axis) < getattr(topology, axis) for place in places for axis in AXES)


@given(topologies)
def test_groups_differ_along_their_axis_alone(topology: Topology) -> None:
    for axis in AXES:
        groups = topology.groups(axis)
        assert sorted(rank for ranks in groups for rank in ranks) == list(range(topology.world_size))
        for ranks in groups:
            places = [vars(topology.coordinate(rank)) for rank in ranks]
            assert [place.pop(axis) for place in places] == list(range(getattr(topology, axis)))
            assert all(place == places[0] for place in places)


@given(topologies)
def test_grid_is_that_of_deepspeed(topology: Topology) -> None:
    other = PipeModelDataParallelTopology(num_pp=topology.pipeline, num_mp=topology.tensor, num_dp=topology.data)
    for rank in range(topology.world_size):
        place = topology.coordinate(rank)
        assert other.get_rank(pipe=place.pipeline, data=place.data, model=place.tensor) == rank
    for ours, theirs in (("pipeline", "pipe"), ("data", "data"), ("tensor", "model")):
        if getattr(topology, ours) > 1:  # DeepSpeed lists no groups of one rank
            assert sorted(topology.groups(ours)) == sorted(other.get_axis_comm_lists(theirs))  # type: ignore[arg-type]


@given(topologies)
def test_grid_is_that_of_megatron_core(topology: Topology) -> None:
    other = RankGenerator(
        tp=topology.tensor, ep=1, dp=topology.data, pp=topology.pipeline, cp=1, order="tp-cp-ep-dp-pp"
    )
    for ours, theirs in (("pipeline", "pp"), ("data", "dp"), ("tensor", "tp")):
        assert sorted(topology.groups(ours)) == sorted(other.get_ranks(theirs))  # type: ignore[arg-type]


def test_tensor_parallel_ranks_are_neighbours() -> None:
    topology = Topology(pipeline=2, data=3, tensor=4)
    assert topology.coordinate(17) == Coordinate(pipeline=1, data=1, tensor=1)
    assert topology.groups("tensor")[0] == [0, 1, 2, 3]
    assert str(topology) == "TP 4 x PP 2 x DP 3"


@pytest.mark.parametrize("rank", [-1, 6])
def test_a_rank_off_the_grid_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank {rank} is not on a grid of 6 ranks"):
        Topology(data=3, tensor=2).coordinate(rank)
