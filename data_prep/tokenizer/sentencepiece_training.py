"""Training a SentencePiece model: unigram or bpe, without loss and the same each time."""

import io
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from data_prep.errors import DataError
from data_prep.tokenizer.special_roles import Role, SpecialTokens
from data_prep.tokenizer.tokenizers import SCORE_STEP
from data_prep.tokenizer.training_limits import cannot_train, not_empty, too_large, too_small

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
    "minloglevel": 2,
}
# SentencePiece knows these roles; the rest are control symbols, which it numbers from the first free id.
OWN_ROLES: tuple[Role, ...] = ("unk", "bos", "eos", "pad")


def train_sentencepiece(
    texts: Iterable[str], *, kind: Literal["unigram", "bpe"], vocab_size: int, special: SpecialTokens
) -> bytes:
    """A model trained on all of `texts`, as the content of its file. No text gives a special token.

    Raises:
        DataError: there is no text, or `vocab_size` does not suit it; and what `texts` raises.
    """
    from sentencepiece import SentencePieceTrainer

    lines = _Lines(texts)
    own = {role: special.roles[role] for role in OWN_ROLES}
    written = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=not_empty(iter(lines)),
            model_writer=written,
            model_type=kind,
            vocab_size=vocab_size,
            control_symbols=[name for name in special.names if name not in own.values()],
            **{f"{role}_id": special.names.index(name) for role, name in own.items()},
            **{f"{role}_piece": name for role, name in own.items()},
            **TRAINER_OPTIONS,
        )
    except RuntimeError as error:
        if lines.error is not None:
            raise lines.error from None
        raise _explained(str(error), vocab_size, len(special.names)) from error
    return _with_exact_scores(written.getvalue()) if kind == "unigram" else written.getvalue()


class _Lines:
    """What SentencePiece's trainer takes: no line ends, tabs or NULs (it drops such lines), nothing too long.

    Attributes:
        error: what ended the texts early; SentencePiece would show it as one of its own.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.error: DataError | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            for text in self._texts:
                for line in re.split(r"[\n\t\0]+", text):
                    for start in range(0, len(line), MAX_LINE_CHARACTERS):
                        yield line[start : start + MAX_LINE_CHARACTERS]
        except DataError as error:
            self.error = error
            raise


def _explained(message: str, vocab_size: int, num_special: int) -> DataError:
    """SentencePiece's message, which ends on the limit, in the words of our command line."""
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        must_hold = f"{num_special} special tokens, 256 bytes and each character of the text"
        return too_small(vocab_size, must_hold=must_hold, smallest=int(found[1]))
    if found := re.search(r"too high .*<= (\d+)", message):
        return too_large(vocab_size, largest=int(found[1]))
    return cannot_train(vocab_size, message)


def _with_exact_scores(content: bytes) -> bytes:
    """The model with each score rounded to a multiple of SCORE_STEP: see `tokenizers.SCORE_STEP`."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(content)
    for piece in model.pieces:
        piece.score = round(piece.score / SCORE_STEP) * SCORE_STEP
    exact: bytes = model.SerializeToString(deterministic=True)
    return exact
