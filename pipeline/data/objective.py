"""The objective of a run, set up from its config and its tokenizer."""

from collections.abc import Sequence
from typing import Any

from data_prep.tokenizer.tokenizers import Tokenizer
from pipeline.config.sample import denoising
from pipeline.config.schema import RunConfig
from pipeline.data.run_tokenizer import RunTokenizer
from pipeline.errors import DataError
from pipeline.objectives.causal import Causal
from pipeline.objectives.encoder_decoder import EncoderDecoder
from pipeline.objectives.fim import Fim
from pipeline.objectives.masked import Masked
from pipeline.objectives.masking import Masking
from pipeline.objectives.samples import Objective

MASKED_NEEDS = ("mask", "cls", "sep")


def make_objective(config: RunConfig, tokenizer: RunTokenizer, *, seed: int) -> Objective[Any]:
    """What turns the tokens of a sample into inputs and labels.

    Raises:
        DataError: the tokenizer lacks a token that the objective needs.
    """
    objective = config.objective
    if objective.name == "causal":
        return Causal(
            seq_len=config.model.seq_len,
            fim=_fim(config, tokenizer, seed) if objective.fim_rate else None,
            reset_positions=config.data.reset_positions,
            within_documents=config.data.attend_within_documents,
        )
    vocabulary = tokenizer.vocabulary
    if objective.name == "span":
        return EncoderDecoder(denoising=denoising(config), vocabulary=vocabulary, seed=seed)
    missing = [name for name in MASKED_NEEDS if getattr(vocabulary, f"{name}_id") is None]
    if missing:
        raise DataError(
            f"objective.name=masked needs the tokens {', '.join(missing)}, which the tokenizer {tokenizer.path} does "
            "not have. Train one with `pretrain tokenizer train --objective masked`, and tokenize the text with it."
        )
    if objective.masking != "token" and not vocabulary.joins_left.any():
        raise DataError(
            f"objective.masking={objective.masking} is wrong because the tokens of {tokenizer.path} do not show which "
            "of them make up a word. Set objective.masking=token."
        )
    masking = Masking(
        mask_rate=objective.mask_rate,
        mask_token_share=objective.mask_token_share,
        random_token_share=objective.random_token_share,
        masking=objective.masking,
        max_ngram=objective.max_ngram,
    )
    return Masked(vocabulary=vocabulary, masking=masking, seq_len=config.model.seq_len, seed=seed)


def _fim(config: RunConfig, tokenizer: RunTokenizer, seed: int) -> Fim:
    objective = config.objective
    return Fim(
        vocabulary=tokenizer.vocabulary,
        rate=objective.fim_rate,
        spm_share=objective.fim_spm_share,
        cut=objective.fim_cut,
        text=_Codec(tokenizer.tokenizer),
        seed=seed,
    )


class _Codec:
    """A tokenizer for one text at a time."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> Sequence[int]:
        ids: list[int] = self._tokenizer.encode_batch([text])[0].tolist()
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids)
