"""The order of samples: a keyed permutation, evaluated where it is needed. No index is built and no file written."""

import hashlib
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

# Ten rounds pass the statistical tests of format-preserving encryption for small domains; six were the least usable.
NUM_ROUNDS = 10
CHUNK = 16_384  # ids at once, whose intermediate arrays stay in the processor's cache: twice as fast as a million
HALF_BITS = 32  # of a half of the network: halves of 32 bits permute up to 2^64 ids

Ids = npt.NDArray[np.int64]


def permuted(offsets: Ids, *, size: int, key: str) -> Ids:
    """Where the permutation of [0, size) that `key` names takes each of `offsets`.

    A function of its arguments alone: any place of the order is had at once, in O(1) memory, and 0 to `size` - 1 give
    each id once.

    Args:
        offsets: int64, shape (count,), each in [0, size).
        key: any text; another one names another permutation.

    Returns:
        int64, shape (count,), each in [0, size).

    Source: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002 (Feistel network with cycle walking).
    """
    num_bits = max((size - 1).bit_length(), 2)
    keys = _round_keys(key)
    result = np.empty(len(offsets), dtype=np.int64)
    for start in range(0, len(offsets), CHUNK):
        chunk = _encrypt(offsets[start : start + CHUNK], num_bits, keys)
        # The network permutes the next power of two; what lands outside walks on until inside: once on average.
        outside = np.flatnonzero(chunk >= size)
        while outside.size:
            chunk[outside] = _encrypt(chunk[outside], num_bits, keys)
            outside = outside[chunk[outside] >= size]
        result[start : start + CHUNK] = chunk
    return result


def _encrypt(values: Ids, num_bits: int, keys: npt.NDArray[np.uint32]) -> Ids:
    """A Feistel network over [0, 2**num_bits), whose halves differ by a bit where that number is odd."""
    left_bits = num_bits // 2
    right_bits = num_bits - left_bits
    mask, other_mask = np.uint32((1 << left_bits) - 1), np.uint32((1 << right_bits) - 1)
    # Halves of 32 bits: twice as many in a vector register as 64, and multiplied by one instruction.
    left, right = (values >> right_bits).astype(np.uint32), values.astype(np.uint32) & other_mask
    mixed, spare = np.empty_like(left), np.empty_like(left)
    for key in keys:
        _mix(right, key, mixed, spare)
        mixed &= mask
        mixed ^= left
        left, right, mixed = right, mixed, left
        mask, other_mask = other_mask, mask
    return (left.astype(np.int64) << right_bits) | right


def _mix(
    values: npt.NDArray[np.uint32], key: np.uint32, out: npt.NDArray[np.uint32], spare: npt.NDArray[np.uint32]
) -> None:
    """A 32-bit finalizer into `out`: each bit depends on all bits of `values`.

    Source: Wellons, "hash-prospector", 2018.
    """
    np.bitwise_xor(values, key, out=out)
    for shift, factor in ((16, 0x21F0AAAD), (15, 0xD35A2D97)):
        np.right_shift(out, shift, out=spare)
        out ^= spare
        out *= np.uint32(factor)
    np.right_shift(out, 15, out=spare)
    out ^= spare


@lru_cache
def _round_keys(key: str) -> npt.NDArray[np.uint32]:
    digest = hashlib.shake_128(f"order:{key}".encode()).digest(4 * NUM_ROUNDS)
    return np.frombuffer(digest, dtype="<u4").astype(np.uint32)


class SourceOrder:
    """In which order the samples of one source come, epoch after epoch: each epoch holds each of them once.

    Blocks of the order are kept for a while, because a micro-batch asks for a few ids, and a few cost as much as a
    thousand.

    Args:
        key: names the source and the seed; epochs make permutations of their own of it.
    """

    BLOCK = 4096
    KEPT_BLOCKS = 16

    def __init__(self, *, num_samples: int, key: str) -> None:
        assert num_samples > 0
        self.num_samples = num_samples
        self._key = key
        self._block = lru_cache(maxsize=self.KEPT_BLOCKS)(self._make_block)

    def epochs_and_ids(self, indices: Ids) -> tuple[Ids, Ids]:
        """The epoch, and the id of the sample, in [0, num_samples).

        Args:
            indices: how many samples of this source came before; int64, shape (count,), ascending.
        """
        epochs, offsets = np.divmod(indices, self.num_samples)
        ids = np.empty_like(indices)
        blocks = offsets // self.BLOCK
        # Ascending indices: places of one block lie together.
        changes = np.flatnonzero((blocks[1:] != blocks[:-1]) | (epochs[1:] != epochs[:-1])) + 1
        for start, stop in pairwise([0, *changes.tolist(), len(indices)] if len(indices) else []):
            block = int(blocks[start])
            ids[start:stop] = self._block(int(epochs[start]), block)[offsets[start:stop] - block * self.BLOCK]
        return epochs, ids

    def _make_block(self, epoch: int, block: int) -> Ids:
        offsets = np.arange(block * self.BLOCK, min((block + 1) * self.BLOCK, self.num_samples))
        return permuted(offsets, size=self.num_samples, key=f"{self._key}:{epoch}")
