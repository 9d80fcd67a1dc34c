"""What training gets to know of a tokenizer."""

import json
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, pre_tokenizers

from data_prep.tokenizer.loading import load
from data_prep.tokenizer.special_roles import KINDS
from data_prep.tokenizer.tokenizer_training import train_tokenizer
from pipeline.data.vocabulary import load_vocabulary

TEXTS = [text for _, text in sorted(topics.items())][:20]


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_a_trained_tokenizer(kind: Any, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, kind=kind, vocab_size=600, out=tmp_path / "out", objectives=["all"])
    vocabulary = load_vocabulary(tokenizer)
    assert vocabulary.size == 600
    assert np.flatnonzero(vocabulary.is_special).tolist() == list(range(110))
    assert vocabulary.mask_id == tokenizer.roles.mask_id is not None
    assert len(vocabulary.sentinel_ids) == 100
    assert vocabulary.fim_ids == tuple(
        tokenizer.special_tokens[f"<|fim_{part}|>"] for part in ("prefix", "middle", "suffix")
    )
    for flags in (vocabulary.is_special, vocabulary.joins_left, vocabulary.joins_right):
        assert (flags.shape, flags.dtype) == ((600,), bool)
    assert not (vocabulary.joins_left | vocabulary.joins_right)[:110].any()
    ids = tokenizer.encode_batch(["one more exceptionally (unusual) word"])[0]
    begins = ~(vocabulary.joins_left[ids[1:]] & vocabulary.joins_right[ids[:-1]])
    assert 1 + begins.sum() == 7  # with the two parentheses, of which the first may have a space
    assert len(ids) > 8


def test_a_token_with_a_role_is_special_whatever_its_file_says(tmp_path: Path) -> None:
    names = ["un", "likely", "[MASK]", "<extra_id_0>", "<extra_id_1>", "end"]
    tokenizer = HFTokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="un"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "end"}))
    vocabulary = load_vocabulary(load(tmp_path))
    assert vocabulary.is_special.tolist() == [False, False, True, True, True, True]
    assert (vocabulary.eod_id, vocabulary.mask_id, vocabulary.sentinel_ids) == (5, 2, (3, 4))
    assert (vocabulary.bos_id, vocabulary.pad_id, vocabulary.cls_id, vocabulary.fim_ids) == (None, None, None, None)
    assert not vocabulary.joins_left.any()  # its words are not marked


def test_a_piece_of_text_that_is_given_a_role_joins_no_word(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, kind="bpe", vocab_size=500, out=tmp_path / "out")
    [piece] = tokenizer.encode_batch(["a"])[0].tolist()
    assert load_vocabulary(tokenizer).joins_left[piece]
    (tmp_path / "out" / "tokenizer_config.json").write_text(json.dumps({"mask_token": "a"}))
    vocabulary = load_vocabulary(load(tmp_path / "out"))
    assert vocabulary.mask_id == piece
    assert vocabulary.is_special[piece]
    assert not vocabulary.joins_left[piece]
    assert not vocabulary.joins_right[piece]
