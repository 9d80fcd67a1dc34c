"""The samples of a run: which one stands at each position of the order, read and turned into inputs and labels."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.data.blend import Blend
from pipeline.data.order import SourceOrder
from pipeline.errors import DataError
from pipeline.objectives.samples import Batch, Objective, Pairs, Windows

Ids = npt.NDArray[np.int64]
UNSIGNED = {2: np.uint16, 4: np.uint32, 8: np.uint64}


class SampleReader(Protocol):
    """Reads samples of one source, any of them at once.

    Attributes:
        num_samples: in each epoch.
    """

    num_samples: int

    def read(self, *, epochs: Ids, ids: Ids, positions: Ids) -> Windows | Pairs:
        """The samples `ids`, in [0, num_samples), of their epochs; `positions` key random draws. All of shape (B,)."""


class Place(NamedTuple):
    """Where a sample is from: the source, how often that was read before, and which of its samples it is."""

    source: str
    epoch: int
    id: int


class Samples:
    """The samples of a blend, by their position in the run. A function of the seed, the blend and the position.

    Args:
        readers: one for each source of the blend, in its order.
        vocab_size: ids must be below it.
    """

    def __init__(
        self,
        blend: Blend,
        readers: Sequence[SampleReader],
        objective: Objective[Any],
        *,
        seed: int,
        vocab_size: int,
    ) -> None:
        self.blend = blend
        self._readers = readers
        self._objective = objective
        self._vocab_size = vocab_size
        self._orders = [
            SourceOrder(num_samples=source.num_samples, key=f"{seed}:{source.key}") for source in blend.sources
        ]

    def place(self, position: int) -> Place:
        """Where the sample at `position` is from."""
        [source], indices = self.blend.locate(np.array([position]))
        [epoch], [sample_id] = self._orders[source].epochs_and_ids(indices)
        return Place(self.blend.sources[source].name, int(epoch), int(sample_id))

    def batch(self, positions: Ids) -> Batch:
        """Inputs and labels of the samples at `positions`, int64, shape (B,), ascending.

        Raises:
            DataError: a token is outside the vocabulary, or the blend ends before.
        """
        sources, indices = self.blend.locate(positions)
        present = np.unique(sources)
        if len(present) == 1:
            return self._of_source(int(present[0]), indices, positions)
        result: Batch = {}
        for source in present.tolist():
            rows = np.flatnonzero(sources == source)
            for name, values in self._of_source(source, indices[rows], positions[rows]).items():
                whole = result.setdefault(name, np.empty((len(positions), *values.shape[1:]), values.dtype))
                whole[rows] = values
        return result

    def _of_source(self, source: int, indices: Ids, positions: Ids) -> Batch:
        epochs, ids = self._orders[source].epochs_and_ids(indices)
        raw = self._readers[source].read(epochs=epochs, ids=ids, positions=positions)
        refuse_unknown_ids(raw, self._vocab_size, self.blend.sources[source].name)
        return self._objective.batch(raw, positions)


class SamplesInOrder:
    """The samples of one source as they lie: for evaluation."""

    def __init__(self, reader: SampleReader, objective: Objective[Any], *, vocab_size: int, name: str) -> None:
        self.num_samples = reader.num_samples
        self._reader = reader
        self._objective = objective
        self._vocab_size, self._name = vocab_size, name

    def batch(self, positions: Ids) -> Batch:
        """Inputs and labels of the samples at `positions`, int64, shape (B,), below `num_samples`.

        Raises:
            DataError: a token is outside the vocabulary.
        """
        raw = self._reader.read(epochs=np.zeros_like(positions), ids=positions, positions=positions)
        refuse_unknown_ids(raw, self._vocab_size, self._name)
        return self._objective.batch(raw, positions)


def refuse_unknown_ids(raw: Windows | Pairs, vocab_size: int, source: str) -> None:
    """Raise DataError if an id is outside the vocabulary: an embedding split over ranks would make zeros of it."""
    parts = [raw.tokens] if isinstance(raw, Windows) else [part for pair in raw for part in (pair.first, pair.second)]
    # As numbers without sign, negative ones are the highest.
    highest = max(int(part.view(UNSIGNED[part.itemsize]).max(initial=0)) for part in parts)
    if highest >= vocab_size:
        shown = highest if highest < 2**31 else f"{highest - 2**32}"
        raise DataError(
            f"{source} holds the id {shown}, and the vocabulary has {vocab_size} ids: its tokens were made with "
            "another tokenizer, or damaged. Run `pretrain data verify` on it, or raise model.vocab_size."
        )
