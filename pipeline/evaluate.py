"""`pretrain eval`: the loss of an exported model on a data set, computed by transformers alone."""

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from data_prep.progress import progress
from pipeline.convert.hugging_face import load_causal_model
from pipeline.data.token_stream import TokenStream
from pipeline.data.unigram import windows_to_use
from pipeline.errors import DataError
from pipeline.objectives import causal
from pipeline.shards import find_shards

BATCH_TOKENS = 4096  # logits of so many positions are in memory at a time


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a model predicts held-out text.

    Attributes:
        loss: mean over all targets, nats per token.
        tokens: targets predicted.
    """

    loss: float
    perplexity: float
    tokens: int


@torch.inference_mode()
def evaluate(folder: Path, dataset: Path, *, samples: int | None = None) -> Evaluation:
    """The next-token loss in fp32 of the Hugging Face model in `folder` over the windows of the data set in `dataset`.

    A window is as long as the sequences of training and starts where the one before ended, as in training's own
    evaluation, so that both give the same figure.

    Args:
        samples: windows to use, the first ones; None takes all.

    Raises:
        UserError: the folder holds no model.
        DataError: the data set is missing, too short, or has more ids than the model.
    """
    stream = TokenStream(find_shards(str(dataset)))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_causal_model(folder).to(device)
    num_ids = stream.shards.vocab_size or stream.shards.highest_id + 1
    if num_ids > model.config.vocab_size:
        raise DataError(
            f"{dataset} has {num_ids} token ids but the model in {folder} knows "
            f"{model.config.vocab_size}. Tokenize the text with the model's own tokenizer."
        )
    seq_len = model.config.max_position_embeddings
    windows = windows_to_use(stream, seq_len=seq_len, samples=samples)
    size = max(1, BATCH_TOKENS // seq_len)
    total = 0.0
    with progress("evaluate", total=windows * seq_len, unit="tokens") as shown:
        for first in range(0, windows, size):
            inputs_BS, labels_BS = _batch(stream, range(first, min(first + size, windows)), seq_len)
            logits_BSV = model(inputs_BS.to(device), use_cache=False).logits
            total += float(cross_entropy(logits_BSV.flatten(0, 1), labels_BS.to(device).flatten(), reduction="sum"))
            shown.update(labels_BS.numel())
    loss = total / (windows * seq_len)
    return Evaluation(loss=loss, perplexity=math.exp(loss), tokens=windows * seq_len)


def _batch(stream: TokenStream, indices: range, seq_len: int) -> tuple[torch.Tensor, torch.Tensor]:
    starts = np.arange(indices.start, indices.stop) * seq_len
    inputs, labels = causal.inputs_and_labels(stream.gather(starts, causal.window_length(seq_len)))
    return torch.from_numpy(inputs), torch.from_numpy(labels)


def command(args: argparse.Namespace) -> int:
    """`pretrain eval`: reads `model data samples json` of `args`."""
    found = evaluate(Path(args.model), Path(args.data), samples=args.samples)
    if args.json:
        print(json.dumps(asdict(found)))
    else:
        print(f"loss {found.loss:.4f} nats per token, perplexity {found.perplexity:.2f}, over {found.tokens:,} tokens")
    return 0
