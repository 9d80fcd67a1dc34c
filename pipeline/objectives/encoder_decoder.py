"""Denoising with an encoder and a decoder: T5's span corruption, prefix-LM, or a mixture such as UL2's.

Dims: B samples, L tokens that one sample reads, S positions of the encoder, T of the decoder.
"""

import bisect

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError
from pipeline.objectives.denoisers import Denoising
from pipeline.objectives.draws import Draws
from pipeline.objectives.samples import IGNORED, Batch, Windows
from pipeline.objectives.span import Ids, Lengths, Sides
from pipeline.objectives.vocabulary import Vocabulary


class EncoderDecoder:
    """Draws a denoiser for each sample and lets it make inputs and targets, each with the end token behind it.

    Args:
        decoder_start_id: what the decoder begins with; None is the padding token, as in T5.

    Raises:
        DataError: the tokenizer lacks tokens.
    """

    def __init__(
        self, *, denoising: Denoising, vocabulary: Vocabulary, seed: int, decoder_start_id: int | None = None
    ) -> None:
        _check_sentinels(denoising, len(vocabulary.sentinel_ids))
        self._end_id = _required(vocabulary.eod_id, "end token")
        self._pad_id = _required(vocabulary.pad_id, "padding token")
        self._start_id = self._pad_id if decoder_start_id is None else decoder_start_id
        self._sentinels = np.array(vocabulary.sentinel_ids, np.int32)
        self._denoising = denoising
        self._draws = Draws(seed=seed, purpose="denoising")
        self.window_length = denoising.window_length

    def batch(self, raw: Windows, positions: npt.NDArray[np.int64]) -> Batch:
        """`input_ids` and `attention_mask`, shape (B, S), `decoder_input_ids` and `labels`, shape (B, T)."""
        tokens, width = raw.tokens.astype(np.int32, copy=False), raw.tokens.shape[1]
        assert width <= self.window_length, "longer windows do not fit"
        random = self._random(positions, width)
        denoisers = np.searchsorted(np.cumsum(self._denoising.shares)[:-1], random[:, 0], side="right")
        inputs = np.full((len(tokens), self._denoising.seq_len), self._pad_id, np.int32)
        labels = np.full((len(tokens), self._denoising.target_len), IGNORED, np.int32)
        attention_mask = np.zeros(inputs.shape, np.bool_)
        # Rows of one denoiser and length become equally long, so that a whole group is worked on at once.
        groups, group_of = np.unique(denoisers * (width + 1) + raw.lengths, return_inverse=True)
        for group, (which, length) in enumerate(zip(*np.divmod(groups, width + 1), strict=True)):
            rows = np.flatnonzero(group_of == group)
            sides = self._sides(int(which), tokens[rows, :length], random[rows, 1:])
            attention_mask[rows] = self._lay(inputs, rows, sides.inputs, sides.input_lengths)
            self._lay(labels, rows, sides.targets, sides.target_lengths)
        return {
            "input_ids": inputs,
            "attention_mask": attention_mask,
            "decoder_input_ids": self._shifted(labels),
            "labels": labels,
        }

    def _random(self, positions: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.float64]:
        """For each sample a number that chooses the denoiser, and those that it uses; shape (B, width + 1)."""
        random = np.empty((len(positions), width + 1))
        for row, position in zip(random, positions.tolist(), strict=True):
            self._draws.of(position).random(out=row)
        return random

    def _sides(self, which: int, tokens: Ids, random: npt.NDArray[np.float64]) -> Sides:
        """What one denoiser makes of texts of one length, after its mode token if it has one."""
        denoiser = self._denoising.denoisers[which]
        sides = denoiser.rule.apply(tokens, random, self._sentinels)
        if denoiser.mode_id is None:
            return sides
        mode = np.full((len(tokens), 1), denoiser.mode_id, np.int32)
        return sides._replace(inputs=np.hstack([mode, sides.inputs]), input_lengths=sides.input_lengths + 1)

    def _lay(self, ids: Ids, rows: Lengths, pieces: Ids, lengths: Lengths) -> npt.NDArray[np.bool_]:
        """Write pieces, each with its end, into rows of `ids`, and say which positions hold them."""
        filled = np.arange(ids.shape[1]) <= lengths[:, None]
        laid = ids[rows]
        np.copyto(laid[:, : pieces.shape[1]], pieces, where=filled[:, : pieces.shape[1]])
        laid[np.arange(len(rows)), lengths] = self._end_id
        ids[rows] = laid
        return filled

    def _shifted(self, labels: Ids) -> Ids:
        """What the decoder has written before it writes each label, shape (B, T)."""
        shifted = np.empty_like(labels)
        shifted[:, 0] = self._start_id
        shifted[:, 1:] = np.where(labels[:, :-1] == IGNORED, np.int32(self._pad_id), labels[:, :-1])
        return shifted


def _required(token_id: int | None, name: str) -> int:
    if token_id is None:
        raise DataError(
            f"objective.name=span is not possible because the tokenizer has no {name}. Use a tokenizer that has one."
        )
    return token_id


def _check_sentinels(denoising: Denoising, available: int) -> None:
    needed = denoising.num_sentinels
    if needed <= available:
        return
    rule = next(
        denoiser.rule
        for denoiser in denoising.denoisers
        if denoiser.rule.num_sentinels(denoising.window_length) == needed
    )
    raise DataError(
        f"model.seq_len={denoising.seq_len} is too long for {rule} because that cuts {needed} spans out of "
        f"{denoising.window_length} tokens, and the tokenizer has {available} sentinels. "
        f"Use a tokenizer with {needed} sentinels{_other_ways_out(denoising, available)}."
    )


def _other_ways_out(denoising: Denoising, available: int) -> str:
    if available == 0:
        return ""

    def needs(seq_len: int) -> int:
        shorter = Denoising(denoisers=denoising.denoisers, seq_len=seq_len, target_len=denoising.target_len)
        return shorter.num_sentinels

    # In the shortest there is room for a mode token, one token that is kept, a sentinel and the end.
    lengths = range(4, denoising.seq_len)
    longest = lengths[bisect.bisect(lengths, available, key=needs) - 1]
    other = ", or set a greater objective.mean_span_length" if len(denoising.denoisers) == 1 else ""
    return f", or set model.seq_len to at most {longest}{other}"
