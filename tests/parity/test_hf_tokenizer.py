"""The tokenizer folder in `transformers`: the same ids, the same text, the special tokens by their roles."""

from pathlib import Path
from pydoc_data.topics import topics
from typing import Literal

import pytest

from data_prep.tokenizer_training import train_tokenizer

TEXTS = [text for _, text in sorted(topics.items())][:40]
HARD = ["", "  a  b\n\n\tc ", "é 日本語 👩‍👩‍👧‍👦 \0 1234", "<0x0A></s><s>", "=" * 500]


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_auto_tokenizer(tmp_path: Path, kind: Literal["unigram", "bpe"]) -> None:
    from transformers import AutoTokenizer

    ours = train_tokenizer(TEXTS, kind=kind, vocab_size=700, out=tmp_path / "tokenizer", model_max_length=512)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    texts = [*TEXTS, *HARD]
    ids = [found.tolist() for found in ours.encode_batch(texts)]
    assert theirs(texts)["input_ids"] == ids
    assert theirs.batch_decode(ids) == texts
    assert theirs.batch_decode(ids, skip_special_tokens=True) == texts
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (ours.bos_id, ours.eod_id, ours.pad_id)
    assert len(theirs) == ours.vocab_size
    assert theirs.model_max_length == 512

    assert theirs("<|eos|>")["input_ids"] == [ours.eod_id]
    split = AutoTokenizer.from_pretrained(tmp_path / "tokenizer", split_special_tokens=True)
    assert split("a<|eos|>")["input_ids"] == ours.encode_batch(["a<|eos|>"])[0].tolist()
