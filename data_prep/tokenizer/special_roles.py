"""Special tokens as data: which roles each objective needs, what they are called, and so which ids they have."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from data_prep.errors import DataError
from data_prep.tokenizer import token_roles

Kind = Literal["unigram", "bpe", "wordpiece", "byte_bpe"]
Objective = Literal["causal", "masked", "span", "fim", "all"]
Role = Literal["unk", "bos", "eos", "pad", "mask", "cls", "sep"]

KINDS: tuple[Kind, ...] = get_args(Kind)
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

SENTINELS = tuple(token_roles.SENTINELS[0].format(number) for number in range(100))  # T5's, of which it has 100

# Name of each role, in the order of the ids. Code written for BERT's WordPiece expects its names to be BERT's.
NAMES: Mapping[Role, str] = MappingProxyType(
    {role: f"<|{role}|>" for role in ("unk", "bos", "eos", "pad", "mask", "cls", "sep")}
)
BERT_NAMES: Mapping[Role, str] = MappingProxyType(
    {role: f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask", "bos", "eos")}
)

# Roles of each kind whatever its objectives, then those that an objective adds.
ALWAYS: Mapping[Kind, frozenset[Role]] = MappingProxyType(
    {
        "unigram": frozenset({"unk", "bos", "eos", "pad"}),
        "bpe": frozenset({"unk", "bos", "eos", "pad"}),
        "byte_bpe": frozenset({"unk", "bos", "eos", "pad"}),
        "wordpiece": frozenset({"unk", "pad"}),
    }
)
NEEDED: Mapping[Objective, frozenset[Role]] = MappingProxyType(
    {
        "causal": frozenset({"bos", "eos"}),
        "masked": frozenset({"mask", "cls", "sep"}),
        "span": frozenset({"bos", "eos"}),
        "fim": frozenset({"bos", "eos"}),
    }
)
# Further special tokens of an objective, for which transformers has no roles.
EXTRA: Mapping[Objective, tuple[str, ...]] = MappingProxyType({"span": SENTINELS, "fim": token_roles.FIM[0]})

# A tokenizer without its own bos and eos has BERT's tokens around a text in these roles, as RoBERTa and ModernBERT do.
STAND_INS: Mapping[Role, Role] = MappingProxyType({"bos": "cls", "eos": "sep"})


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """The special tokens of one tokenizer.

    Attributes:
        names: in the order of their ids, which start at 0.
        roles: role to name; two roles may share a name.
        extra: those without a role, such as sentinels, as objectives need them; the last ones of `names`.
        wraps_text: whether transformers puts cls and sep around a text unless told not to: where masked is the only
            objective. Others are trained on text without them.
    """

    names: tuple[str, ...]
    roles: Mapping[Role, str]
    extra: tuple[str, ...]
    wraps_text: bool


def default_objective(kind: Kind) -> Objective:
    """What a tokenizer of this kind is commonly for."""
    return "masked" if kind == "wordpiece" else "causal"


def special_tokens(kind: Kind, objectives: Collection[Objective]) -> SpecialTokens:
    """The special tokens of a tokenizer that serves all of `objectives`.

    Raises:
        DataError: `objectives` is empty, or has an unknown name.
    """
    if not objectives or not set(objectives) <= set(OBJECTIVES):
        raise DataError(f"--objective {' '.join(objectives)} names no objective. Give one or more of {OBJECTIVES}.")
    wanted = set(NEEDED) if "all" in objectives else set(objectives)
    present = ALWAYS[kind].union(*(NEEDED[objective] for objective in wanted))
    names = BERT_NAMES if kind == "wordpiece" else NAMES
    roles = {role: name for role, name in names.items() if role in present}
    extra = tuple(name for objective, needed in EXTRA.items() if objective in wanted for name in needed)
    return SpecialTokens(
        names=(*roles.values(), *extra),
        roles=MappingProxyType(roles | {role: roles[other] for role, other in STAND_INS.items() if role not in roles}),
        extra=extra,
        wraps_text=wanted == {"masked"},
    )
