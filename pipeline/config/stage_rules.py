"""What the pipeline stages of a run must agree with, as data."""

from pipeline.config.rule import Rule
from pipeline.config.schema import RunConfig


def _num_blocks(config: RunConfig) -> int:
    """Transformer layers, those of a decoder beside an encoder included."""
    model = config.model
    return model.num_layers + (model.num_decoder_layers if model.family == "t5" else 0)


def num_pipeline_layers(config: RunConfig) -> int:
    """What a model is cut into stages of: its Transformer layers, embeddings, norms and heads (`pipeline.flops`)."""
    return _num_blocks(config) + {"gpt": 3, "bert": 3, "t5": 5}[config.model.family]


def _does_not_add_up(config: RunConfig) -> bool:
    asked = config.parallel.stage_layers
    return asked is not None and sum(asked) != num_pipeline_layers(config)


def _counted(num_stages: int) -> str:
    return "1 stage" if num_stages == 1 else f"{num_stages} stages"


STAGE_RULES: tuple[Rule, ...] = (
    Rule(
        reads=(
            *("model.num_layers", "model.num_decoder_layers", "model.architecture"),
            *("parallel.pipeline_parallel_size", "parallel.stage_layers"),
        ),
        broken=lambda config: (
            config.parallel.stage_layers is None and config.parallel.pipeline_parallel_size > _num_blocks(config)
        ),
        because=lambda config: (
            f"parallel.pipeline_parallel_size={config.parallel.pipeline_parallel_size} is wrong because the model has "
            f"{_num_blocks(config)} Transformer layers, and no more stages than these are cut by cost"
        ),
        steps=lambda _: {"parallel.pipeline_parallel_size": 1, "model.num_layers": 1},
    ),
    Rule(
        reads=("parallel.stage_layers", "parallel.pipeline_parallel_size"),
        broken=lambda config: (
            config.parallel.stage_layers is not None
            and len(config.parallel.stage_layers) != config.parallel.pipeline_parallel_size
        ),
        because=lambda config: (
            f"parallel.stage_layers={list(config.parallel.stage_layers or ())} is wrong because it has a number for "
            f"{_counted(len(config.parallel.stage_layers or ()))}, and parallel.pipeline_parallel_size="
            f"{config.parallel.pipeline_parallel_size}"
        ),
        do="; give a number for each stage, or leave it out.",
    ),
    Rule(
        reads=("parallel.stage_layers", "model.num_layers", "model.num_decoder_layers", "model.architecture"),
        broken=_does_not_add_up,
        because=lambda config: (
            f"parallel.stage_layers={list(config.parallel.stage_layers or ())} is wrong because its sum is "
            f"{sum(config.parallel.stage_layers or ())}, and the model has {num_pipeline_layers(config)} pipeline "
            "layers (its Transformer layers, embeddings, norms and head)"
        ),
        do="; give numbers with this sum, or leave it out.",
    ),
)
