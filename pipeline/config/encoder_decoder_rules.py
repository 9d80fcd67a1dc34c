"""What the two sequences of an encoder-decoder model must agree on, as data."""

from pipeline.config.rule import Rule, with_value
from pipeline.config.sample import denoising
from pipeline.config.schema import RunConfig
from pipeline.errors import DataError

TARGET_LEN = "objective.target_len"


def _decoder_len(config: RunConfig) -> int | None:
    """Positions of the decoder; None where there is no decoder, or no room for any text."""
    if config.model.family != "t5" or config.objective.name != "span":
        return None
    try:
        return denoising(config).target_len
    except DataError:
        return None


def _does_not_split(config: RunConfig) -> bool:
    length = _decoder_len(config)
    size = config.parallel.tensor_parallel_size
    return config.parallel.sequence_parallel and length is not None and length % size != 0


def _why_it_does_not_split(config: RunConfig) -> str:
    """The sentence with its way out: the length may be one that was derived, for which `Rule.steps` offers nothing."""
    length, size = _decoder_len(config), config.parallel.tensor_parallel_size
    assert length is not None
    given = config.objective.target_len
    derived = f" (which makes the decoder's length {length})" if given is None else ""
    below = length // size * size
    near = [value for value in (below, below + size) if value and _fits(with_value(config, TARGET_LEN, value))]
    return (
        f"{TARGET_LEN}={'null' if given is None else given}{derived} is wrong because the decoder's length must be a "
        f"multiple of parallel.tensor_parallel_size={size} (parallel.sequence_parallel=true splits the sequence over "
        f"the tensor-parallel ranks); set {TARGET_LEN}={' or '.join(map(str, near))}"
    )


def _fits(config: RunConfig) -> bool:
    return _decoder_len(config) is not None


def _far_begins_too_near(config: RunConfig) -> bool:
    model = config.model
    return model.family == "t5" and model.max_relative_distance <= model.num_relative_buckets // 2


ENCODER_DECODER_RULES: tuple[Rule, ...] = (
    Rule(
        reads=(
            *("model.architecture", "model.seq_len", "objective.name", "objective.denoiser"),
            *("objective.noise_density", "objective.mean_span_length", TARGET_LEN),
            *("parallel.sequence_parallel", "parallel.tensor_parallel_size"),
        ),
        broken=_does_not_split,
        because=_why_it_does_not_split,
        do=", or parallel.sequence_parallel=false.",
    ),
    Rule(
        reads=("model.architecture", "model.num_relative_buckets", "model.max_relative_distance"),
        broken=_far_begins_too_near,
        because=lambda config: (
            f"model.max_relative_distance={config.model.max_relative_distance} is wrong because the decoder has a "
            f"class for each of the first {config.model.num_relative_buckets // 2} distances, half of "
            f"model.num_relative_buckets={config.model.num_relative_buckets}, and the other half is for farther ones"
        ),
        steps=lambda _: {"model.max_relative_distance": 1, "model.num_relative_buckets": 1},
    ),
)
