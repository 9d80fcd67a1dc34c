"""A tokenizer.json of others: what it says beside ids is switched off, special tokens are found, damage is named."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as HFTokenizer

from data_prep.errors import DataError
from data_prep.tokenizer.loading import load
from data_prep.tokenizer.tokenizers import Tokenizer

WORDS = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "</s>", "<s>", "a", "b", "c", "##a", "##b", "x", "y", "z"]


def make(folder: Path, *, special: tuple[str, ...] = ("[PAD]", "[CLS]", "[SEP]"), **files: Any) -> Path:
    """A WordPiece tokenizer with everything that must not show in the ids, and JSON files beside it."""
    tokenizer = HFTokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    template = {"single": "[CLS] $A [SEP]", "special_tokens": [("[CLS]", 2), ("[SEP]", 3)]}
    tokenizer.post_processor = processors.TemplateProcessing(**template)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    tokenizer.add_tokens([AddedToken("qq", normalized=False)])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def changed(folder: Path, change: dict[str, Any]) -> Path:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"] |= change
    path.write_text(json.dumps(content))
    return path


def ids(tokenizer: Tokenizer, *texts: str) -> list[list[int]]:
    return [found.tolist() for found in tokenizer.encode_batch(texts)]


def test_nothing_is_added_cut_off_or_padded(tmp_path: Path) -> None:
    tokenizer = load(make(tmp_path))
    assert (tokenizer.kind, tokenizer.model_type, tokenizer.path.name) == ("hf", "wordpiece", "tokenizer.json")
    assert ids(tokenizer, "A b c x y z", "", "ab") == [[6, 7, 8, 11, 12, 13], [], [6, 10]]
    assert tokenizer.decode([2, 6, 7, 3]) == "a b"
    assert load(tmp_path / "tokenizer.json").sha256 == tokenizer.sha256


def test_names_of_special_tokens_are_text_unless_asked_for(tmp_path: Path) -> None:
    tokenizer = load(make(tmp_path))
    assert tokenizer.special_tokens == {"[PAD]": 1, "[CLS]": 2, "[SEP]": 3}
    assert tokenizer.matched_tokens == ["qq"]
    assert tokenizer.vocab_size == len(WORDS) + 1
    assert ids(tokenizer, "a[SEP]b") == [[6, 0, 0, 0, 7]]
    assert tokenizer.encode_batch_with_special(["a[SEP]b"])[0].tolist() == [6, 3, 7]
    assert ids(tokenizer, "aqqb", "a[SEP]b") == [[6, len(WORDS), 7], [6, 0, 0, 0, 7]]


def test_roles_are_read_from_every_layout(tmp_path: Path) -> None:
    none = load(make(tmp_path / "none"))
    assert (none.bos_id, none.eod_id, none.pad_id) == (5, 4, 1)  # by their well-known names

    config = {"eos_token": {"content": "[SEP]"}, "bos_token": "[CLS]", "pad_token": None}
    named = load(make(tmp_path / "config", tokenizer_config=config, special_tokens_map={"eos_token": "</s>"}))
    assert (named.bos_id, named.eod_id, named.pad_id) == (2, 3, 1)

    listed = {"extra_special_tokens": {"x_token": "x"}, "additional_special_tokens": [{"content": "y"}, "not there"]}
    extra = load(make(tmp_path / "extra", tokenizer_config=listed, special_tokens_map={"eos_token": "</s>"}))
    assert extra.eod_id == 4
    assert extra.special_tokens == {"[PAD]": 1, "[CLS]": 2, "[SEP]": 3, "x": 11, "y": 12, "</s>": 4}
    assert extra.encode_batch_with_special(["a</s>b"])[0].tolist() == [6, 4, 7]
    assert ids(extra, "a</s>b x") == [[6, 0, 0, 0, 0, 7, 11]]


def test_an_end_of_sequence_token_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"eos_token='<end>' is not in tokenizer\.json"):
        load(make(tmp_path, tokenizer_config={"eos_token": "<end>", "bos_token": "<start>"}))
    assert load(make(tmp_path, tokenizer_config={"pad_token": "<fill>"})).pad_id is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": {}}', '{"model": {"vocab": {"a": "b"}}}'])
def test_damaged_files_are_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"tokenizer\.json is not a tokenizer\.json of Hugging Face"):
        load(tmp_path)
    make(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("nonsense")
    with pytest.raises(DataError, match=r"tokenizer_config\.json cannot be read"):
        load(tmp_path)


def test_what_the_library_refuses_is_named_when_it_is_used(tmp_path: Path) -> None:
    path = changed(make(tmp_path), {"type": "Unheard"})
    with pytest.raises(DataError, match=r"tokenizer\.json cannot be loaded"):
        load(path).encode_batch(["a"])


def test_random_ids_are_refused(tmp_path: Path) -> None:
    path = changed(make(tmp_path), {"dropout": 0.1})
    with pytest.raises(DataError, match=r"model\.dropout=0.1 makes its ids random"):
        load(path)


def test_an_id_that_the_library_would_change_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path) / "tokenizer.json"
    path.write_text(path.read_text().replace(f'"id": {len(WORDS)}', f'"id": {len(WORDS) + 5}'))
    with pytest.raises(DataError, match="gives 'qq' the id 19, but Hugging Face's tokenizers would use 14"):
        load(path).encode_batch(["a"])


def test_half_a_surrogate_pair_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not Unicode"):
        load(make(tmp_path)).encode_batch(["a", "\udc00"])


def test_texts_are_grouped_without_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load(make(tmp_path))
    texts = ["a b", "", "ab " * 20, "x", "c" * 50, "y z x y z"]
    whole = ids(tokenizer, *texts)
    monkeypatch.setattr("data_prep.tokenizer.json_tokenizer.CHARACTERS_PER_CALL", 10)
    assert ids(tokenizer, *texts) == whole
    assert ids(tokenizer) == []
