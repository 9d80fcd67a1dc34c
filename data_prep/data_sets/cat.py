"""Documents of a data set, looked at: their text, or their ids, and where they are."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.data_sets.data_set import DataSet, without_end
from data_prep.errors import DataError
from data_prep.tokenizer.loading import load
from data_prep.tokenizer.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True)
class DocumentView:
    """A document.

    Attributes:
        document: its number in the data set, from 0.
        number: its number in its shard, from 0.
        metadata: what is kept beside its tokens; None if nothing is.
        text: decoded, without its end; None if ids were asked for.
        ids: its end included; None if text was asked for.
        sentences: the text of each; None if ids were asked for, or the document was not cut into sentences.
        sentence_lengths: in tokens; None if it was not cut.
    """

    document: int
    shard: str
    number: int
    num_tokens: int
    metadata: dict[str, Any] | None
    text: str | None
    ids: list[int] | None
    sentences: list[str] | None
    sentence_lengths: list[int] | None


def documents(
    folder: Path, *, first: int, count: int = 1, ids: bool = False, tokenizer: Path | None = None
) -> Iterator[DocumentView]:
    """Documents `first` to `first + count`, as text, or as ids.

    Args:
        tokenizer: in place of the one that the manifest names, which may have moved.

    Raises:
        DataError: there are no such documents, or there is no tokenizer, or another one than made the data set.
    """
    data_set = DataSet(folder)
    if not 0 <= first < first + count <= len(data_set):
        asked = f"document {first}" if count == 1 else f"documents {first} to {first + count - 1}"
        held = f"documents 0 to {len(data_set) - 1}" if len(data_set) else "none"
        raise DataError(f"{folder} has no {asked}: it holds {held}.")
    decoder = None if ids else _decoder(data_set, tokenizer)
    eod_id = data_set.manifest.eod_id
    numbers = range(first, first + count)
    for document, metadata in zip(numbers, data_set.metadata(numbers), strict=True):
        shard, number = data_set.place(document)
        tokens = data_set.document(document)
        cut = data_set.sequences(document) if data_set.manifest.sequences_are_sentences else None
        yield DocumentView(
            document=document,
            shard=shard.name,
            number=number,
            num_tokens=len(tokens),
            metadata=metadata,
            text=decoder.decode(without_end(tokens, eod_id)) if decoder else None,
            ids=tokens.tolist() if ids else None,
            sentences=[decoder.decode(without_end(one, eod_id)) for one in cut] if cut and decoder else None,
            sentence_lengths=list(map(len, cut)) if cut else None,
        )


def _decoder(data_set: DataSet, path: Path | None) -> Tokenizer:
    path = path or data_set.manifest.tokenizer_path(data_set.folder)
    if not path.exists():
        raise DataError(f"the tokenizer {path} is not there. Say where it is with --tokenizer, or look at --ids.")
    tokenizer = load(path)
    if tokenizer.sha256 != data_set.manifest.tokenizer.sha256:
        raise DataError(f"{path} is not the tokenizer that made {data_set.folder}: its sha256 is another.")
    return tokenizer
