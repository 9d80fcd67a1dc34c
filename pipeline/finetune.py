"""`pretrain finetune`: an exported model trained on, on a JSONL of texts, by transformers' own `Trainer`."""

import argparse
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from data_prep.atomic import creating_folder, refuse_occupied
from data_prep.progress import Progress, progress
from data_prep.text.readers import read_documents
from pipeline.convert.hugging_face import load_causal_model, load_tokenizer
from pipeline.errors import DataError, UserError

NUM_EVALUATIONS = 5  # while it trains; the best of them is kept
WARMUP_SHARE = 0.1

Windows = list[dict[str, torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """What fine-tuning did; losses are means over the validation text, nats per token.

    Attributes:
        loss_before: of the model as it was given.
        loss_after: of the model that was saved, the best one that was evaluated.
        best_step: the step at which that one was.
    """

    out: str
    steps: int
    best_step: int
    loss_before: float
    loss_after: float
    train_tokens: int
    validation_tokens: int


def finetune(
    folder: Path,
    *,
    train: Path,
    validation: Path,
    out: Path,
    steps: int = 100,
    batch_size: int = 8,
    lr: float = 2e-4,
    seq_len: int | None = None,
    seed: int = 1234,
    text_key: str = "text",
) -> Finetuned:
    """Train the language model in `folder` on and save the best one, with its tokenizer, to the new folder `out`.

    The texts are joined, each ended by the end-of-sequence token, and cut into windows without padding. Weights are
    trained and saved in fp32.

    Args:
        train, validation: files of JSON objects with a text, one a line.
        lr: peak learning rate, reached after a tenth of the steps; falls linearly to 0.
        seq_len: window length in tokens; None takes the longest that the model was trained on.
        text_key: the field of an object that holds the text.

    Raises:
        UserError: the folder holds no model, a file holds no text or less than a window, or `out` is occupied.
    """
    refuse_occupied(out)
    model, tokenizer = load_causal_model(folder), load_tokenizer(folder)
    seq_len = _window_length(seq_len, model)
    train_set = _windows(train, tokenizer, seq_len, text_key)
    validation_set = _windows(validation, tokenizer, seq_len, text_key)
    with creating_folder(out) as temporary:
        work = temporary / "trainer"
        arguments = _arguments(work, steps=steps, batch_size=batch_size, lr=lr, seed=seed)
        with progress("finetune", total=steps, unit="steps") as shown:
            trainer = transformers.Trainer(
                model,
                arguments,
                data_collator=transformers.default_data_collator,
                train_dataset=train_set,
                eval_dataset=validation_set,
                callbacks=[_Steps(shown)],
            )
            trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
            trainer.train()
        shutil.rmtree(work)
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    losses = {entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry}
    best_step = min(losses.keys() - {0}, key=losses.__getitem__)
    return Finetuned(
        out=str(out),
        steps=steps,
        best_step=best_step,
        loss_before=losses[0],
        loss_after=losses[best_step],
        train_tokens=len(train_set) * seq_len,
        validation_tokens=len(validation_set) * seq_len,
    )


def _arguments(work: Path, *, steps: int, batch_size: int, lr: float, seed: int) -> transformers.TrainingArguments:
    return transformers.TrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        learning_rate=lr,
        warmup_steps=math.ceil(WARMUP_SHARE * steps),
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        eval_on_start=True,
        eval_strategy="steps",
        eval_steps=math.ceil(steps / NUM_EVALUATIONS),
        prediction_loss_only=True,
        save_strategy="best",
        save_only_model=True,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        seed=seed,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


class _Steps(TrainerCallback):
    """Shows the steps in this project's own way, and has the last one evaluated, too."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        self._shown.update(1)
        if state.global_step == state.max_steps:
            control.should_evaluate = True


def _window_length(seq_len: int | None, model: PreTrainedModel) -> int:
    limit: int = model.config.max_position_embeddings
    if seq_len is None:
        return limit
    if not 2 <= seq_len <= limit:
        raise UserError(
            f"--seq-len {seq_len} cannot be used: the model was trained on {limit} positions. Give 2 to {limit}."
        )
    return seq_len


def _windows(path: Path, tokenizer: PreTrainedTokenizerBase, seq_len: int, text_key: str) -> Windows:
    """The tokens of a JSONL as whole windows; the labels are the inputs, which transformers shifts by one."""
    if path.suffix != ".jsonl":
        raise DataError(f'{path} is not a .jsonl file: give one with an object a line, such as {{"text": "..."}}.')
    tokens = torch.tensor(list(chain.from_iterable(_encoded(path, tokenizer, text_key))), dtype=torch.long)
    count = len(tokens) // seq_len
    if not count:
        raise DataError(
            f"{path} holds {len(tokens)} tokens of text, less than one window of {seq_len}. "
            "Give more text, or a shorter --seq-len."
        )
    return [{"input_ids": window, "labels": window} for window in tokens[: count * seq_len].view(count, seq_len)]


def _encoded(path: Path, tokenizer: PreTrainedTokenizerBase, text_key: str) -> Iterator[list[int]]:
    ending = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for document in read_documents(path, text_key=text_key):
        # The name of a special token in a text is plain text, as it was in pre-training.
        ids = tokenizer(document.text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if ids:
            yield ids + ending


def command(args: argparse.Namespace) -> int:
    """`pretrain finetune`: of `args`, the arguments of `finetune` (`model` is the folder), and `json`."""
    done = finetune(
        Path(args.model),
        train=Path(args.train),
        validation=Path(args.validation),
        out=Path(args.out),
        steps=args.steps,
        batch_size=args.batch_size,
        lr=args.lr,
        seq_len=args.seq_len,
        seed=args.seed,
        text_key=args.text_key,
    )
    print(json.dumps(asdict(done), indent=2) if args.json else _summary(done))
    return 0


def _summary(done: Finetuned) -> str:
    return (
        f"{done.out}: validation loss {done.loss_before:.4f} before, {done.loss_after:.4f} after {done.best_step} of "
        f"{done.steps} steps (nats per token, {done.validation_tokens:,} tokens)"
        + ("" if done.loss_after < done.loss_before else ": NOT better than before; try a lower --lr or more text")
    )
