"""What an objective must know of a tokenizer: its special ids, and which tokens go on with a word."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The ids of one tokenizer, as arrays. An id is None, or a tuple empty, where the tokenizer has no such token.

    Attributes:
        size: ids are 0 to size - 1.
        eod_id: ends documents in a data set.
        sentinel_ids: T5's <extra_id_0>, <extra_id_1>, ... in this order.
        fim_ids: of the beginning, the middle and the end of a text whose middle is to be filled in.
        is_special: bool, shape (size,): control tokens, which carry no text.
        joins_left, joins_right: bool, shape (size,). A token goes on with the word of the token before it if it joins
            left and that one joins right; otherwise it begins a word. See `pipeline.data.words`.
    """

    size: int
    bos_id: int | None
    eod_id: int | None
    pad_id: int | None
    mask_id: int | None
    cls_id: int | None
    sep_id: int | None
    sentinel_ids: tuple[int, ...]
    fim_ids: tuple[int, int, int] | None
    is_special: npt.NDArray[np.bool_]
    joins_left: npt.NDArray[np.bool_]
    joins_right: npt.NDArray[np.bool_]
