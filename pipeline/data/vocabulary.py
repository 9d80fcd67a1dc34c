"""What objectives must know of a tokenizer, read from it."""

import dataclasses

import numpy as np

from data_prep.tokenizer.tokenizers import Tokenizer
from pipeline.data.words import word_joins
from pipeline.objectives.vocabulary import Vocabulary


def load_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """The ids and words of `tokenizer`. A token with a role counts as special even where its files do not say so."""
    text, roles = tokenizer.token_text(), dataclasses.asdict(tokenizer.roles)
    is_special = np.zeros(tokenizer.vocab_size, dtype=bool)
    is_special[list(tokenizer.special_tokens.values())] = True
    for ids in roles.values():
        if ids is not None:
            is_special[np.asarray(ids, dtype=np.int64)] = True
    joins_left, joins_right = word_joins(text.content, text.continues)
    return Vocabulary(
        size=tokenizer.vocab_size,
        is_special=is_special,
        joins_left=joins_left & ~is_special,
        joins_right=joins_right & ~is_special,
        **roles,
    )
