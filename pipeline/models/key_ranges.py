"""Which keys the queries of causal attention see, and the forms in which kernels take that.

Dims: S positions, B batch (1 where all samples are alike), T blocks of positions.
"""

from functools import cached_property, lru_cache

import torch
from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Positions of a block, of which FlexAttention leaves out those that no query sees; its own default."""


class KeyRanges:
    """Each query sees the keys from a first one on, up to its own place.

    Documents are such ranges, since they lie one behind the other, and so are windows. Each form is made once: the
    layers of a stage share the ranges of a micro-batch.

    Args:
        first_BS: the first key that each query sees, int32; it does not go back along the sequence.
    """

    def __init__(self, first_BS: torch.Tensor) -> None:
        self.first_BS = first_BS

    @cached_property
    @torch.inference_mode(mode=False)  # training may use what a forward pass without gradients has made
    def square_mask(self) -> torch.Tensor:
        """True where a query sees a key, bool, [B, 1, S, S]."""
        place_S = torch.arange(self.first_BS.shape[1], device=self.first_BS.device)
        seen_BSS = (place_S >= self.first_BS[:, :, None]) & (place_S <= place_S[:, None])
        return seen_BSS.unsqueeze(1)

    @cached_property
    @torch.inference_mode(mode=False)
    def block_mask(self) -> BlockMask:
        """For FlexAttention: the blocks in which any key is seen, and those in which all are, from arithmetic alone.

        Torch's `create_block_mask` finds the same by looking at each query and key, in a square mask if not compiled.
        """
        first_BS, length = self.first_BS, self.first_BS.shape[1]
        begin_T = torch.arange(0, length, BLOCK, device=first_BS.device)
        last_T = (begin_T + BLOCK - 1).clamp(max=length - 1)
        begins_before_BTT = begin_T <= begin_T[:, None]
        seen_BTT = (last_T >= first_BS[:, begin_T, None]) & begins_before_BTT
        # Blocks at the end that are not whole count as those of which a part is seen.
        is_whole_T1 = (begin_T + BLOCK <= length)[:, None]
        full_BTT = (begin_T >= first_BS[:, last_T, None]) & (begin_T < begin_T[:, None]) & is_whole_T1
        num_rows = first_BS.shape[0]

        def sees(sample: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            return (key >= first_BS[sample % num_rows, query]) & (key <= query)

        return BlockMask.from_kv_blocks(
            *_listed(seen_BTT & ~full_BTT),
            *_listed(full_BTT),
            BLOCK_SIZE=BLOCK,
            mask_mod=sees,
            seq_lengths=(length, length),
        )


def _listed(chosen_BTT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many blocks each row has, int32 [B, 1, T], and their indices with those not chosen last, [B, 1, T, T]."""
    order_BTT = chosen_BTT.int().argsort(dim=-1, descending=True, stable=True)
    return chosen_BTT.sum(-1, dtype=torch.int32).unsqueeze(1), order_BTT.int().unsqueeze(1)


@lru_cache(maxsize=2)
@torch.inference_mode(mode=False)
def of_documents(ids_BS: torch.Tensor) -> KeyRanges:
    """Each token sees its own document, which begins where the id is another one than that before it, int [B, S].

    Asked for the same tensor again, it gives what it gave before.
    """
    place_S = torch.arange(ids_BS.shape[1], dtype=torch.int32, device=ids_BS.device)
    begins_BS = torch.ones_like(ids_BS, dtype=torch.bool)
    begins_BS[:, 1:] = ids_BS[:, 1:] != ids_BS[:, :-1]
    return KeyRanges(torch.where(begins_BS, place_S, 0).cummax(dim=1).values)


def in_window(ranges: KeyRanges | None, window: int | None, length: int, device: torch.device) -> KeyRanges | None:
    """Of `ranges`, of `length` keys, the last `window` of each query; None where a query sees all keys before it.

    Asked again, it gives what it gave before.
    """
    return ranges if window is None or window >= length else _in_window(ranges, window, length, device)


@lru_cache(maxsize=2)
@torch.inference_mode(mode=False)
def _in_window(ranges: KeyRanges | None, window: int, length: int, device: torch.device) -> KeyRanges:
    first_S = (torch.arange(length, dtype=torch.int32, device=device) - (window - 1)).clamp(min=0)
    return KeyRanges(first_S[None] if ranges is None else torch.maximum(ranges.first_BS, first_S))
