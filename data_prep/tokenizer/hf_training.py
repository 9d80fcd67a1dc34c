"""Training WordPiece and byte-level BPE with Hugging Face's `tokenizers`: equal texts make equal tokenizers.

What comes back has the special tokens as its first ids, but does not look for them in text yet.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from data_prep.tokenizer.special_roles import SpecialTokens
from data_prep.tokenizer.training_limits import not_empty, too_large, too_small

# How byte_bpe cuts text into words, which no token crosses: contractions; a letter word, its accents and vowel signs
# included, with the space or mark before it; single digits, so that a number is spelled one way only; punctuation with
# the line ends after it; spaces but the last before a word. It is Qwen 3.5's, to the letter: fast engines know it.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTINUES = "##"  # BERT's mark of a piece that does not start a word
MAX_WORD_CHARACTERS = 100  # BERT's: longer words are unknown

# Of a text's characters, those that WordPiece knows; a word with another one is unknown. The rest is left to it, as in
# BERT, because each character takes up to two ids. Measured: 128 of 304 characters, 92 words of a million unknown.
# Texts below 20,000 characters keep all.
CHARACTER_COVERAGE = 0.99995

MIN_FREQUENCY = 2  # a pair seen once tells nothing
MAX_PART_CHARACTERS = 4_000  # each merge goes through all of a word: 0.8 MB without a space takes 209 s, cut 1.4 s


def train_byte_bpe(texts: Iterable[str], *, vocab_size: int, special: SpecialTokens) -> Any:
    """A `tokenizers.Tokenizer` that splits any text into bytes and joins those that are often together; lossless.

    Raises:
        DataError: there is no text, or `vocab_size` does not suit it.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    smallest = len(special.names) + 256
    if vocab_size < smallest:
        raise too_small(vocab_size, must_hold=f"{len(special.names)} special tokens and 256 bytes", smallest=smallest)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=list(special.names),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return _trained(tokenizer, trainer, not_empty(_parts(texts)))


def train_wordpiece(texts: Iterable[str], *, vocab_size: int, special: SpecialTokens, lowercase: bool) -> Any:
    """A `tokenizers.Tokenizer` that cuts text as BERT does: spaces and control characters are lost, accents are kept.

    All of `texts` is held in memory, as two passes are needed: trainers number the pieces of one character in the
    order of a hash table that differs each time, and break ties by these numbers. So they are given, sorted.

    Raises:
        DataError: there is no text, or `vocab_size` does not suit it.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(
        models.WordPiece(
            unk_token=special.roles["unk"],
            continuing_subword_prefix=CONTINUES,
            max_input_chars_per_word=MAX_WORD_CHARACTERS,
        )
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUES)
    parts = list(not_empty(_parts(texts)))
    alphabet = _alphabet(tokenizer, parts)
    smallest = len(special.names) + len(alphabet)
    if vocab_size < smallest:
        must_hold = (
            f"{len(special.names)} special tokens and {len(alphabet)} pieces of one character, those of the text"
        )
        raise too_small(vocab_size, must_hold=must_hold, smallest=smallest)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[*special.names, *alphabet],
        limit_alphabet=0,
        continuing_subword_prefix=CONTINUES,
        show_progress=False,
    )
    return _trained(tokenizer, trainer, parts)


def _alphabet(tokenizer: Any, parts: Sequence[str]) -> list[str]:
    """The pieces of one character, sorted: as `é` where it starts a word, as `##é` where it does not.

    Those of ASCII are there whatever the text holds, so that no English word or number is unknown.
    """
    from tokenizers import Tokenizer, trainers

    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(tokenizer.normalizer.normalize_str(part))
    common = _common(Counter({character: count for character, count in counts.items() if not character.isspace()}))
    scratch = Tokenizer.from_str(tokenizer.to_str())
    scratch.train_from_iterator(
        parts, trainers.WordPieceTrainer(vocab_size=0, continuing_subword_prefix=CONTINUES, show_progress=False)
    )
    found = {piece for piece in scratch.get_vocab() if piece[-1] in common}
    ascii_text = tokenizer.normalizer.normalize_str(string.ascii_letters + string.digits + string.punctuation)
    inside = {CONTINUES + character for character in ascii_text if character.isalnum()}
    return sorted(found | set(ascii_text) | inside)


def _common(counts: Counter[str]) -> set[str]:
    """The most frequent characters, which make up CHARACTER_COVERAGE of all."""
    common: set[str] = set()
    left_out = counts.total()
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if left_out <= (1 - CHARACTER_COVERAGE) * counts.total():
            break
        common.add(character)
        left_out -= count
    return common


def _trained(tokenizer: Any, trainer: Any, parts: Iterable[str]) -> Any:
    """A tokenizer with the trained model and the other parts of `tokenizer`, without added tokens."""
    from tokenizers import Tokenizer

    tokenizer.train_from_iterator(parts, trainer)
    if (count := tokenizer.get_vocab_size()) < trainer.vocab_size:
        raise too_large(trainer.vocab_size, largest=count)
    found = Tokenizer(tokenizer.model)
    found.normalizer = tokenizer.normalizer
    found.pre_tokenizer = tokenizer.pre_tokenizer
    found.decoder = tokenizer.decoder
    return found


def _parts(texts: Iterable[str]) -> Iterator[str]:
    """Each line with all line ends after it, as byte_bpe learns those; long ones in parts; none of white space only."""
    for text in texts:
        for part in re.findall(rf"[^\n]{{1,{MAX_PART_CHARACTERS}}}\n*", text):
            if not part.isspace():
                yield part
