"""Megatron-core's side of `bench_data.py`: its data sets, built by its builder as its training scripts do."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from megatron.core.datasets import helpers  # noqa: F401 (imported where it is needed: imports are not measured)
from megatron.core.datasets.bert_dataset import BERTMaskedWordPieceDataset, BERTMaskedWordPieceDatasetConfig
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.t5_dataset import T5MaskedWordPieceDataset, T5MaskedWordPieceDatasetConfig
from tokenizers import Tokenizer
from torch._C._distributed_c10d import HashStore

from data_prep.manifest import read_manifest
from data_prep.tokenizer.special_roles import BERT_NAMES, SENTINELS
from tests.bench.data_task import MAX_NGRAM, SEED, SHARD, TOKENIZER, Reader, Task

PADDING_MASKS = ("padding_mask", "enc_mask")  # 1 where there is no padding


class WordPiece:
    """What its data sets ask of a tokenizer, by the names that they use."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.vocab_size = self._tokenizer.get_vocab_size()
        self.unique_identifiers = {"class": "WordPiece"}
        for role, name in BERT_NAMES.items():
            setattr(self, role, self._tokenizer.token_to_id(name))
        self.eod = self._tokenizer.token_to_id(BERT_NAMES["eos"])
        self.additional_special_tokens_ids = [self._tokenizer.token_to_id(name) for name in SENTINELS]

    @cached_property
    def inv_vocab(self) -> dict[int, str]:
        return {token: name for name, token in self._tokenizer.get_vocab().items()}


class MegatronSamples:
    """Samples one by one; they are shuffled by the indices that the data set builds."""

    at_once = 1

    def __init__(self, task: Task, folder: Path, *, cache: Path) -> None:
        kind, config = _kind_and_config(task, folder, cache)
        # One epoch: those for masking cannot be built without a number.
        epoch = (read_manifest(folder / task.data_set).num_tokens - 1) // task.seq_len
        self._dataset: Any = BlendedMegatronDatasetBuilder(kind, [epoch, 0, 0], lambda: True, config).build()[0]

    def stream(self) -> Iterator[Mapping[str, Any]]:
        num_samples = len(self._dataset)
        return (self._dataset[number % num_samples] for number in count())

    def input_tokens(self, item: Mapping[str, Any]) -> float:
        mask = next((item[name] for name in PADDING_MASKS if name in item), None)
        return float(len(item["tokens"]) if mask is None else np.count_nonzero(mask == 1))


def open_samples(task: Task, folder: Path, *, cache: Path, at_once: int, reading: str) -> Reader:  # noqa: ARG001
    return MegatronSamples(task, folder, cache=cache)


def start_process_group() -> None:
    """Its masked data sets ask for the rank of the process, so that there must be a group, of one."""
    torch.distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)


def _kind_and_config(task: Task, folder: Path, cache: Path) -> tuple[type, Any]:
    """Masking as in its pretrain_bert.py and pretrain_t5.py, where the task leaves it open."""
    shared: dict[str, Any] = {
        "random_seed": SEED,
        "sequence_length": task.seq_len,
        "blend": ([str(folder / task.data_set / SHARD)], None),
        "split": "1,0,0",
        "path_to_cache": str(cache),
        "tokenizer": WordPiece(folder / TOKENIZER),
    }
    if task.objective == "causal":
        # Without a mask of its own for each batch, which is the faster way.
        more = {"reset_position_ids": False, "reset_attention_mask": False, "eod_mask_loss": False}
        return GPTDataset, GPTDatasetConfig(**shared, **more, create_attention_mask=False)
    masking: dict[str, Any] = {
        "masking_probability": 0.15,
        "short_sequence_probability": 0.1,
        "masking_do_permutation": False,
        "masking_use_longer_ngrams": False,
    }
    if task.objective == "masked":
        masking |= {
            "masking_max_ngram": MAX_NGRAM if task.masking == "ngram" else 1,
            "masking_do_full_word": task.masking != "token",
            "masking_use_geometric_distribution": False,
            "classification_head": task.pairs,
        }
        return BERTMaskedWordPieceDataset, BERTMaskedWordPieceDatasetConfig(**shared, **masking)
    masking |= {
        "masking_max_ngram": 10,
        "masking_do_full_word": True,
        "masking_use_geometric_distribution": True,
        "sequence_length_decoder": 128,
    }
    return T5MaskedWordPieceDataset, T5MaskedWordPieceDatasetConfig(**shared, **masking)
