"""Whether the ids of a data set are text of its tokenizer: a seeded sample of documents, decoded and encoded again."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.data_sets.data_set import DataSet, without_end
from data_prep.errors import DataError
from data_prep.progress import progress
from data_prep.tokenizer.loading import load
from data_prep.tokenizer.tokenizers import Tokenizer

DOCUMENTS_PER_SHARD = 8
DOCUMENTS = 64  # of all shards together, at least
MAX_DOCUMENT_TOKENS = 2**17  # longer ones are left out: a part of one need not encode to its own ids
FEW = 20  # documents, none of which came back, say nothing about a tokenizer below that
REPLACEMENT = "\ufffd"


@dataclass(frozen=True, kw_only=True)
class TextSample:
    """What decoding showed.

    A document need not come back although nothing is wrong: a tokenizer may give a text's ids in a form that its own
    decoder does not undo. One whose text is empty or has replacement characters, and that does not come back, was not
    made from a text.

    Attributes:
        tokenizer: its path; None if it is not there, and nothing was decoded.
        num_documents: that were decoded.
        num_identical: whose text encodes to the same ids, sentence by sentence where they were cut.
        num_too_long: that were picked, but not decoded.
        num_eod_inside: that hold the end-of-document id before their end.
    """

    tokenizer: str | None
    num_documents: int
    num_identical: int
    num_too_long: int
    num_eod_inside: int


def verify_text(folder: Path, *, seed: int = 0) -> TextSample:
    """Decodes some documents of each shard; call it on a data set that `verify` found whole.

    Raises:
        DataError: the ids of a document cannot have come from a text, or none of many documents came back.
    """
    data_set = DataSet(folder)
    path = data_set.manifest.tokenizer_path(folder)
    if not path.exists():
        return TextSample(tokenizer=None, num_documents=0, num_identical=0, num_too_long=0, num_eod_inside=0)
    tokenizer = load(path)
    if tokenizer.sha256 != data_set.manifest.tokenizer.sha256:
        raise DataError(
            f"{path} is not the tokenizer that made {folder}: its sha256 is another. Put the right one there."
        )
    count = _Count(data_set, tokenizer)
    shards = data_set.manifest.shards
    per_shard = max(DOCUMENTS_PER_SHARD, -(-DOCUMENTS // max(len(shards), 1)))
    with progress("decode", total=len(shards), unit=" shards") as shown:
        first = 0
        for number, shard in enumerate(shards):
            picks = np.random.default_rng([seed, number]).choice(
                shard.num_documents, min(per_shard, shard.num_documents), replace=False
            )
            count.add(sorted(first + int(pick) for pick in picks))
            first += shard.num_documents
            shown.update(1)
    return count.result(os.path.normpath(path))


class _Count:
    def __init__(self, data_set: DataSet, tokenizer: Tokenizer) -> None:
        self._data_set, self._tokenizer = data_set, tokenizer
        self._documents = self._identical = self._too_long = self._eod_inside = 0
        self._senseless: list[int] = []

    def add(self, numbers: list[int]) -> None:
        if not numbers:
            return
        eod_id = self._data_set.manifest.eod_id
        for number in numbers:
            sequences = self._data_set.sequences(number)
            if sum(map(len, sequences)) > MAX_DOCUMENT_TOKENS:
                self._too_long += 1
                continue
            self._documents += 1
            sequences = [*sequences[:-1], *(without_end(one, eod_id) for one in sequences[-1:])]
            self._eod_inside += any(bool((ids == eod_id).any()) for ids in sequences)
            texts = [self._tokenizer.decode(ids) for ids in sequences]
            comes_back = all(map(np.array_equal, self._tokenizer.encode_batch(texts), sequences))
            self._identical += comes_back
            whole = "".join(texts)
            if not comes_back and (not whole or REPLACEMENT in whole):
                self._senseless.append(number)

    def result(self, path: str) -> TextSample:
        folder = self._data_set.folder
        if self._senseless:
            shown = ", ".join(map(str, self._senseless[:5]))
            raise DataError(
                f"{folder}: {len(self._senseless)} of {self._documents} sampled documents are no text of {path}: they "
                f"decode to nothing or to broken characters, and encode to other ids (documents {shown}; see `pretrain "
                f"data cat {folder} --doc {self._senseless[0]}`). Tokenize again."
            )
        if self._documents >= FEW and not self._identical:
            raise DataError(
                f"{folder}: none of {self._documents} sampled documents encodes to its own ids with {path}: another "
                "tokenizer made them, or its library changed. Tokenize again."
            )
        return TextSample(
            tokenizer=path,
            num_documents=self._documents,
            num_identical=self._identical,
            num_too_long=self._too_long,
            num_eod_inside=self._eod_inside,
        )
