"""What each trainer of tokenizers asks: some text, and a vocabulary size that suits it. Same words for each."""

from collections.abc import Iterator
from itertools import chain

from data_prep.errors import DataError


def not_empty(texts: Iterator[str]) -> Iterator[str]:
    """`texts`, of which one is taken at once.

    Raises:
        DataError: there is none.
    """
    if (first := next(texts, None)) is None:
        raise DataError("the tokenizer cannot be trained: the input holds no text.")
    return chain([first], texts)


def cannot_train(vocab_size: int, why: str) -> DataError:
    """The error for a vocabulary size that does not suit the text."""
    return DataError(f"--vocab-size {vocab_size} cannot be trained on this text: {why}")


def too_small(vocab_size: int, *, must_hold: str, smallest: int) -> DataError:
    """The error for a vocabulary below `smallest`, that of the pieces which must be there."""
    return cannot_train(vocab_size, f"it must hold {must_hold}. Give {smallest} or more.")


def too_large(vocab_size: int, *, largest: int) -> DataError:
    """The error for a text that gives no more than `largest` pieces."""
    why = f"the text has too few different words for it. Give {largest} or less, or more text."
    return cannot_train(vocab_size, why)
