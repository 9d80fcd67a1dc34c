"""Each kind of tokenizer for each objective: its special tokens, exact size, text that comes back, equal files."""

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import DataError
from data_prep.tokenizer.hf_training import CHARACTER_COVERAGE, MAX_PART_CHARACTERS
from data_prep.tokenizer.special_roles import (
    EXTRA,
    KINDS,
    NEEDED,
    OBJECTIVES,
    SENTINELS,
    Kind,
    Objective,
    special_tokens,
)
from data_prep.tokenizer.tokenizer_training import sample_texts, train_tokenizer
from data_prep.tokenizer.tokenizers import Tokenizer

REPO = Path(__file__).parents[3]
TEXTS = [text for _, text in sorted(topics.items())][:40]
VOCAB_SIZE = 700
SPACE_MARK = "\u2581"  # SentencePiece reads it as a space; the one character that does not come back
PIECES = st.sampled_from(
    [" ", "  ", "e", "the", "==", "\n", "\r\n", "\t", "\0", "é", "e\u0301", "日", "7", "'s", "<|mask|>", "👩‍👩‍👧"]
)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.lists(PIECES).map("".join)

Train = Callable[[Kind, Objective], Tokenizer]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """A tokenizer of a kind for an objective; each is trained once."""
    found: dict[tuple[Kind, Objective], Tokenizer] = {}

    def train(kind: Kind, objective: Objective) -> Tokenizer:
        if (kind, objective) not in found:
            out = tmp_path_factory.mktemp("tokenizer") / f"{kind}_{objective}"
            found[kind, objective] = train_tokenizer(
                TEXTS, kind=kind, vocab_size=VOCAB_SIZE, out=out, objectives=[objective]
            )
        return found[kind, objective]

    return train


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_have_the_first_ids_and_no_text_makes_one(
    trained: Train, kind: Kind, objective: Objective
) -> None:
    tokenizer, special = trained(kind, objective), special_tokens(kind, [objective])
    assert tokenizer.vocab_size == VOCAB_SIZE
    assert tokenizer.special_tokens == {name: number for number, name in enumerate(special.names)}
    bos, eos, pad = (tokenizer.special_tokens[special.roles[role]] for role in ("bos", "eos", "pad"))
    assert (tokenizer.bos_id, tokenizer.eod_id, tokenizer.pad_id) == (bos, eos, pad)
    ids = tokenizer.encode_batch([*special.names, " ".join(special.names), *TEXTS])
    unknown = {tokenizer.special_tokens[special.roles["unk"]]} if kind == "wordpiece" else set()
    assert {int(token) for of_one in ids for token in of_one} & set(tokenizer.special_tokens.values()) <= unknown


@pytest.mark.parametrize("kind", KINDS)
def test_roles_and_sentinels_follow_from_the_objectives(kind: Kind) -> None:
    for objective, needed in NEEDED.items():
        special = special_tokens(kind, [objective])
        assert needed | {"unk", "pad", "bos", "eos"} <= set(special.roles)
        assert special.extra == EXTRA.get(objective, ())
        assert special.wraps_text == (objective == "masked")
    every = special_tokens(kind, ["fim", "span", "masked", "causal"])
    assert every == special_tokens(kind, ["all"]) == special_tokens(kind, ["masked", "span", "fim"])
    assert every.names[7:] == (*SENTINELS, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
    assert len(set(every.names)) == len(every.names) == 110
    assert set(every.roles.values()) == set(every.names[:7])
    with pytest.raises(DataError, match="names no objective"):
        special_tokens(kind, [])


def test_names_and_ids_that_users_rely_on() -> None:
    assert special_tokens("unigram", ["causal"]).names == ("<|unk|>", "<|bos|>", "<|eos|>", "<|pad|>")
    assert special_tokens("byte_bpe", ["all"]).names[:8] == (
        *("<|unk|>", "<|bos|>", "<|eos|>", "<|pad|>", "<|mask|>", "<|cls|>", "<|sep|>"),
        "<extra_id_0>",
    )
    bert = special_tokens("wordpiece", ["masked"])
    assert bert.names == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert (bert.roles["bos"], bert.roles["eos"]) == ("[CLS]", "[SEP]")


@pytest.mark.parametrize("kind", ["unigram", "bpe", "byte_bpe"])
@settings(max_examples=100, deadline=None)
@given(text=ANY_TEXT)
def test_any_text_comes_back(trained: Train, kind: Kind, text: str) -> None:
    text = text if kind == "byte_bpe" else text.replace(SPACE_MARK, "")
    tokenizer = trained(kind, "all")
    [ids] = tokenizer.encode_batch([text])
    assert tokenizer.decode(ids) == text


def test_byte_bpe_has_every_byte_and_joins_line_ends(trained: Train) -> None:
    tokenizer = trained("byte_bpe", "causal")
    code_points = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    random.Random(0).shuffle(code_points)
    text = "".join(code_points[:50_000])
    [ids] = tokenizer.encode_batch([text])
    assert tokenizer.decode(ids) == text
    single = tokenizer.encode_batch(["\0", "\x7f", "\U0010ffff"])
    assert [len(found) for found in single] == [1, 1, 4]
    assert tokenizer.decode(single[2][:2]) == "\ufffd"
    assert [len(found) for found in tokenizer.encode_batch([".\n", "\n\n", "2025"])] == [1, 1, 4]


def test_wordpiece_cuts_as_bert_does(trained: Train, tmp_path: Path) -> None:
    cased = trained("wordpiece", "masked")
    lower = train_tokenizer(
        ["Café naïve " * 9, *TEXTS], kind="wordpiece", vocab_size=600, out=tmp_path / "lower", lowercase=True
    )
    for tokenizer, text in ((cased, "The MASK qz7XK, it-s"), (lower, "the CAFÉ NaÏve qz7XK")):
        [ids] = tokenizer.encode_batch([text])
        assert tokenizer.special_tokens["[UNK]"] not in ids
        [spaced] = tokenizer.encode_batch([f"  {text}\t\0"])
        assert spaced.tolist() == ids.tolist()
    assert cased.decode(cased.encode_batch(["The MASK qz7XK, it"])[0]) == "The MASK qz7XK, it"
    assert lower.decode(lower.encode_batch(["the CAFÉ NaÏve qz7XK"])[0]) == "the café naïve qz7xk"
    assert cased.encode_batch(["\u0905 [MASK]"])[0][0] == cased.special_tokens["[UNK]"]


def test_wordpiece_leaves_rare_characters_of_much_text_out(tmp_path: Path) -> None:
    for name, filler, is_known in (("little", TEXTS[:2], True), ("much", TEXTS, False)):
        num_characters = sum(len("".join(text.split())) for text in filler)
        assert (num_characters * (1 - CHARACTER_COVERAGE) < 1) == is_known
        texts = [*filler, "ж " * 200, "ก"]
        tokenizer = train_tokenizer(texts, kind="wordpiece", vocab_size=400, out=tmp_path / name)
        frequent, rare = (ids.tolist() for ids in tokenizer.encode_batch(["ж", "ก"]))
        unknown = [tokenizer.special_tokens["[UNK]"]]
        assert frequent != unknown
        assert (rare != unknown) == is_known


def test_a_megabyte_without_line_ends_is_trained_on_in_parts(tmp_path: Path) -> None:
    blob = "".join(random.Random(0).choices("abcdefghijklmnop", k=200 * MAX_PART_CHARACTERS))  # one word: takes 200 s
    train_tokenizer([blob], kind="byte_bpe", vocab_size=900, out=tmp_path / "out")


def test_equal_texts_make_equal_files_in_every_process(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from pydoc_data.topics import topics\n"
        "from data_prep.tokenizer.tokenizer_training import train_tokenizer\n"
        "texts = [text for _, text in sorted(topics.items())][:20]\n"
        f"for kind in {KINDS}:\n"
        "    for run in ('one', 'two'):\n"
        "        out = Path(sys.argv[1]) / kind / run\n"
        "        train_tokenizer(texts, kind=kind, vocab_size=600, out=out, objectives=['masked', 'span'])\n"
    )
    for name, hash_seed, threads in (("first", "1", "1"), ("second", "2", "4")):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "RAYON_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", script, tmp_path / name], cwd=REPO, env=environment, check=True)
    for kind in KINDS:
        folders = [tmp_path / name / kind / run for name in ("first", "second") for run in ("one", "two")]
        contents = [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders]
        assert len(contents[0]) == (3 if kind in ("unigram", "bpe") else 2)
        assert all(content == contents[0] for content in contents), kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("vocab_size", "way_out", "beyond"), [(200, "or more", -1), (500_000, "or less", 1)])
def test_a_vocabulary_that_does_not_suit_names_one_that_does(
    tmp_path: Path, kind: Kind, vocab_size: int, way_out: str, beyond: int
) -> None:
    def train(size: int) -> Tokenizer:
        return train_tokenizer(TEXTS[:2], kind=kind, vocab_size=size, out=tmp_path / "out", objectives=["all"])

    with pytest.raises(DataError, match=f"--vocab-size {vocab_size} .*Give \\d+ {way_out}") as refused:
        train(vocab_size)
    limit = int(re.findall(r"Give (\d+)", str(refused.value))[0])
    with pytest.raises(DataError, match=f"Give {limit} {way_out}"):
        train(limit + beyond)
    assert list(tmp_path.iterdir()) == []
    assert train(limit).vocab_size == limit


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_an_occupied_folder_and_a_wrong_option_are_refused(tmp_path: Path, kind: Kind) -> None:
    for nothing in ([], ["", "\n\t"]):
        with pytest.raises(DataError, match="holds no text"):
            train_tokenizer(nothing, kind=kind, vocab_size=500, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="exists already"):
        train_tokenizer(TEXTS, kind=kind, vocab_size=500, out=tmp_path)
    if kind != "wordpiece":
        with pytest.raises(DataError, match=f"--lowercase cannot be used with --type {kind}"):
            train_tokenizer(TEXTS, kind=kind, vocab_size=500, out=tmp_path / "out", lowercase=True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_with_the_input_is_said_as_it_is(tmp_path: Path, kind: Kind) -> None:
    def texts() -> Iterator[str]:
        yield TEXTS[0]
        raise DataError("line 7 is wrong")

    with pytest.raises(DataError, match=r"^line 7 is wrong$"):
        train_tokenizer(texts(), kind=kind, vocab_size=500, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_drawn_line_keeps_the_end_of_its_line_or_paragraph(tmp_path: Path) -> None:
    path = tmp_path / "input.jsonl"
    text = "a line\nend of a paragraph\n\nthe last"
    path.write_bytes(orjson.dumps({"text": text + " " * 50_000}) + b"\n" + 500 * (orjson.dumps({"text": text}) + b"\n"))
    drawn = [line for line in sample_texts([path], vocab_size=30) if len(line) < 100]
    assert set(drawn) == {"a line\n", "end of a paragraph\n\n", "the last"}
    assert len(drawn) < 1_400
