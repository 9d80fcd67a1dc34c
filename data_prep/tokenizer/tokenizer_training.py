"""Training a tokenizer of any kind on a bounded sample of text."""

import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from data_prep.atomic import creating_folder
from data_prep.errors import DataError
from data_prep.progress import progress
from data_prep.text.inputs import size_in_bytes
from data_prep.text.readers import read_documents
from data_prep.tokenizer.hf_tokenizer import from_sentencepiece, write_hf_files
from data_prep.tokenizer.hf_training import train_byte_bpe, train_wordpiece
from data_prep.tokenizer.loading import load
from data_prep.tokenizer.sentencepiece_training import train_sentencepiece
from data_prep.tokenizer.special_roles import Kind, Objective, default_objective, special_tokens
from data_prep.tokenizer.tokenizers import MODEL_FILE, Tokenizer

SAMPLE_BYTES_PER_ID = (
    1_000  # measured at 4,096 ids: 8 times as much text saves 1 % of the tokens, and takes 8 times as long
)
NO_LENGTH_LIMIT = 10**30  # what transformers writes when it knows no limit


def train_tokenizer(
    texts: Iterable[str],
    *,
    kind: Kind,
    vocab_size: int,
    out: Path,
    objectives: Collection[Objective] = (),
    lowercase: bool = False,
    model_max_length: int = NO_LENGTH_LIMIT,
) -> Tokenizer:
    """Train on all of `texts`, write the folder `out` (whole or not at all), and load it. Equal texts make equal files.

    Args:
        vocab_size: exactly, with the special tokens and, but for wordpiece, 256 bytes included.
        objectives: what models will be trained to do, which decides the special tokens; none given: causal, or masked
            for wordpiece.
        lowercase: wordpiece only.
        model_max_length: what transformers shall hold to be the longest sequence, in tokens.

    Raises:
        DataError: `out` is occupied, there is no text, or `vocab_size` does not suit the text.
    """
    if lowercase and kind != "wordpiece":
        raise DataError(
            f"--lowercase cannot be used with --type {kind}, which gives text back as it was. Leave it out."
        )
    special = special_tokens(kind, objectives or [default_objective(kind)])
    with creating_folder(out) as temporary:
        tokenizer: Any
        if kind == "byte_bpe":
            tokenizer = train_byte_bpe(texts, vocab_size=vocab_size, special=special)
        elif kind == "wordpiece":
            tokenizer = train_wordpiece(texts, vocab_size=vocab_size, special=special, lowercase=lowercase)
        else:
            content = train_sentencepiece(texts, kind=kind, vocab_size=vocab_size, special=special)
            (temporary / MODEL_FILE).write_bytes(content)
            tokenizer = from_sentencepiece(content, kind=kind)
        write_hf_files(
            temporary,
            tokenizer=tokenizer,
            special=special,
            model_max_length=model_max_length,
            segment_ids=kind == "wordpiece" and special.wraps_text,
        )
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
                    yield from _drawn_lines(document.text, share, draw)


def _drawn_lines(text: str, share: float, draw: random.Random) -> Iterator[str]:
    """Each line with a probability of `share`, and the end of the line or paragraph: byte_bpe has tokens for those."""
    lines = text.split("\n")
    for line, following in zip_longest(lines, lines[1:]):
        if draw.random() < share and line:
            end = "" if following is None else "\n" if following else "\n\n"
            yield line + end
