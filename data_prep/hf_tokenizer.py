"""A SentencePiece model as the files that `transformers.AutoTokenizer` reads, with the same ids for every text.

Two things make the ids equal where converters commonly differ. Hugging Face would find byte tokens (`<0x0A>`) that are
spelled in a text, SentencePiece does not: they get a score that no path takes. And unigram scores are multiples of a
power of two (`tokenizers.SCORE_STEP`), so that SentencePiece's float32 sums equal the float64 ones.
The names of the special tokens in a text become special tokens in `transformers`, as users of chat templates expect,
unless it is loaded with `split_special_tokens=True`; in SentencePiece they are always plain text.
"""

import json
from pathlib import Path
from typing import Any

SPACE = "\u2581"  # SentencePiece's mark of a space


def write_hf_files(folder: Path, *, model: Any, kind: str, model_max_length: int) -> None:
    """Write tokenizer.json and tokenizer_config.json.

    Args:
        model: a `SentencePieceProcessor` with identity normalization, no dummy prefix and byte fallback.
        kind: unigram or bpe.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers

    tokenizer = Tokenizer(_unigram(model) if kind == "unigram" else _bpe(model))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    special_ids = {
        "bos_token": model.bos_id(),
        "eos_token": model.eos_id(),
        "pad_token": model.pad_id(),
        "unk_token": model.unk_id(),
    }
    special = {name: model.id_to_piece(token) for name, token in special_ids.items()}
    names = [model.id_to_piece(token) for token in sorted(special_ids.values())]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model_max_length,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "add_eos_token": False,
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


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
