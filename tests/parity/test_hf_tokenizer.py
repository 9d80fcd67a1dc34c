"""The tokenizer folder in `transformers`: the same ids, the same text, the special tokens by their roles."""

import logging
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

from data_prep.tokenizer.special_roles import KINDS, OBJECTIVES, Kind, Objective, special_tokens
from data_prep.tokenizer.tokenizer_training import train_tokenizer
from data_prep.tokenizer.tokenizers import Tokenizer
from pipeline.convert.tokenizer_files import copy_tokenizer, special_ids

TEXTS = [text for _, text in sorted(topics.items())][:20]
HARD = [
    *(
        "",
        "  a  b\n\n\tc ",
        "é 日本語 👩‍👩‍👧‍👦 \0 1234",
        "<0x0A></s><s>",
        "=" * 500,
        "it's I'LL don\u2019t\r\n\r\n  x",
        "हिन्दी ภาษาไทย",
    ),
    "<|mask|><|cls|> [MASK][SEP] <extra_id_0><extra_id_99>",
]
VOCAB_SIZE = 700

Train = Callable[[Kind, Objective], Tokenizer]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """A tokenizer of a kind for an objective."""

    def train(kind: Kind, objective: Objective) -> Tokenizer:
        out = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
        return train_tokenizer(
            TEXTS, kind=kind, vocab_size=VOCAB_SIZE, out=out, objectives=[objective], model_max_length=512
        )

    return train


def load_theirs(folder: Path, **options: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, **options)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("kind", KINDS)
def test_auto_tokenizer(
    trained: Train, kind: Kind, objective: Objective, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, special = trained(kind, objective), special_tokens(kind, [objective])
    copy_tokenizer(ours, tmp_path)  # as an exported model has it
    with caplog.at_level(logging.WARNING):
        theirs = load_theirs(tmp_path, split_special_tokens=True)
    assert not caplog.records
    texts = [*TEXTS, *HARD]
    ids = [found.tolist() for found in ours.encode_batch(texts)]
    assert theirs(texts, add_special_tokens=False)["input_ids"] == ids
    decoded = theirs.batch_decode(ids, skip_special_tokens=True)
    assert decoded == [ours.decode(of_one) for of_one in ids]
    assert kind == "wordpiece" or decoded == texts
    assert len(theirs) == theirs.vocab_size == ours.vocab_size == VOCAB_SIZE
    assert theirs.model_max_length == 512
    assert theirs.special_tokens_map == {f"{role}_token": name for role, name in special.roles.items()}
    assert theirs.get_added_vocab() == ours.special_tokens
    exported = special_ids(ours)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (exported.bos, exported.eos, exported.pad)
    if objective != "masked":
        assert theirs(texts)["input_ids"] == ids


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_special_tokens_are_tokens_unless_split(trained: Train, kind: Kind) -> None:
    ours = trained(kind, "all")
    theirs = load_theirs(ours.folder)
    special = special_tokens(kind, ["all"])
    tokens = range(len(special.names))
    assert theirs("".join(special.names))["input_ids"] == list(tokens)
    assert theirs.extra_special_tokens == list(special.extra)
    silent = [token for token in tokens if token != theirs.unk_token_id]  # SentencePiece shows the unknown one
    assert theirs.decode(silent, skip_special_tokens=True) == ours.decode(silent) == ""
    marked = theirs(f"a{theirs.mask_token} b")["input_ids"]
    assert marked == [*ours.encode_batch(["a"])[0], theirs.mask_token_id, *ours.encode_batch([" b"])[0]]


@pytest.mark.parametrize("kind", KINDS)
def test_masked_puts_cls_and_sep_around_texts_and_pairs(trained: Train, kind: Kind) -> None:
    ours = trained(kind, "masked")
    theirs = load_theirs(ours.folder)
    a, b = (ids.tolist() for ids in ours.encode_batch(["one text", "another"]))
    cls, sep = theirs.cls_token_id, theirs.sep_token_id
    assert theirs("one text")["input_ids"] == [cls, *a, sep]
    pair = theirs("one text", "another")
    assert pair["input_ids"] == [cls, *a, sep, *b, sep]
    segments = [0] * (len(a) + 2) + [1] * (len(b) + 1)
    assert pair.get("token_type_ids") == (segments if kind == "wordpiece" else None)
    assert theirs(["one text", "a"], padding=True)["input_ids"][1][-1] == theirs.pad_token_id == ours.pad_id


@pytest.mark.parametrize("objective", ["causal", "all"])
@pytest.mark.parametrize("kind", ["bpe", "byte_bpe"])
def test_fast_engines_give_the_same_ids(trained: Train, kind: Kind, objective: Objective) -> None:
    fastokens, gigatoken = pytest.importorskip("fastokens"), pytest.importorskip("gigatoken")
    ours = trained(kind, objective)
    texts = [*TEXTS, *HARD[:-1]]  # they take the names in the last one for special tokens
    ids = [found.tolist() for found in ours.encode_batch(texts)]
    file = str(ours.folder / "tokenizer.json")
    assert [one.ids for one in fastokens.Tokenizer.from_file(file).encode_batch(texts)] == ids
    assert [list(map(int, one)) for one in gigatoken.Tokenizer(file).encode_batch(texts)] == ids
