"""The run config: typed, frozen sections. Every fact has one owner; what follows from others is a property.

Types and ranges of single fields are held here; what two fields must agree on is in `pipeline.config.rules`, and
`pipeline.config.load` is the door through which a config comes that is checked in full.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config.architectures import ARCHITECTURES, Activation, Architecture, ArchitectureName, Family
from pipeline.config.batch import BatchRamp, accumulation_steps

Count = Annotated[int, Field(ge=1)]
Dtype = Literal["fp32", "bf16", "fp16"]


class Section(BaseModel):
    """One section of the run config."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _null_means_derived(cls, given: Any) -> Any:
        """`null` for a field that is derived from others is as good as leaving it out."""
        if not isinstance(given, dict):
            return given
        derived = {name for name, field in cls.model_fields.items() if field.default_factory}
        return {name: value for name, value in given.items() if value is not None or name not in derived}


class RunSection(Section):
    """What is run, where, and for how long."""

    dir: Annotated[str, Field(min_length=1)]
    """Run directory: config, checkpoints, logs and metrics; relative to the current directory."""
    seed: int = Field(default=1234, ge=0, lt=2**32)
    """Seed of the initial weights, and the sample order."""
    steps: Count
    """Optimizer steps in all, those of earlier starts of the same run included."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the ranks; auto takes CUDA where a GPU is seen."""


def _of_architecture(key: str) -> Any:
    """The default of a field that depends on the architecture."""
    return lambda given: getattr(ARCHITECTURES[given["architecture"]], key)


class ModelConfig(Section):
    """Shape of the Transformer."""

    architecture: ArchitectureName = "llama"
    """What it computes, named after Hugging Face's model: decoders llama, qwen2, qwen3, mistral, gpt2; bert; t5."""
    vocab_size: Count
    """Token ids the model knows; taken from the data set's manifest when left out."""
    num_layers: Count
    """Transformer layers; t5: of the encoder."""
    num_decoder_layers: Count = Field(default_factory=lambda given: given["num_layers"])
    """t5: layers of the decoder; num_layers when left out."""
    hidden_size: Count
    """Width of the residual stream."""
    num_attention_heads: Count
    """Query heads per layer."""
    num_key_value_heads: Count = Field(default_factory=lambda given: given["num_attention_heads"])
    """Key and value heads per layer; num_attention_heads when left out, fewer for grouped-query attention."""
    head_dim: Count = Field(default_factory=lambda given: given["hidden_size"] // given["num_attention_heads"])
    """Width of one head; hidden_size / num_attention_heads when left out."""
    ffn_hidden_size: Count
    """Inner width of the feed-forward layer."""
    seq_len: Count
    """Tokens per sequence; t5: of the encoder, the decoder's are objective.target_len."""
    activation: Activation = Field(default_factory=_of_architecture("activation"))
    """Of the feed-forward layer; the architecture's own when left out. gelu_tanh is Hugging Face's gelu_new."""
    gated_mlp: bool = Field(default_factory=_of_architecture("gated_mlp"))
    """A gate beside the feed-forward layer's input; the architecture's own when left out, t5 may choose."""
    rope_theta: float = Field(default=10000.0, gt=0)
    """Base of the rotary position embedding's frequencies."""
    rope_scaling: Literal["none", "linear", "llama3"] = "none"
    """How rotary frequencies are stretched to a longer context."""
    rope_factor: float = Field(default=1.0, ge=1)
    """How far: the context is so many times rope_original_seq_len."""
    rope_low_freq_factor: float = Field(default=1.0, gt=0)
    """llama3: wavelengths above rope_original_seq_len / this are stretched in full."""
    rope_high_freq_factor: float = Field(default=4.0, gt=0)
    """llama3: wavelengths below rope_original_seq_len / this stay as they are."""
    rope_original_seq_len: Count = 8192
    """llama3: positions that the model was trained on before it was stretched."""
    sliding_window: Count | None = None
    """mistral: a token sees so many, itself included; null lets it see all before it."""
    num_relative_buckets: Annotated[int, Field(ge=4)] = 32
    """t5: classes of distance between two tokens."""
    max_relative_distance: Annotated[int, Field(ge=8)] = 128
    """t5: distances from here on are one class."""
    num_token_types: Count = 2
    """bert: kinds of segments."""
    pair_head: bool = False
    """bert: pooler and classifier of sentence pairs; true where objective.pairs makes pairs, when left out."""
    norm_epsilon: float = Field(default_factory=_of_architecture("norm_epsilon"), gt=0)
    """Added to the variance inside norms; the architecture's own when left out."""
    tie_embeddings: bool = Field(default_factory=_of_architecture("tie_embeddings"))
    """Use the token embedding as output layer too; the architecture's own when left out."""
    hidden_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of activations that are dropped before they join the residual stream."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of attention weights that are dropped."""
    init_std: float = Field(default_factory=_of_architecture("init_std"), gt=0)
    """Standard deviation of the initial weights; t5: a factor of the deviations of its paper's code."""

    @property
    def made(self) -> Architecture:
        """What makes its architecture."""
        return ARCHITECTURES[self.architecture]

    @property
    def family(self) -> Family:
        """Decoder, encoder or encoder-decoder."""
        return self.made.family


class ObjectiveConfig(Section):
    """What the model learns to predict."""

    name: Literal["causal", "masked", "span"] = "causal"
    """causal predicts each next token; masked, as BERT does, hidden ones; span, as T5 does, spans that were cut out."""
    fim_rate: float = Field(default=0.0, ge=0, le=1)
    """causal: share of documents whose middle is moved to the end, to be filled in."""
    fim_spm_share: float = Field(default=0.5, ge=0, le=1)
    """causal: share of these in which the suffix comes first (SPM), not the prefix (PSM)."""
    fim_cut: Literal["character", "token"] = "character"
    """causal: where the middle may begin and end."""
    mask_rate: float = Field(default=0.15, gt=0, lt=1)
    """masked: share of tokens to predict."""
    mask_token_share: float = Field(default=0.8, ge=0, le=1)
    """masked: share of these that become the mask token."""
    random_token_share: float = Field(default=0.1, ge=0, le=1)
    """masked: share of these that become a random token; the others stay."""
    masking: Literal["token", "whole_word", "ngram", "span"] = "token"
    """masked: what is hidden together: a token, a word, up to max_ngram words, or a span of words (SpanBERT)."""
    max_ngram: int = Field(default=3, ge=1, le=100)
    """masked: most words of an n-gram; n comes with a probability in proportion to 1/n."""
    pairs: Literal["none", "nsp", "sop"] = "none"
    """masked: one text, or two segments: is the second the next one (nsp), are they in order (sop)?"""
    short_share: float = Field(default=0.1, ge=0, le=1)
    """masked: share of pairs that are made for a shorter sequence, of random length."""
    denoiser: Literal["span", "prefix", "ul2"] = "span"
    """span: span corruption, prefix language model, or UL2's mixture of both."""
    noise_density: float = Field(default=0.15, gt=0, lt=1)
    """span: share of tokens that are cut out."""
    mean_span_length: float = Field(default=3.0, ge=1)
    """span: of the parts that are cut out, in tokens."""
    target_len: Annotated[int, Field(ge=1, le=2**20)] | None = None
    """span: positions of the decoder; null is what the raw tokens of one sample fill."""

    @property
    def reads_pairs(self) -> bool:
        """Whether a sample is a pair of segments."""
        return self.name == "masked" and self.pairs != "none"


class SourceConfig(Section):
    """One source of training tokens."""

    path: Annotated[str, Field(min_length=1)]
    """Folder of a data set, a shard, a pattern of these, or a .bin/.idx pair; relative to the current directory."""
    name: Annotated[str, Field(min_length=1)] = Field(default_factory=lambda given: given["path"])
    """What it is called in phases, reports and messages; its path when left out."""
    weight: float | None = Field(default=None, ge=0)
    """Its share of the samples, relative to the other sources'."""
    tokens: Count | None = None
    """Instead of weights: tokens to be read of each source, of which only the proportions count."""
    max_epochs: float | None = Field(default=None, gt=0)
    """How often it may be read; null does not bound it."""
    replaced_by: Annotated[str, Field(min_length=1)] | None = None
    """Name of the source that has its share after max_epochs; null gives it to all others."""


class PhaseConfig(Section):
    """Other weights from a step on."""

    from_step: Annotated[int, Field(ge=2)] | None = None
    """The first step with these weights, counted in steps of the batch sizes that the config has now."""
    from_sample: Count | None = None
    """In place of from_step: samples of the run before these weights, whatever the batch sizes were."""
    weights: dict[str, Annotated[float, Field(ge=0)]]
    """Name of a source -> its weight; a source that is left out has none."""


def _as_tuple(given: Any) -> Any:
    """A list in YAML is a tuple."""
    return tuple(given) if isinstance(given, list) else given


def _as_sources(given: Any) -> Any:
    """A single path is the only source."""
    if isinstance(given, str):
        return ({"path": given},)
    if not isinstance(given, list | tuple):
        raise PydanticCustomError("source_type", "no source")
    return _as_tuple(given)


class DataConfig(Section):
    """Where the tokens come from."""

    train: Annotated[tuple[SourceConfig, ...], BeforeValidator(_as_sources), Field(min_length=1)]
    """Path of the training tokens, or a list of sources; see SourceConfig."""
    validation: Annotated[str, Field(min_length=1)] | None = None
    """Path of the held-out tokens; null runs no evaluation."""
    tokenizer: Annotated[str, Field(min_length=1)] | None = None
    """Folder or file of the tokenizer; null takes the one that the manifest of the training tokens names."""
    temperature: float | None = Field(default=None, ge=1)
    """Weights from the sources' sizes: tokens to the power of 1 / temperature; 1 is in proportion to size."""
    phases: Annotated[tuple[PhaseConfig, ...], BeforeValidator(_as_tuple)] = ()
    """Changes of weights during the run; see PhaseConfig."""
    packing: bool = False
    """causal: whole documents, as `pretrain data pack` put them together, in place of windows over the tokens."""
    reset_positions: bool = False
    """causal: positions start at 0 in each document."""
    attend_within_documents: bool = False
    """causal: a token sees those of its own document only, and no token predicts the next document."""
    reading: Literal["mmap", "pread"] = "mmap"
    """How shards are read; pread suits file systems that map badly, such as those over networks."""
    prefetch_batches: Count = 4
    """Micro-batches read ahead by a thread."""


class ParallelConfig(Section):
    """How the work is split; the product of the three sizes is the number of ranks."""

    tensor_parallel_size: Count = 1
    """Ranks that share each layer's matrices."""
    pipeline_parallel_size: Count = 1
    """Stages that the layers are cut into."""
    data_parallel_size: Count = 1
    """Copies of the model that train on different samples."""
    sequence_parallel: bool = False
    """Also split the sequence over the tensor-parallel ranks, outside the matrix products."""
    stage_layers: Annotated[tuple[Count, ...], BeforeValidator(_as_tuple)] | None = None
    """Pipeline layers of each stage, embedding and head included; null cuts them so that stages cost about the same."""
    recompute: Literal["none", "selective", "full"] = "none"
    """What the backward pass computes again in place of keeping it: nothing, attention, or whole layers."""
    zero_stage: int = Field(default=1, ge=0, le=3)
    """DeepSpeed ZeRO stage: 1 shards optimizer state over data parallelism, 2 gradients too, 3 weights too."""
    deepspeed: Annotated[str, Field(min_length=1)] | None = None
    """DeepSpeed's JSON, relative to the current directory; null takes ds_configs/zeroN.json of zero_stage."""

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size


class BatchConfig(Section):
    """Batch sizes, in sequences."""

    micro_batch_size: Count
    """Sequences that one model copy computes at once."""
    global_batch_size: Count
    """Sequences per optimizer step, over all model copies; with a ramp-up, after it."""
    gradient_accumulation_steps: Count | None = None
    """Micro-batches per model copy and step; null derives it. Read `RunConfig.gradient_accumulation_steps`."""
    ramp_up_start: Count | None = None
    """Sequences of the run's first step, where the batch size grows; null begins with global_batch_size."""
    ramp_up_increment: Count | None = None
    """Sequences that are added to a step at a time, after equal stretches of samples."""
    ramp_up_samples: Count | None = None
    """Samples of the run over which the batch size grows to global_batch_size."""


class OptimizerConfig(Section):
    """The update rule."""

    name: Literal["adamw", "deepspeed"] = "adamw"
    """adamw: Adam with decoupled weight decay; deepspeed: the optimizer that the JSON of parallel.deepspeed names."""
    lr: float = Field(gt=0)
    """Peak learning rate."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the gradient's running mean, per step."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay of the squared gradient's running mean, per step."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Added to the denominator of the update."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decay of the weight matrices, in units of the learning rate."""
    grad_clip: float = Field(default=1.0, ge=0)
    """Largest global norm of the gradient; 0 does not clip."""


class ScheduleConfig(Section):
    """The learning rate over the steps: linear warm-up, then decay to `min_lr`."""

    decay: Literal["constant", "linear", "cosine", "inverse_sqrt", "wsd"] = "cosine"
    """Shape of the decay after warm-up; inverse_sqrt goes on without end, wsd stays at the peak until its cooldown."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up from 0."""
    decay_steps: Count | None = None
    """Steps after which the rate is `min_lr`; null is run.steps. Read `RunConfig.decay_steps`."""
    min_lr: float = Field(default=0.0, ge=0)
    """Learning rate at the end of the decay; inverse_sqrt: the lowest one."""
    cooldown_steps: Count | None = None
    """wsd: the last steps before decay_steps, in which the rate decays."""
    cooldown: Literal["linear", "cosine", "sqrt"] = "linear"
    """wsd: shape of the decay in these; sqrt is 1 - sqrt(the part of them that is done)."""


class PrecisionConfig(Section):
    """Number formats; master weights and optimizer state are always fp32."""

    dtype: Dtype = "bf16"
    """Format of the weights that the forward and backward passes use."""
    grad_accum_dtype: Dtype | None = None
    """Format gradients are summed in; null is fp32. Read `RunConfig.grad_accum_dtype`."""
    initial_loss_scale_power: int = Field(default=16, ge=0, le=32)
    """fp16 only: the dynamic loss scale starts at 2 to this power."""


class CheckpointConfig(Section):
    """When the run is saved and from where it goes on; the last step is always saved."""

    every_steps: Count | None = None
    """Steps between checkpoints; null saves the last step only."""
    keep_last: Count | None = None
    """Newest checkpoints to keep; null keeps all."""
    resume: Literal["auto", "never"] = "auto"
    """auto goes on from the newest checkpoint in the run directory; never starts anew."""


class MonitorConfig(Section):
    """What is reported while the run goes."""

    log_every_steps: Count = 1
    """Steps between lines in metrics.jsonl, TensorBoard and the terminal."""
    eval_every_steps: Count | None = None
    """Steps between evaluations on data.validation; null evaluates after the last step only."""
    eval_samples: Count | None = None
    """Sequences per evaluation; null takes all of data.validation."""
    tensorboard: bool = True
    """Write TensorBoard events to RUN_DIR/tensorboard."""
    check_replicas_every_steps: Count | None = None
    """Steps between checks that ranks agree on what they hold in copies; null never checks."""
    on_divergence: Literal["stop", "skip", "roll_back"] = "stop"
    """What to do where a loss or gradient is not finite: end, leave the step out, or go back to a checkpoint."""
    max_divergences: Count = 10
    """Steps that one start of the run may leave out or roll back; one more ends it."""


class RunConfig(Section):
    """A whole run."""

    run: RunSection
    model: ModelConfig
    objective: ObjectiveConfig = ObjectiveConfig()
    data: DataConfig
    parallel: ParallelConfig = ParallelConfig()
    batch: BatchConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    precision: PrecisionConfig = PrecisionConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    monitor: MonitorConfig = MonitorConfig()

    @property
    def gradient_accumulation_steps(self) -> int:
        """Micro-batches per model copy and optimizer step; with a ramp-up, after it."""
        return accumulation_steps(
            global_batch_size=self.batch.global_batch_size,
            micro_batch_size=self.batch.micro_batch_size,
            data_parallel_size=self.parallel.data_parallel_size,
        )

    @property
    def tokens_per_step(self) -> int:
        """Tokens per optimizer step, over all model copies; with a ramp-up, after it."""
        return self.batch.global_batch_size * self.model.seq_len

    @property
    def batch_ramp(self) -> BatchRamp:
        """The global batch size at each point of the run; a ramp-up that the rules refuse is taken for none."""
        final, batch = self.batch.global_batch_size, self.batch
        start, increment, samples = batch.ramp_up_start, batch.ramp_up_increment, batch.ramp_up_samples
        if start is None or increment is None or samples is None or start + increment > final:
            return BatchRamp(final=final, start=final, increment=1, samples=0)
        return BatchRamp(final=final, start=start, increment=increment, samples=samples)

    @property
    def num_samples(self) -> int:
        """Samples of all steps of the run, the ramp-up of the batch size included."""
        return self.batch_ramp.after(0, self.run.steps)

    @property
    def phase_starts(self) -> list[int]:
        """Samples of the run before each phase of the data."""
        ramp = self.batch_ramp
        return [phase.from_sample or ramp.after(0, (phase.from_step or 1) - 1) for phase in self.data.phases]

    @property
    def decay_steps(self) -> int:
        """Steps after which the schedule stays at `min_lr`."""
        return self.schedule.decay_steps or self.run.steps

    @property
    def grad_accum_dtype(self) -> Dtype:
        """Format gradients are summed in: as asked, else fp32."""
        return self.precision.grad_accum_dtype or "fp32"


SECTIONS: Mapping[str, type[Section]] = MappingProxyType(
    {name: section for name, section in get_type_hints(RunConfig).items() if name in RunConfig.model_fields}
)
"""Section name -> its class, in the order of the file."""

LISTS: Mapping[str, type[Section]] = MappingProxyType({"data.train": SourceConfig, "data.phases": PhaseConfig})
"""Dotted key -> class of the entries, for keys that hold a list of sections."""
