"""Several documents in one sample: what tells them apart travels from layer to layer beside the hidden states.

Dims: S positions, B batch, D head.
"""

from dataclasses import dataclass

import torch

from pipeline.models import key_ranges
from pipeline.models.key_ranges import KeyRanges

Carried = torch.Tensor | tuple[torch.Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Documents:
    """What a model is told of the documents in a sample.

    Attributes:
        attend_within: attention sees the tokens of the same document only; `document_ids`, [B, S], are carried.
        reset_positions: positions start at 0 in each document; `position_ids`, [B, S], are carried.
    """

    attend_within: bool = False
    reset_positions: bool = False

    def attention_mask(self, inputs: Carried) -> KeyRanges | None:
        """Which keys each query sees: earlier ones of its document; None if all earlier ones."""
        return key_ranges.of_documents(inputs[1]) if self.attend_within else None

    def positions(self, inputs: Carried, length: int) -> torch.Tensor:
        """The position of each token, int64 [B, S], or [1, S] where all samples have the same."""
        if not self.reset_positions:
            return torch.arange(length, device=hidden_of(inputs).device)[None]
        return inputs[-1]

    def angles(self, inputs: Carried, angles_S11D: torch.Tensor) -> torch.Tensor:
        """The angles of each token's position, shape [S, B, 1, D], or those given, where all samples have the same."""
        if not self.reset_positions:
            return angles_S11D
        return angles_S11D[inputs[-1].transpose(0, 1), 0]


ONE_DOCUMENT = Documents()


def hidden_of(inputs: Carried) -> torch.Tensor:
    """The hidden states, or token ids, without what is carried beside them."""
    return inputs if isinstance(inputs, torch.Tensor) else inputs[0]


def beside(inputs: Carried, hidden: torch.Tensor) -> Carried:
    """`hidden` with what `inputs` carried."""
    return hidden if isinstance(inputs, torch.Tensor) else (hidden, *inputs[1:])
