"""One rank's engine, set up from the run config."""

import deepspeed
import torch
from deepspeed.runtime.pipe.topology import PipelineParallelGrid, PipeModelDataParallelTopology

from pipeline.config.schema import RunConfig
from pipeline.engine import initialize as deepspeed_initialize
from pipeline.engine.engine import Engine, PipelineEngine, UnstagedEngine
from pipeline.engine.gradients import GuardedLoss
from pipeline.engine.staged import StagedModel, amend
from pipeline.models.documents import Documents
from pipeline.models.execution import Execution
from pipeline.models.families import family_of
from pipeline.models.parameters import ParameterTable, initialize
from pipeline.models.pipeline_layer import LayerStack
from pipeline.stages import stage_bounds
from pipeline.topology import Topology


def build(config: RunConfig, table: ParameterTable, topology: Topology, *, rank: int, device: torch.device) -> Engine:
    """This rank's engine for the model that `table` describes, with the initial weights of `run.seed`.

    The process groups must be up: `pipeline.distributed.start`.
    """
    _adopt_process_groups()
    family = family_of(config.model)
    layers, loss = family.pipeline_layers(config.model, _execution(config)), GuardedLoss(family.make_loss())
    grid_topology = PipeModelDataParallelTopology(
        num_pp=topology.pipeline, num_mp=topology.tensor, num_dp=topology.data
    )
    staged = topology.pipeline > 1
    module = (
        StagedModel(layers, bounds=stage_bounds(config), topology=grid_topology, loss=loss)
        if staged
        else LayerStack(layers)
    )
    initialize(
        module,
        table,
        seed=config.run.seed,
        tensor_rank=topology.coordinate(rank).tensor,
        tensor_parallel_size=topology.tensor,
    )
    deepspeed_engine = deepspeed_initialize.initialize(
        module,
        table,
        config,
        device=device,
        grid=None if staged else PipelineParallelGrid(topology=grid_topology),
    )
    if topology.data == 1 and isinstance(deepspeed_engine.optimizer, torch.optim.Optimizer):
        # There is nothing to sum: DeepSpeed would copy all gradients into one tensor and back.
        deepspeed_engine.enable_backward_allreduce = deepspeed_engine.pipeline_enable_backward_allreduce = False
    if staged:
        amend(deepspeed_engine)
    return (PipelineEngine if staged else UnstagedEngine)(deepspeed_engine, family, loss, device)


def _execution(config: RunConfig) -> Execution:
    return Execution(
        tensor_parallel_size=config.parallel.tensor_parallel_size,
        sequence_parallel=config.parallel.sequence_parallel,
        recompute=config.parallel.recompute,
        documents=Documents(
            attend_within=config.data.attend_within_documents, reset_positions=config.data.reset_positions
        ),
    )


def _adopt_process_groups() -> None:
    # On CPUs DeepSpeed would compile an all-reduce of its own at first use: half a minute, and a rank that is killed
    # while it compiles leaves a lock on which every later run hangs. Gloo's serves.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_init_required=False)
