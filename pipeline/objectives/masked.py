"""Masked language modelling: some tokens of a text are hidden, and guessed from both sides.

Dims: B samples, L tokens that one of them reads, S positions of the model.

Source: Devlin et al., "BERT", 2019; without pairs, Liu et al., "RoBERTa", 2019 (its full sentences).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.objectives.draws import Draws
from pipeline.objectives.masking import Masking, Replacement, choose_targets
from pipeline.objectives.samples import IGNORED, Batch, Pairs, Windows
from pipeline.objectives.vocabulary import Vocabulary

Ids = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


def window_length(seq_len: int) -> int:
    """Tokens that one sample of `seq_len` positions reads without pairs: [CLS] tokens [SEP]."""
    return seq_len - 2


def pair_length(seq_len: int) -> int:
    """Tokens that both segments of a sample have together: [CLS] first [SEP] second [SEP]."""
    return seq_len - 3


class Masked:
    """The objective of encoders. A sample is masked anew each time that it is read."""

    def __init__(self, *, vocabulary: Vocabulary, masking: Masking, seq_len: int, seed: int) -> None:
        assert vocabulary.cls_id is not None
        assert vocabulary.sep_id is not None
        self._cls_id, self._sep_id = vocabulary.cls_id, vocabulary.sep_id
        # Without a token for it, any will do: attention leaves it out.
        self._pad_id = 0 if vocabulary.pad_id is None else vocabulary.pad_id
        self._vocabulary, self._masking, self._seq_len = vocabulary, masking, seq_len
        self._replacement = Replacement(masking, vocabulary)
        self._draws = Draws(seed=seed, purpose="masking")

    def batch(self, raw: Windows | Pairs, positions: npt.NDArray[np.int64]) -> Batch:
        """`input_ids`, `token_type_ids`, `labels` (int32) and `attention_mask` (bool), shape (B, S).

        Pairs also have `next_sentence_label`, int32, shape (B,). A sample without any token to mask has no label but
        `IGNORED`.

        Args:
            raw: windows of `window_length` tokens at most, or pairs of at most `pair_length`.
        """
        laid_out = self._windows(raw) if isinstance(raw, Windows) else self._pairs(raw)
        inputs = laid_out.ids.copy()
        labels = np.full_like(inputs, IGNORED)
        for row, position in enumerate(positions.tolist()):
            generator = self._draws.of(position)
            targets = choose_targets(
                self._masking,
                is_maskable=laid_out.is_maskable[row],
                begins_word=None if laid_out.begins_word is None else laid_out.begins_word[row],
                generator=generator,
            )
            hidden = laid_out.ids[row, targets]
            labels[row, targets] = hidden
            inputs[row, targets] = self._replacement.of(hidden, generator)
        batch: Batch = {
            "input_ids": inputs,
            "token_type_ids": laid_out.types,
            "attention_mask": laid_out.is_filled,
            "labels": labels,
        }
        if not isinstance(raw, Windows):
            batch["next_sentence_label"] = np.array([pair.label for pair in raw], np.int32)
        return batch

    def _windows(self, raw: Windows) -> "_LaidOut":
        """[CLS] tokens [SEP]."""
        ids, types = self._empty(len(raw.tokens))
        width = raw.tokens.shape[1]
        ids[:, 1 : width + 1] = raw.tokens
        ends = raw.lengths[:, None] + 1
        is_filled = np.arange(self._seq_len) <= ends
        ids[~is_filled] = self._pad_id
        np.put_along_axis(ids, ends, self._sep_id, axis=1)
        starts = None
        if raw.starts_document is not None:
            starts = np.zeros_like(is_filled)
            starts[:, 1 : width + 1] = raw.starts_document
        return self._laid_out(ids, types, is_filled, starts)

    def _pairs(self, raw: Pairs) -> "_LaidOut":
        """[CLS] first [SEP] second [SEP], of types 0 0 0 1 1."""
        ids, types = self._empty(len(raw))
        lengths = np.zeros((len(raw), 1), np.int64)
        for row, pair in enumerate(raw):
            middle = 1 + len(pair.first)
            end = middle + 1 + len(pair.second)
            ids[row, 1:middle] = pair.first
            ids[row, middle] = ids[row, end] = self._sep_id
            ids[row, middle + 1 : end] = pair.second
            types[row, middle + 1 : end + 1] = 1
            lengths[row] = end + 1
        return self._laid_out(ids, types, np.arange(self._seq_len) < lengths, None)

    def _empty(self, num_rows: int) -> tuple[Ids, Ids]:
        """Ids and types of samples in which there is only [CLS]."""
        ids = np.full((num_rows, self._seq_len), self._pad_id, np.int32)
        ids[:, 0] = self._cls_id
        return ids, np.zeros_like(ids)

    def _laid_out(self, ids: Ids, types: Ids, is_filled: Flags, starts_document: Flags | None) -> "_LaidOut":
        is_maskable = is_filled & ~self._vocabulary.is_special[ids]
        if self._masking.masking == "token":
            return _LaidOut(ids, types, is_filled, is_maskable, None)
        goes_on = self._vocabulary.joins_left[ids[:, 1:]] & self._vocabulary.joins_right[ids[:, :-1]]
        begins_word = np.ones_like(is_maskable)
        begins_word[:, 1:] = ~(goes_on & is_maskable[:, :-1])
        if starts_document is not None:
            begins_word |= starts_document
        return _LaidOut(ids, types, is_filled, is_maskable, begins_word)


class _LaidOut(NamedTuple):
    """Samples before they are masked, each of shape (B, S).

    Attributes:
        is_filled: with text or special tokens, not with padding.
        begins_word: None where single tokens are masked.
    """

    ids: Ids
    types: Ids
    is_filled: Flags
    is_maskable: Flags
    begins_word: Flags | None
