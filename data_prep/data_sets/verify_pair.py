"""The oracle of a .bin/.idx pair that has no manifest, as Megatron-LM, NeMo and GPT-NeoX write them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.data_sets.pair import document_ends, index_problems, open_pair, scan_tokens, vocabulary_problems
from data_prep.data_sets.repair import find_shift
from data_prep.errors import DataError
from data_prep.format import ShardIndex, idx_path, read_header
from data_prep.progress import progress


@dataclass(frozen=True, kw_only=True)
class PairReport:
    """What was found in a .bin/.idx pair without a manifest.

    Attributes:
        num_documents: of any length; Megatron also keeps those without a sequence.
        lowest_id, highest_id: in the .bin; None if it is empty.
        ends_with: the id that all documents end with; None if they end with different ones.
    """

    dtype: str
    num_documents: int
    num_sequences: int
    num_tokens: int
    lowest_id: int | None
    highest_id: int | None
    ends_with: int | None


def verify_pair(prefix: Path, *, eod_id: int | None = None, vocab_size: int | None = None) -> PairReport:
    """What the pair `prefix`.bin/.idx holds, after everything in it was compared.

    Args:
        eod_id: what each document must end with, if given.
        vocab_size: what each id must be below, if given.

    Raises:
        DataError: a file is missing, or the pair is damaged; names every problem found.
    """
    tokens, index = open_pair(prefix)
    shift = find_shift(tokens, index, eod_id=eod_id)
    if shift is not None:
        raise DataError(f"{prefix}: {shift.describe(prefix)}")
    header = read_header(idx_path(prefix.parent, prefix.name))
    if header.bin_bytes != tokens.nbytes:
        raise DataError(
            f"{prefix}.bin has {tokens.nbytes} bytes, but its .idx describes {header.bin_bytes}: one was cut, or they "
            "do not belong together. Restore or make the pair again. If Megatron's tool made it with --append-eod, "
            "give --eod-id: the ends of its documents may not have been counted."
        )
    problems = list(index_problems(prefix.name, tokens, index, eod_id))
    with progress("verify", total=tokens.nbytes) as shown:
        scan = scan_tokens(tokens, shown.update)
    problems += vocabulary_problems(prefix.name, scan, vocab_size)
    if problems:
        raise DataError(f"{prefix} is damaged:\n  " + "\n  ".join(problems) + "\nRestore or make the pair again.")
    return PairReport(
        dtype=index.dtype.name,
        num_documents=header.num_boundaries - 1,
        num_sequences=header.num_sequences,
        num_tokens=len(tokens),
        lowest_id=scan.lowest if len(tokens) else None,
        highest_id=scan.highest if len(tokens) else None,
        ends_with=_common_end(tokens, index),
    )


def _common_end(tokens: npt.NDArray[Any], index: ShardIndex) -> int | None:
    found: set[int] = set()
    for ends in document_ends(index):
        if (ends.lengths == 0).any():
            return None
        found.update(np.unique(tokens[ends.stops - 1])[:2].tolist())
        if len(found) > 1:
            return None
    return found.pop() if found else None
