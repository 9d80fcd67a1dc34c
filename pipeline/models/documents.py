"""Several documents in one sample: what tells them apart travels from layer to layer beside the hidden states.

Dims: S positions, B batch, D head.
"""

from dataclasses import dataclass

import torch

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

    def attention_mask(self, inputs: Carried) -> torch.Tensor | None:
        """Which keys each query sees, bool, [B, 1, S, S]: earlier ones of its document; None if all earlier ones."""
        if not self.attend_within:
            return None
        ids_BS = inputs[1]
        same_BSS = ids_BS[:, :, None] == ids_BS[:, None, :]
        return same_BSS.tril().unsqueeze(1)

    def angles(self, inputs: Carried, angles_S11D: torch.Tensor) -> torch.Tensor:
        """The angles of each token's position, shape [S, B, 1, D], or those given, where all samples have the same."""
        if not self.reset_positions:
            return angles_S11D
        return angles_S11D[inputs[-1].transpose(0, 1), 0]


def hidden_of(inputs: Carried) -> torch.Tensor:
    """The hidden states, or token ids, without what is carried beside them."""
    return inputs if isinstance(inputs, torch.Tensor) else inputs[0]


def beside(inputs: Carried, hidden: torch.Tensor) -> Carried:
    """`hidden` with what `inputs` carried."""
    return hidden if isinstance(inputs, torch.Tensor) else (hidden, *inputs[1:])
