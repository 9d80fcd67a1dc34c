"""Random draws of one sample: a function of the seed, the purpose and the sample's position in the run alone.

A run that goes on after a stop masks alike, whatever its ranks, micro-batches and workers are.
"""

import hashlib
from functools import lru_cache

import numpy as np

WORD = 2**64


class Draws:
    """Generators for the samples of a run, each as far from every other as Philox makes them.

    Use their `random` alone, which turns raw bits into doubles and has not changed since it exists; NumPy keeps the
    right to change how `integers`, `choice` and `permutation` use the bits.

    Args:
        purpose: what is drawn, so that two uses of one sample do not share numbers.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011 (Philox, a counter-based generator).
    """

    def __init__(self, *, seed: int, purpose: str) -> None:
        self._key = _key(seed, purpose)
        self._bits = np.random.Philox(key=self._key)
        self._generator = np.random.Generator(self._bits)

    def of(self, position: int) -> np.random.Generator:
        """The generator of the sample at `position` of the run's order. It is valid until the next call."""
        self._bits.state = {
            "bit_generator": "Philox",
            # The last word counts the sample, the first ones its numbers: 2^192 of them before two samples meet.
            "state": {"counter": np.array([0, 0, 0, position % WORD], np.uint64), "key": self._key},
            "buffer": np.zeros(4, np.uint64),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        return self._generator


@lru_cache
def _key(seed: int, purpose: str) -> np.ndarray:
    digest = hashlib.shake_128(f"draws:{purpose}:{seed}".encode()).digest(16)
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)
