"""What a run reads: blends, objectives and tokenizers together, and what is refused before the first step."""

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from data_prep.data_sets.packing import pack
from data_prep.manifest import FILE_NAME as MANIFEST
from data_prep.manifest import TokenizerRecord
from data_prep.tokenizer import loading
from data_prep.tokenizer.tokenizer_training import train_tokenizer
from data_prep.tokenizer.tokenizers import Tokenizer
from pipeline.config.load import build
from pipeline.data.blend import Blend, BlendSource, Phase
from pipeline.data.run_data import RunData, open_run_data
from pipeline.errors import ConfigError, DataError
from pipeline.objectives.samples import IGNORED, Batch
from tests.data_sets import train_small_tokenizer, write_data_set
from tests.unit.pipeline.config.sections import sections

SEQ_LEN = 32
SENTENCES = [line for topic in topics.values() for line in topic.splitlines() if len(line) > 40]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets of one tokenizer with all special tokens: `web` and `books` in sentences, `plain`, and `tiny`."""
    work = tmp_path_factory.mktemp("data")
    made = train_tokenizer(
        iter(SENTENCES[:800]), kind="wordpiece", vocab_size=900, out=work / "tokenizer", objectives=["all"]
    )
    for name, first, count in (("web", 0, 60), ("books", 300, 20), ("held_out", 400, 20)):
        documents = [SENTENCES[at : at + 6] for at in range(first, first + 6 * count, 6)]
        _write(work, name, made, [_ids(made, document) for document in documents], split_sentences="en")
    _write(work, "plain", made, [[7] * 500])
    _write(work, "tiny", made, [[7, 8, 9]])
    return work


def _ids(tokenizer: Tokenizer, document: list[str]) -> list[list[int]]:
    sentences = [ids.tolist() for ids in tokenizer.encode_batch(document)]
    assert tokenizer.eod_id is not None
    sentences[-1].append(tokenizer.eod_id)
    return sentences


def _write(work: Path, name: str, tokenizer: Tokenizer, documents: Any, **more: Any) -> None:
    write_data_set(
        work / name,
        [documents[::2], documents[1::2]],
        vocab_size=tokenizer.vocab_size,
        eod_id=tokenizer.eod_id,
        tokenizer=TokenizerRecord(path="../tokenizer", sha256=tokenizer.sha256),
        **more,
    )


def opened(work: Path, changes: Mapping[str, Any] | None = None) -> RunData:
    base = {"data.train": str(work / "web"), "model.seq_len": SEQ_LEN, "model.vocab_size": None}
    return open_run_data(build(sections(base | dict(changes or {})), for_training=False))


def blended(work: Path, *weights: float, **changes: Any) -> dict[str, Any]:
    names = ("web", "books", "plain")
    sources = [
        {"path": str(work / name), "name": name, "weight": weight} for name, weight in zip(names, weights, strict=False)
    ]
    for name, more in changes.items():
        sources[names.index(name)] |= more
    return {"data.train": sources}


OBJECTIVES: dict[str, dict[str, Any]] = {
    "causal": {},
    "documents": {"data.attend_within_documents": True, "data.reset_positions": True},
    "fim": {"objective.fim_rate": 0.5, "objective.fim_cut": "token"},
    "masked": {"objective.name": "masked", "objective.masking": "whole_word"},
    "nsp": {"objective.name": "masked", "objective.pairs": "nsp"},
    "sop": {"objective.name": "masked", "objective.pairs": "sop", "objective.masking": "ngram"},
    "span": {"objective.name": "span"},
    "prefix": {"objective.name": "span", "objective.denoiser": "prefix"},
    "ul2": {"objective.name": "span", "objective.denoiser": "ul2"},
}


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_sample_is_the_same_whoever_reads_it_with_whatever_others(work: Path, objective: str) -> None:
    changes = blended(work, 0.7, 0.3) | OBJECTIVES[objective]
    first, second = opened(work, changes).train, opened(work, changes | {"data.reading": "pread"}).train
    positions = np.array([0, 1, 5, 6, 17, 40, 41, 99, 10_000])
    together = first.batch(positions)
    for row, position in reversed(list(enumerate(positions.tolist()))):
        alone = second.batch(np.array([position]))
        assert_equal(alone, {name: values[row : row + 1] for name, values in together.items()})


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_batches_have_the_shapes_of_the_model(work: Path, objective: str) -> None:
    batch = opened(work, OBJECTIVES[objective]).train.batch(np.arange(5))
    for name in ("input_ids", "labels"):
        assert batch[name].dtype == np.int32
    assert batch["input_ids"].shape == (5, SEQ_LEN)
    assert (batch["labels"] != IGNORED).any(axis=1).all()
    masks = {name: values.dtype for name, values in batch.items() if name.endswith("mask")}
    assert set(masks.values()) <= {np.dtype(bool)}


@given(weights=st.tuples(st.integers(1, 9), st.integers(1, 9)), epochs=st.integers(1, 3))
@settings(max_examples=20)
def test_every_sample_of_every_source_comes_once_an_epoch(work: Path, weights: tuple[int, int], epochs: int) -> None:
    data = opened(work, blended(work, *weights))
    for source in range(2):
        described = data.train.blend.sources[source]
        found: list[tuple[int, int]] = []
        position = 0
        while len(found) < described.num_samples * epochs:
            place = data.train.place(position)
            if place.source == described.name:
                found.append((place.epoch, place.id))
            position += 1
        assert sorted(found) == [(epoch, number) for epoch in range(epochs) for number in range(described.num_samples)]


def test_a_source_has_an_order_of_its_own_that_its_place_in_the_blend_does_not_change(work: Path) -> None:
    alone = opened(work, {"data.train": str(work / "books")}).train
    mixed = opened(work, blended(work, 0.5, 0.5)).train
    of_books = [place for place in map(mixed.place, range(40)) if place.source == "books"]
    assert [place.id for place in of_books] == [alone.place(number).id for number in range(20)]


def test_what_was_read_is_counted(work: Path) -> None:
    data = opened(work, blended(work, 0.75, 0.25, books={"max_epochs": 1.5}))
    names = [data.train.place(position).source for position in range(500)]
    assert data.tokens_read(500) == {name: names.count(name) * SEQ_LEN for name in ("web", "books")}
    assert data.epochs_read(500)["books"] == pytest.approx(1.5, abs=0.05)


def test_evaluation_masks_alike_each_time_and_otherwise_than_training(work: Path) -> None:
    changes = {"data.validation": str(work / "held_out"), "objective.name": "masked"}
    one, other = opened(work, changes).validation, opened(work, changes).validation
    assert one is not None
    assert other is not None
    assert_equal(one.batch(np.arange(4)), other.batch(np.arange(4)))
    same_text = opened(work, {"data.train": str(work / "held_out"), "objective.name": "masked"})
    ids = [same_text.train.place(position).id for position in range(4)]
    trained = same_text.train.batch(np.arange(4))["labels"]
    assert not np.array_equal(one.batch(np.array(ids))["labels"], trained)


def test_temperature_and_tokens_are_ways_to_weigh(work: Path) -> None:
    sources = [{"path": str(work / name), "name": name} for name in ("web", "books")]
    sizes = np.array([shards.num_tokens for shards in opened(work, blended(work, 1, 1)).sources])
    for temperature in (1.0, 2.0, 1000.0):
        shares = opened(work, {"data.train": sources, "data.temperature": temperature}).train.blend.shares(0)
        expected = sizes ** (1 / temperature)
        assert shares == pytest.approx((expected / expected.sum()).tolist(), abs=1e-5)
    budgets = [{**source, "tokens": tokens} for source, tokens in zip(sources, (3_000, 1_000), strict=True)]
    assert opened(work, {"data.train": budgets}).train.blend.shares(0) == [0.75, 0.25]


@pytest.mark.parametrize("objective", ["causal", "span"])
def test_pairs_that_an_objective_does_not_read_change_nothing(work: Path, objective: str) -> None:
    plain = {"objective.name": objective}
    for positions in (np.arange(4), np.arange(100, 104)):
        assert_equal(
            opened(work, plain | {"objective.pairs": "nsp"}).train.batch(positions),
            opened(work, plain).train.batch(positions),
        )


def test_many_capped_sources_take_no_longer_to_open() -> None:
    """Each change of shares costs a pattern of up to 2^20 samples; only those that are reached are made."""
    sources = [
        BlendSource(name=str(number), key=str(number), num_samples=10**6, max_samples=10**7 + number)
        for number in range(200)
    ]
    weights = {str(number): Fraction(number * 7919 + 13, 10**6 + number) for number in range(200)}
    blend = Blend(sources, [Phase(start=0, weights=weights)])
    blend.check_length(10_000)
    assert blend.locate(np.arange(9_990, 10_000))[0].shape == (10,)
    assert len(blend._segments) == 1


def test_phases_begin_at_their_step_or_sample(work: Path) -> None:
    phases = [{"from_step": 11, "weights": {"books": 1}}, {"from_sample": 100, "weights": {"web": 1, "books": 1}}]
    data = opened(work, blended(work, 1, 0) | {"data.phases": phases, "batch.global_batch_size": 8})
    assert data.train.blend.changes(500) == [80, 100]
    names = [data.train.place(position).source for position in range(120)]
    assert names[:80] == ["web"] * 80
    assert names[80:100] == ["books"] * 20
    assert names[100:].count("web") == 10


WRONG_CONFIGS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"data.train": []}, "data.train=[] is wrong because it is empty; name one at least"),
    ({"data.train": 3}, "data.train=3 is wrong because it is neither a path nor a list of sources"),
    ({"data.train": ["web"]}, "data.train.0=web is wrong because data.train.0 is a section"),
    ({"data.train": [{"weight": 1}]}, "data.train.0.path is missing"),
    (
        {"data.train": [{"path": "a", "wieght": 1}]},
        "data.train.0.wieght=1 is wrong because there is no such key; did you mean weight?",
    ),
    ({"data.train": [{"path": "a", "weight": -1}]}, "data.train.0.weight=-1 is wrong because it must be 0.0 or more"),
    ({"data.train": [{"path": "a", "weight": 0}, {"path": "b", "weight": 0}]}, "its weights sum up to 0"),
    ({"data.train": [{"path": "a", "weight": 1}, {"path": "b"}]}, "does not say what the share of each source is"),
    (
        {"data.train": [{"path": "a", "weight": 1}, {"path": "b", "tokens": 5}]},
        "weight and tokens cannot be used together",
    ),
    ({"data.train": [{"path": "a"}, {"path": "a"}], "data.temperature": 1.0}, "'a' names two sources"),
    ({"data.train": [{"path": "a", "max_epochs": 1.0, "replaced_by": "b"}]}, "data.train.0.replaced_by=b is wrong"),
    (
        {"data.phases": [{"from_step": 5, "weights": {"x": 1}}]},
        "data.phases.0.weights=x is wrong because it is not the name",
    ),
    (
        {"data.phases": [{"from_step": 1, "weights": {"data/train": 1}}]},
        "data.phases.0.from_step=1 is wrong because it must be 2 or more",
    ),
    ({"data.phases": [{"from_step": 5, "weights": {"data/train": 0}}]}, "no source has a weight above 0"),
    ({"data.phases": [{"weights": {"data/train": 1}}]}, "one of from_step and from_sample says when it begins"),
    (
        {"data.phases": [{"from_step": 5, "weights": {"data/train": 1}}] * 2},
        "data.phases.1 is wrong because it begins at sample 32, not after",
    ),
    (
        {"data.phases": [{"from_step": 5, "weights": {"data/train": "x"}}]},
        "data.phases.0.weights.data/train=x is wrong because it is not a number",
    ),
    ({"data.phases": 3}, "data.phases=3 is wrong because it is not a list"),
    ({"data.temperature": 0.5}, "data.temperature=0.5 is wrong because it must be 1.0 or more"),
    ({"data.packing": True, "objective.name": "span"}, "data.packing=true cannot be used with objective.name=span"),
    ({"objective.mask_token_share": 0.9, "objective.random_token_share": 0.2}, "sum up to more than 1"),
    ({"objective.mask_rate": 0}, "objective.mask_rate=0 is wrong because it must be above 0"),
    ({"objective.noise_density": 1}, "objective.noise_density=1 is wrong because it must be below 1"),
)


@pytest.mark.parametrize(("changes", "expected"), WRONG_CONFIGS, ids=[expected for _, expected in WRONG_CONFIGS])
def test_wrong_configs_are_refused_in_one_sentence(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(sections(changes), check_data=False, for_training=False)
    [problem] = caught.value.problems
    assert expected in problem


def test_what_the_model_cannot_be_trained_on_can_be_looked_at(work: Path) -> None:
    changes = {"data.train": str(work / "web"), "model.vocab_size": None, "objective.name": "masked"}
    with pytest.raises(ConfigError, match=r"objective\.name=masked cannot be trained with model\.architecture=llama"):
        build(sections(changes))
    build(sections(changes), for_training=False)


def test_sources_shorter_than_a_sample_are_refused(work: Path) -> None:
    with pytest.raises(ConfigError, match=r"its 3 tokens do not fill one sample of 33 \(model\.seq_len=32 and the"):
        opened(work, {"data.train": str(work / "tiny")})
    with pytest.raises(ConfigError, match=r"data\.train\.1\.path=.*tiny is wrong because its 3 tokens"):
        opened(work, blended(work, 1, 1, books={"path": str(work / "tiny")}))


def test_pairs_need_sentences(work: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"objective\.pairs=nsp needs documents of several sentences; .*--split-sentences"
    ):
        opened(work, {"data.train": str(work / "plain"), **OBJECTIVES["nsp"]})


def test_what_was_trained_on_is_not_held_out(work: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"data\.validation=.*shard_00001 is wrong because it holds a shard that data\.train="
    ):
        opened(work, {"data.validation": str(work / "web/shard_00001")})
    with pytest.raises(ConfigError, match=r"data\.train\.1\.path=.* would be read twice"):
        opened(work, blended(work, 1, 1, books={"path": str(work / "web/shard_*.idx")}))


def test_a_run_longer_than_its_capped_sources_is_refused(work: Path) -> None:
    with pytest.raises(DataError, match=r"the run reads 8000 samples, but after \d+ samples every source"):
        opened(work, blended(work, 1, web={"max_epochs": 1.0}) | {"run.steps": 1000})


@pytest.mark.parametrize(
    ("objective", "missing"), [("masked", "needs the tokens mask, cls, sep"), ("span", "0 sentinels")]
)
def test_a_tokenizer_without_the_tokens_of_the_objective_is_refused(
    tmp_path: Path, objective: str, missing: str
) -> None:
    tokenizer = loading.load(train_small_tokenizer(tmp_path / "tokenizer"))
    _write(tmp_path, "data", tokenizer, [[7] * 500])
    with pytest.raises(DataError, match=missing):
        opened(tmp_path, {"data.train": str(tmp_path / "data"), "objective.name": objective})


def test_packed_samples_are_read_where_they_were_packed(work: Path) -> None:
    changes = blended(work, 0.5, 0.5) | {"data.packing": True, "data.attend_within_documents": True}
    with pytest.raises(
        DataError, match=r"is not packed for a sequence length of 32.*pretrain data pack .* --seq-len 32"
    ):
        opened(work, changes)
    for name in ("web", "books"):
        pack(work / name, seq_len=SEQ_LEN)
    data = opened(work, changes)
    batch = data.train.batch(np.arange(50))
    ends = batch["labels"] == loading.load(work / "tokenizer").eod_id
    starts = np.diff(batch["document_ids"], prepend=0) > 0
    assert starts.any()
    assert (ends | (batch["labels"] == IGNORED))[:, :-1][starts[:, 1:]].all(), "a document begins where one has ended"
    assert data.epochs_read(2 * data.train.blend.sources[0].num_samples)["web"] == 1
    packed = work / "web/shard_00000.packed_32"
    content = packed.read_bytes()
    packed.write_bytes(content[:-40] + b"\xff" * 40)
    damaged = opened(work, changes).train
    with pytest.raises(DataError, match=r"shard_00000\.packed_32 is damaged: window \d+\. Run `pretrain data pack"):
        damaged.batch(np.arange(200))
    packed.write_bytes(content)
    with pytest.raises(DataError, match="is not packed for a sequence length of 16"):
        opened(work, changes | {"model.seq_len": 16})


def test_words_cannot_be_masked_where_tokens_do_not_show_them(tmp_path: Path) -> None:
    vocab = {name: number for number, name in enumerate(["[UNK]", "[MASK]", "[CLS]", "[SEP]", "[PAD]", "a", "b"])}
    model = Backend(models.WordLevel(vocab, unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    model.add_special_tokens(list(vocab)[:5])
    (tmp_path / "tokenizer").mkdir()
    model.save(str(tmp_path / "tokenizer/tokenizer.json"))
    roles = {"mask_token": "[MASK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "eos_token": "[SEP]"}
    (tmp_path / "tokenizer/tokenizer_config.json").write_text(json.dumps(roles))
    _write(tmp_path, "data", loading.load(tmp_path / "tokenizer"), [[5, 6] * 99])
    changes = {"data.train": str(tmp_path / "data"), "objective.name": "masked"}
    assert opened(tmp_path, changes).train.batch(np.arange(2))["labels"].max() == 6
    with pytest.raises(DataError, match=r"objective\.masking=ngram is wrong because the tokens of .* do not show"):
        opened(tmp_path, changes | {"objective.masking": "ngram"})


def test_another_tokenizer_than_made_the_tokens_is_refused(work: Path, tmp_path: Path) -> None:
    other = train_small_tokenizer(tmp_path / "tokenizer")
    with pytest.raises(DataError, match="is not the one that made the tokens"):
        opened(work, {"data.tokenizer": str(other), "objective.name": "masked"})


def test_pairs_of_other_programs_need_a_vocabulary_and_for_some_objectives_a_tokenizer(
    work: Path, tmp_path: Path
) -> None:
    foreign = write_data_set(tmp_path / "data", [[[5, 6, 7] * 100]], vocab_size=900)
    (foreign / MANIFEST).unlink()
    changes: dict[str, Any] = {"data.train": str(foreign)}
    with pytest.raises(ConfigError, match=r"model\.vocab_size is missing"):
        opened(work, changes)
    with pytest.raises(
        ConfigError, match=r"model\.vocab_size=7 is wrong because data\.train holds ids up to 7; set it to 8"
    ):
        opened(work, changes | {"model.vocab_size": 7})
    assert opened(work, changes | {"model.vocab_size": 8}).train.batch(np.arange(2))["labels"].max() == 7
    span = changes | {"model.vocab_size": 900, "objective.name": "span"}
    with pytest.raises(DataError, match=r"no manifest names the tokenizer.*data\.tokenizer"):
        opened(work, span)
    batch = opened(work, span | {"data.tokenizer": str(work / "tokenizer")}).train.batch(np.arange(2))
    assert batch["labels"].shape[0] == 2


def test_an_id_outside_the_vocabulary_is_named_when_it_is_read(work: Path) -> None:
    data = open_run_data(build(sections({"data.train": str(work / "web"), "model.vocab_size": 6}), check_data=False))
    with pytest.raises(DataError, match=r"web holds the id \d+, and the vocabulary has 6 ids"):
        data.train.batch(np.arange(4))
