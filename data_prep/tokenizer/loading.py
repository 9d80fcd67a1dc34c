"""The tokenizer of a folder or file, whichever kind it is."""

import re
from pathlib import Path

from data_prep.errors import DataError
from data_prep.tokenizer.json_tokenizer import JsonTokenizer
from data_prep.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from data_prep.tokenizer.tokenizers import JSON_FILE, MODEL_FILE, MODEL_FILES, Tokenizer

TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")


def load(path: Path) -> Tokenizer:
    """The tokenizer in the folder `path`, or in the file `path` itself. No code in the folder is run.

    Looked for in this order: tokenizer.model or spiece.model (SentencePiece), tokenizer.json (Hugging Face: BPE,
    Unigram, WordPiece), a single other *.model (SentencePiece). Models such as XLM-RoBERTa's, whose
    sentencepiece.bpe.model numbers its pieces differently, are therefore read from their tokenizer.json.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    try:
        return _load(path)
    except OSError as error:
        raise DataError(
            f"the tokenizer {path} cannot be read: {error.strerror or error}. Check --tokenizer."
        ) from error


def _load(path: Path) -> Tokenizer:
    file = path if path.is_file() else _model_file(path)
    if file.suffix == ".json":
        return JsonTokenizer(file)
    if _is_tiktoken(file):
        if (beside := file.with_name(JSON_FILE)).is_file() and not path.is_file():
            return JsonTokenizer(beside)
        raise DataError(
            f"{file} holds tiktoken's ranks, which lack the rule that splits text into words. "
            f"Give the folder of the model's {JSON_FILE} instead."
        )
    return SentencePieceTokenizer(file)


def _model_file(folder: Path) -> Path:
    for name in (*MODEL_FILES, JSON_FILE):
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("*.model"))
    if len(others) == 1:
        return others[0]
    if others:
        names = ", ".join(other.name for other in others)
        raise DataError(f"{folder} holds several tokenizers ({names}). Name the file instead of the folder.")
    raise DataError(
        f"{folder} holds no tokenizer: {MODEL_FILE} is missing, and so is {JSON_FILE}. "
        "Make one with `pretrain tokenizer train`, or give the folder of a Hugging Face tokenizer."
    )


def _is_tiktoken(file: Path) -> bool:
    with file.open("rb") as opened:
        return TIKTOKEN_LINE.match(opened.readline(1_000)) is not None
