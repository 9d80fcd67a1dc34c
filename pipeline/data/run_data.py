"""What a run reads: its sources opened and mixed, its objective set up, all checked before the first step."""

from dataclasses import dataclass

from pipeline.config.sample import sample_window
from pipeline.config.schema import RunConfig, SourceConfig
from pipeline.data.blend import Blend, BlendSource
from pipeline.data.objective import make_objective
from pipeline.data.packed_windows import PackedWindows
from pipeline.data.run_tokenizer import RunTokenizer
from pipeline.data.samples import SampleReader, Samples, SamplesInOrder
from pipeline.data.sentence_pairs import SentencePairs
from pipeline.data.stream_windows import StreamWindows
from pipeline.data.token_stream import TokenStream
from pipeline.data.weights import phases
from pipeline.errors import DataError
from pipeline.shards import ShardSet, find_shards

# Evaluation draws from other numbers than training, and from the same ones each time: run.seed is below this.
VALIDATION_SEED = 2**32


@dataclass(frozen=True, kw_only=True)
class RunData:
    """The training samples, and the held-out ones where there are any.

    Attributes:
        sources: the shards of each training source, in the order of the config.
        tokens_per_sample: of each source, as an epoch counts them.
    """

    train: Samples
    validation: SamplesInOrder | None
    sources: tuple[ShardSet, ...]
    tokenizer: RunTokenizer
    tokens_per_sample: tuple[float, ...]

    @property
    def num_tokens(self) -> int:
        """Of all training sources."""
        return sum(source.num_tokens for source in self.sources)

    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each training source, by its name."""
        names = [source.name for source in self.train.blend.sources]
        return {name: shards.fingerprint for name, shards in zip(names, self.sources, strict=True)}

    def tokens_read(self, consumed_samples: int) -> dict[str, int]:
        """Tokens of each source, by its name, in the first `consumed_samples` of the run."""
        blend = self.train.blend
        counts = blend.counts(consumed_samples).tolist()
        return {
            source.name: round(count * tokens)
            for source, count, tokens in zip(blend.sources, counts, self.tokens_per_sample, strict=True)
        }

    def epochs_read(self, consumed_samples: int) -> dict[str, float]:
        """How often each source was read, by its name, in the first `consumed_samples` of the run."""
        blend = self.train.blend
        counts = blend.counts(consumed_samples).tolist()
        return {source.name: count / source.num_samples for source, count in zip(blend.sources, counts, strict=True)}


def open_run_data(config: RunConfig) -> RunData:
    """Open what `config` names. The shards are not read yet, and it takes as long for a trillion tokens as for a few.

    Raises:
        DataError: a path holds no tokens, or too few for one sample; the tokenizer lacks a token that the objective
            needs; or the sources end before the run.
    """
    sources = tuple(find_shards(source.path) for source in config.data.train)
    tokenizer = RunTokenizer(config, sources)
    seed = config.run.seed
    readers = [_reader(config, shards, seed) for shards in sources]
    blend_sources = [
        _blend_source(source, shards, reader.num_samples)
        for source, shards, reader in zip(config.data.train, sources, readers, strict=True)
    ]
    blend = Blend(blend_sources, phases(config, [shards.num_tokens for shards in sources]))
    blend.check_length(config.num_samples)
    vocab_size = tokenizer.vocab_size
    validation = None
    if config.data.validation:
        held_out = find_shards(config.data.validation)
        validation = SamplesInOrder(
            _reader(config, held_out, seed + VALIDATION_SEED),
            make_objective(config, tokenizer, seed=seed + VALIDATION_SEED),
            vocab_size=vocab_size,
            name=config.data.validation,
        )
    return RunData(
        train=Samples(blend, readers, make_objective(config, tokenizer, seed=seed), seed=seed, vocab_size=vocab_size),
        validation=validation,
        sources=sources,
        tokenizer=tokenizer,
        tokens_per_sample=tuple(map(_tokens_per_sample, readers, sources)),
    )


def _reader(config: RunConfig, shards: ShardSet, seed: int) -> SampleReader:
    """What cuts one source into samples, as the config asks."""
    window, objective, data = sample_window(config), config.objective, config.data
    stream = TokenStream(shards, reading=data.reading)
    reader: SampleReader
    if objective.pairs != "none" and objective.reads_pairs:
        reader = SentencePairs(
            stream,
            max_tokens=window.length,
            seed=seed,
            kind=objective.pairs,
            short_rate=objective.short_share,
            eod_id=shards.eod_id,
        )
    elif data.packing:
        reader = PackedWindows(stream, seq_len=config.model.seq_len)
    else:
        reader = StreamWindows(
            stream,
            length=window.length,
            stride=window.stride,
            seed=seed,
            finds_documents=data.reset_positions or data.attend_within_documents or objective.fim_rate > 0,
        )
    if not reader.num_samples:
        raise DataError(
            f"{shards.path} holds {shards.num_tokens} tokens, fewer than one sample reads ({window.length}: "
            f"{window.formula}). Give more text, or lower model.seq_len."
        )
    return reader


def _tokens_per_sample(reader: SampleReader, shards: ShardSet) -> float:
    """An epoch of windows may leave out a rest; one of pairs or packed documents is all tokens of the source."""
    return reader.stride if isinstance(reader, StreamWindows) else shards.num_tokens / reader.num_samples


def _blend_source(source: SourceConfig, shards: ShardSet, num_samples: int) -> BlendSource:
    most = None if source.max_epochs is None else max(int(source.max_epochs * num_samples), 1)
    return BlendSource(
        name=source.name,
        key=shards.fingerprint,
        num_samples=num_samples,
        max_samples=most,
        replaced_by=source.replaced_by,
    )
