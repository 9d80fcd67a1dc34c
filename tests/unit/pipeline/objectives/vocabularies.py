"""Vocabularies for the tests of objectives."""

from typing import Any

import numpy as np

from pipeline.objectives.vocabulary import Vocabulary

PAD, END = 0, 1


def vocabulary(size: int = 1000, num_sentinels: int = 100, **fields: Any) -> Vocabulary:
    """One like T5's: sentinels at the end in falling order, and no other special tokens than the first two."""
    given: dict[str, Any] = dict.fromkeys(("bos_id", "mask_id", "cls_id", "sep_id", "fim_ids"))
    sentinels = tuple(range(size - 1, size - 1 - num_sentinels, -1))
    is_special = np.zeros(size, np.bool_)
    is_special[[PAD, END, *sentinels]] = True
    no_words = np.zeros(size, np.bool_)
    given |= {"size": size, "pad_id": PAD, "eod_id": END, "sentinel_ids": sentinels, "is_special": is_special}
    return Vocabulary(**(given | {"joins_left": no_words, "joins_right": no_words} | fields))
