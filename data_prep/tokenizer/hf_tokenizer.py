"""The files that `transformers.AutoTokenizer` reads, also for a SentencePiece model, with the same ids for every text.

Two things make the ids of SentencePiece equal where converters commonly differ. Hugging Face would find byte tokens
(`<0x0A>`) that are spelled in a text, SentencePiece does not: they get a score that no path takes. And unigram scores
are multiples of a power of two (`tokenizers.SCORE_STEP`), so that SentencePiece's float32 sums equal the float64 ones.
The names of the special tokens in a text become special tokens in `transformers`, as users of chat templates expect,
unless it is loaded with `split_special_tokens=True`; for `tokenizers.load` they are always plain text.
"""

import json
from pathlib import Path
from typing import Any, Literal

from data_prep.tokenizer.special_roles import SpecialTokens
from data_prep.tokenizer.token_text import SPACE


def write_hf_files(
    folder: Path, *, tokenizer: Any, special: SpecialTokens, model_max_length: int, segment_ids: bool = False
) -> None:
    """Write tokenizer.json and tokenizer_config.json.

    Args:
        tokenizer: a `tokenizers.Tokenizer` whose model has `special.names` as its first ids.
        segment_ids: whether models take `token_type_ids`, as BERT does.
    """
    from tokenizers import AddedToken, processors

    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special.names])
    if special.wraps_text:
        cls, sep = special.roles["cls"], special.roles["sep"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{cls} $A {sep}",
            pair=f"{cls} $A {sep} $B:1 {sep}:1",
            special_tokens=[(name, special.names.index(name)) for name in (cls, sep)],
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = _config(special, model_max_length=model_max_length, segment_ids=segment_ids)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _config(special: SpecialTokens, *, model_max_length: int, segment_ids: bool) -> dict[str, Any]:
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model_max_length,
        "clean_up_tokenization_spaces": False,
    }
    if not special.wraps_text:  # transformers takes these as an order to replace the template
        config |= {"add_bos_token": False, "add_eos_token": False}
    if segment_ids:
        config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    config |= {f"{role}_token": name for role, name in special.roles.items()}
    if special.extra:
        config["extra_special_tokens"] = list(special.extra)
    return config


def from_sentencepiece(content: bytes, *, kind: Literal["unigram", "bpe"]) -> Any:
    """A `tokenizers.Tokenizer` with the ids of a SentencePiece model; special tokens are not added yet.

    Args:
        content: of a model file with identity normalization, no dummy prefix and byte fallback.
    """
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer, decoders, normalizers

    model = SentencePieceProcessor(model_proto=content)
    tokenizer = Tokenizer(_unigram(model) if kind == "unigram" else _bpe(model))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _unigram(model: Any) -> Any:
    from tokenizers.models import Unigram

    def is_text(token: int) -> bool:
        return not (model.is_byte(token) or model.is_control(token) or model.is_unknown(token))

    tokens = range(model.vocab_size())
    lowest = min(model.get_score(token) for token in tokens if is_text(token))
    longest_name = max(len(model.id_to_piece(token)) for token in tokens if not is_text(token))
    never = lowest * (longest_name + 1)  # worse than the name spelled in single characters, which all are pieces
    scores = [(model.id_to_piece(token), model.get_score(token) if is_text(token) else never) for token in tokens]
    return Unigram(scores, unk_id=model.unk_id(), byte_fallback=True)


def _bpe(model: Any) -> Any:
    """SentencePiece joins the pair whose result ranks first; as merges: each way to make each piece, in its rank."""
    from tokenizers.models import BPE

    ids = {model.id_to_piece(token): token for token in range(model.vocab_size())}
    text_ids = {
        piece: token for piece, token in ids.items() if not model.is_byte(token) and not model.is_control(token)
    }
    merges = [
        (text_ids[piece], text_ids[piece[:cut]], text_ids[piece[cut:]], piece[:cut], piece[cut:])
        for piece in text_ids
        for cut in range(1, len(piece))
        if piece[:cut] in text_ids and piece[cut:] in text_ids
    ]
    pairs = [(left, right) for *_, left, right in sorted(merges)]
    return BPE(ids, pairs, unk_token=model.id_to_piece(model.unk_id()), byte_fallback=True, fuse_unk=False)
