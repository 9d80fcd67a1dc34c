"""Training a SentencePiece tokenizer on a bounded sample of text."""

import io
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from data_prep.atomic import creating_folder
from data_prep.errors import DataError
from data_prep.hf_tokenizer import write_hf_files
from data_prep.progress import progress
from data_prep.readers import read_documents, size_in_bytes
from data_prep.tokenizers import MODEL_FILE, SCORE_STEP, Tokenizer, load

SAMPLE_BYTES_PER_ID = (
    1_000  # measured at 4,096 ids: 8 times as much text saves 1 % of the tokens, and takes 8 times as long
)
NO_LENGTH_LIMIT = 10**30  # what transformers writes when it knows no limit
NUM_THREADS = 4  # fixed: the sums of the unigram trainer, so its result, depend on the number of threads
MAX_LINE_CHARACTERS = 4_000

# No normalization, no dummy prefix, no removed spaces: text comes back as it went in. Bytes stand in for characters
# that are no piece, so nothing is unknown; printable ASCII always are pieces (it saves no ids to leave them to bytes).
# Digits stay single, so that a number is spelled one way only.
TRAINER_OPTIONS: dict[str, Any] = {
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "byte_fallback": True,
    "split_digits": True,
    "required_chars": "".join(chr(code) for code in range(33, 127)),
    "max_sentence_length": 8 * MAX_LINE_CHARACTERS,
    "num_threads": NUM_THREADS,
    "unk_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "pad_id": 3,
    "unk_piece": "<|unk|>",
    "bos_piece": "<|bos|>",
    "eos_piece": "<|eos|>",
    "pad_piece": "<|pad|>",
    "minloglevel": 2,
}


def train_tokenizer(
    texts: Iterable[str],
    *,
    kind: Literal["unigram", "bpe"],
    vocab_size: int,
    out: Path,
    model_max_length: int = NO_LENGTH_LIMIT,
) -> Tokenizer:
    """Train on all of `texts`, write the folder `out` (whole or not at all), and load it. Equal texts make equal files.

    Args:
        vocab_size: exactly, the four special tokens and 256 bytes included.
        model_max_length: what transformers shall hold to be the longest sequence, in tokens.

    Raises:
        DataError: `out` is occupied, there is no text, or `vocab_size` does not suit the text.
    """
    from sentencepiece import SentencePieceProcessor

    with creating_folder(out) as temporary:
        content = _train(_lines(texts), kind, vocab_size)
        (temporary / MODEL_FILE).write_bytes(content)
        model = SentencePieceProcessor(model_proto=content)
        write_hf_files(temporary, model=model, kind=kind, model_max_length=model_max_length)
    return load(out)


def sample_texts(paths: Sequence[Path], *, vocab_size: int, text_key: str = "text", seed: int = 0) -> Iterator[str]:
    """As much text of the files as suits `vocab_size`: lines drawn evenly from all documents, or all of a small corpus.

    One pass, one document in memory at a time, and the same lines each time.

    Raises:
        DataError: a file cannot be read, or a record in it is wrong.
    """
    total = sum(map(size_in_bytes, paths))
    share = SAMPLE_BYTES_PER_ID * vocab_size / max(total, 1)
    draw = random.Random(seed)
    with progress("read sample", total=total) as shown:
        for path in paths:
            for document in read_documents(path, text_key=text_key, on_bytes=shown.update):
                if share >= 1:
                    yield document.text
                else:
                    yield from (line for line in document.text.split("\n") if draw.random() < share)


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """What SentencePiece's trainer takes: no line ends, tabs or NULs (it drops such lines), nothing too long."""
    for text in texts:
        for line in re.split(r"[\n\t\0]+", text):
            for start in range(0, len(line), MAX_LINE_CHARACTERS):
                yield line[start : start + MAX_LINE_CHARACTERS]


def _train(lines: Iterator[str], kind: str, vocab_size: int) -> bytes:
    from sentencepiece import SentencePieceTrainer

    if (first := next(lines, None)) is None:
        raise DataError("the tokenizer cannot be trained: the input holds no text.")
    written = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_and_then(first, lines),
            model_writer=written,
            model_type=kind,
            vocab_size=vocab_size,
            **TRAINER_OPTIONS,
        )
    except RuntimeError as error:
        raise DataError(_explained(str(error), vocab_size)) from error
    return _with_exact_scores(written.getvalue()) if kind == "unigram" else written.getvalue()


def _and_then(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _explained(message: str, vocab_size: int) -> str:
    """The limit that SentencePiece's message ends on, in the words of our command line."""
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        limit = f"it must hold 4 special tokens, 256 bytes and each character of the text. Give {found[1]} or more."
    elif found := re.search(r"too high .*<= (\d+)", message):
        limit = f"the text has too few different words for it. Give {found[1]} or less, or more text."
    else:
        limit = message
    return f"--vocab-size {vocab_size} cannot be trained on this text: {limit}"


def _with_exact_scores(content: bytes) -> bytes:
    """The model with each score rounded to a multiple of SCORE_STEP: see `tokenizers.SCORE_STEP`."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(content)
    for piece in model.pieces:
        piece.score = round(piece.score / SCORE_STEP) * SCORE_STEP
    exact: bytes = model.SerializeToString(deterministic=True)
    return exact
