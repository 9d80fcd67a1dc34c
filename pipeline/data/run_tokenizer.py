"""The tokenizer behind the tokens of a run, opened only where something needs it."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from data_prep.tokenizer import loading
from data_prep.tokenizer.tokenizers import Tokenizer
from pipeline.config.schema import RunConfig
from pipeline.data.vocabulary import load_vocabulary
from pipeline.errors import DataError
from pipeline.objectives.vocabulary import Vocabulary
from pipeline.shards import ShardSet


class RunTokenizer:
    """The tokenizer that `data.tokenizer` names, or else the manifest of the first source that has one.

    Attributes:
        path: where it lies; None if nothing names it.
    """

    def __init__(self, config: RunConfig, sources: Sequence[ShardSet]) -> None:
        self._config = config
        known = [source for source in sources if source.tokenizer is not None]
        self.path = Path(config.data.tokenizer) if config.data.tokenizer else known[0].tokenizer if known else None
        self._sha256 = known[0].tokenizer_sha256 if known else None
        if config.data.tokenizer:  # what was named must be right, whether it is needed or not
            _ = self.tokenizer

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Its ids are those of the data.

        Raises:
            DataError: there is none, or it is another one than made the tokens.
        """
        if self.path is None:
            raise DataError("no manifest names the tokenizer of data.train. Set data.tokenizer to its folder.")
        tokenizer = loading.load(self.path)
        if self._sha256 not in (None, tokenizer.sha256):
            raise DataError(
                f"the tokenizer {self.path} is not the one that made the tokens of data.train (sha256 "
                f"{tokenizer.sha256[:12]}, not {str(self._sha256)[:12]}). Set data.tokenizer to the right one."
            )
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """What each id that is read must be below; the model may know more than the tokenizer, if that is needed."""
        objective = self._config.objective
        needs_words = objective.name != "causal" or objective.fim_rate > 0
        return self.vocabulary.size if needs_words else self._config.model.vocab_size

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What objectives need of it.

        Raises:
            DataError: as `tokenizer`, or the model knows fewer ids.
        """
        vocabulary = load_vocabulary(self.tokenizer)
        if vocabulary.size > self._config.model.vocab_size:
            raise DataError(
                f"model.vocab_size={self._config.model.vocab_size} is wrong because the tokenizer {self.path} has "
                f"{vocabulary.size} ids. Set it to {vocabulary.size} or more."
            )
        return vocabulary
