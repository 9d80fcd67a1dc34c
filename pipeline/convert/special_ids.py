"""The token ids that a model's `config.json` names."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SpecialIds:
    """The token ids that a model's config names; None where the tokenizer has no such token."""

    bos: int | None = None
    eos: int | None = None
    pad: int | None = None

    def named(self) -> dict[str, int | None]:
        """As the keys of `config.json` and `generation_config.json`."""
        return {"bos_token_id": self.bos, "eos_token_id": self.eos, "pad_token_id": self.pad}
