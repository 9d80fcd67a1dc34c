"""Roles of tokens: from the model's own file, the files beside it, or well-known names, in this order."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, pre_tokenizers

from data_prep.errors import DataError
from data_prep.tokenizer.loading import load
from data_prep.tokenizer.special_roles import KINDS, SENTINELS
from data_prep.tokenizer.token_roles import FIM, Roles
from data_prep.tokenizer.tokenizer_training import train_tokenizer
from data_prep.tokenizer.tokenizers import Tokenizer
from tests.unit.data_prep.conftest import TEXTS

NO_ROLES = Roles(
    bos_id=None,
    eod_id=None,
    pad_id=None,
    mask_id=None,
    cls_id=None,
    sep_id=None,
    sentinel_ids=(),
    fim_ids=None,
)


def word_level(folder: Path, *names: str, **files: Any) -> Tokenizer:
    """A tokenizer of these names, ids 0, 1, ..., of which tokenizer.json calls none special."""
    tokenizer = HFTokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=names[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return load(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_that_was_trained_for_all_has_every_role(kind: Any, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, kind=kind, vocab_size=600, out=tmp_path / "out", objectives=["all"])
    ids, brackets = tokenizer.special_tokens, kind == "wordpiece"
    by_role = {role: ids[f"[{role.upper()}]" if brackets else f"<|{role}|>"] for role in ("bos", "pad", "mask", "cls")}
    assert tokenizer.roles == Roles(
        bos_id=by_role["bos"],
        eod_id=ids["[EOS]" if brackets else "<|eos|>"],
        pad_id=by_role["pad"],
        mask_id=by_role["mask"],
        cls_id=by_role["cls"],
        sep_id=ids["[SEP]" if brackets else "<|sep|>"],
        sentinel_ids=tuple(ids[name] for name in SENTINELS),
        fim_ids=(ids["<|fim_prefix|>"], ids["<|fim_middle|>"], ids["<|fim_suffix|>"]),
    )
    assert (tokenizer.bos_id, tokenizer.eod_id) == (tokenizer.roles.bos_id, tokenizer.roles.eod_id)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_has_no_more_roles_than_it_was_trained_for(kind: Any, tmp_path: Path) -> None:
    roles = train_tokenizer(TEXTS, kind=kind, vocab_size=600, out=tmp_path / "out", objectives=["causal"]).roles
    assert (roles.mask_id, roles.cls_id, roles.sep_id, roles.sentinel_ids, roles.fim_ids) == (
        None,
        None,
        None,
        (),
        None,
    )


def test_a_tokenizer_without_any(tmp_path: Path) -> None:
    assert word_level(tmp_path, "a", "b").roles == NO_ROLES


@pytest.mark.parametrize("names", FIM, ids=[names[0] for names in FIM])
def test_each_familys_names_for_the_middle_are_known(names: tuple[str, str, str], tmp_path: Path) -> None:
    prefix, middle, suffix = names
    assert word_level(tmp_path, "a", suffix, prefix, middle).roles.fim_ids == (2, 3, 1)
    assert word_level(tmp_path, "a", suffix, prefix).roles.fim_ids is None


def test_deepseeks_hole_stands_before_the_suffix(tmp_path: Path) -> None:
    begin, hole, end = (f"<\uff5cfim▁{name}\uff5c>" for name in ("begin", "hole", "end"))
    assert word_level(tmp_path, begin, hole, end).roles.fim_ids == (0, 2, 1)


def test_files_are_believed_before_well_known_names(tmp_path: Path) -> None:
    config = {"mask_token": "m", "cls_token": {"content": "c"}, "prefix_token": "p", "suffix_token": "s"}
    names = ("<mask>", "[CLS]", "[SEP]", "m", "c", "p", "s", "i", *FIM[1])
    roles = word_level(tmp_path, *names, tokenizer_config=config).roles
    assert (roles.mask_id, roles.cls_id, roles.sep_id) == (3, 4, 2)
    assert roles.fim_ids == (8, 9, 10)  # the config names two of three only
    more = {"extra_special_tokens": {"middle_token": "i"}}
    tokenizer = word_level(tmp_path, *names, tokenizer_config=config | more)
    assert tokenizer.roles.fim_ids == (5, 7, 6)
    assert tokenizer.special_tokens == {"m": 3, "c": 4, "p": 5, "s": 6, "i": 7}
    absent = word_level(tmp_path / "absent", "a", "<mask>", tokenizer_config={"mask_token": "not there"})
    assert absent.roles == NO_ROLES


def test_sentinels_are_in_the_order_of_their_numbers_up_to_a_gap(tmp_path: Path) -> None:
    numbers = (10, 2, 0, 1, 3, 5)
    assert word_level(tmp_path, *(f"<extra_id_{number}>" for number in numbers)).roles.sentinel_ids == (2, 3, 1, 4)
    assert word_level(tmp_path, "▁<extra_id_1>", "▁<extra_id_0>").roles.sentinel_ids == (1, 0)  # mT5
    assert word_level(tmp_path, "<extra_id_1>").roles.sentinel_ids == ()


def test_a_sentencepiece_model_is_believed_before_the_files_beside_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    shutil.copy(tokenizer.path, tmp_path)
    assert load(tmp_path).roles == tokenizer.roles
    config = {"eos_token": "not there", "mask_token": "<added>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert load(tmp_path).roles == tokenizer.roles  # its own end-of-sequence token; the mask is not there
    beside = HFTokenizer.from_file(str(tokenizer.folder / "tokenizer.json"))
    beside.add_special_tokens(["<added>", "<extra_id_0>", "<extra_id_1>"])
    beside.save(str(tmp_path / "tokenizer.json"))
    roles = load(tmp_path).roles
    assert (roles.eod_id, roles.mask_id) == (tokenizer.eod_id, tokenizer.vocab_size)
    assert roles.sentinel_ids == (tokenizer.vocab_size + 1, tokenizer.vocab_size + 2)


def test_a_sentencepiece_models_own_symbols_have_roles(tmp_path: Path) -> None:
    from sentencepiece import SentencePieceTrainer

    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[0].splitlines()),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=300,
        hard_vocab_limit=False,
        control_symbols=["[CLS]", "[SEP]"],
        user_defined_symbols=["[MASK]"],
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        minloglevel=2,
    )
    tokenizer = load(tmp_path)
    names = {name: tokenizer.special_tokens.get(name) for name in ("<pad>", "</s>", "[CLS]", "[SEP]")}
    roles = tokenizer.roles
    assert (roles.pad_id, roles.eod_id, roles.cls_id, roles.sep_id) == tuple(names.values())
    assert tokenizer.encode_batch(["[MASK]"])[0][-1] == roles.mask_id
    assert roles.bos_id is None
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "[CLS]", "eos_token": "[SEP]"}')
    assert load(tmp_path).roles.bos_id == roles.cls_id  # the model has none of its own
    assert load(tmp_path).roles.eod_id == roles.eod_id


def test_an_end_of_sequence_token_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="eos_token='end' is not in"):
        word_level(tmp_path, "a", tokenizer_config={"eos_token": "end"})
