"""`pretrain quickstart`: the whole path, from the text on this machine to a fine-tuned model."""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib import resources
from pathlib import Path
from typing import Any

import orjson

from data_prep.atomic import creating_folder, refuse_occupied, replacing
from data_prep.text import installed_docs
from data_prep.tokenizer.tokenizer_training import sample_texts, train_tokenizer
from data_prep.tokenizing.tokenize import tokenize
from pipeline import devices, launch
from pipeline.config.load import load, to_yaml
from pipeline.config.schema import RunConfig
from pipeline.data.unigram import unigram_loss
from pipeline.errors import UserError

VOCAB_SIZE = 4096
MIN_GAIN_NATS = 0.8  # that training must gain on the frequencies of single tokens, per token of held-out text
GLOBAL_BATCH_SIZE = 8  # sequences
PROMPT = "Return a list of the"
FINETUNE_STEPS = 40
STATE_FILE = "quickstart.json"


def command(args: argparse.Namespace) -> int:
    """`pretrain quickstart [--out DIR] [--layout TPxPPxDP] [--steps N] [--json]`."""
    started = time.monotonic()
    with redirect_stdout(sys.stderr):  # libraries print, too; stdout is for the result
        quickstart = Quickstart(Path(args.out), layout=args.layout or _default_layout(), steps=args.steps)
        quickstart.run()
    figures = quickstart.figures | {"seconds": round(time.monotonic() - started, 1)}
    print(json.dumps(figures, indent=2) if args.json else quickstart.summary(figures["seconds"]))
    return 0


class Quickstart:
    """The stages, each of which writes one thing into `out` and is done once: a start after an interruption goes on.

    Args:
        layout: tensor, pipeline and data parallel sizes.
        steps: optimizer steps; None takes the run config's.

    Attributes:
        figures: what the stages that are done have measured.

    Raises:
        UserError: `out` holds something else, or a quickstart with other settings.
    """

    def __init__(self, out: Path, *, layout: tuple[int, int, int], steps: int | None) -> None:
        self.out = out
        self.layout = layout
        self.steps = steps
        self.settings = {"layout": list(layout), "steps": steps}
        self.figures: dict[str, Any] = {}
        self.done: list[str] = []
        self._restore()

    def run(self) -> None:
        """Every stage that is not done yet, in order.

        Raises:
            UserError: a stage failed, or what was learned is less than MIN_GAIN_NATS.
        """
        self._run_config()  # a layout that cannot be is refused before anything is made
        self._remember()
        for number, (name, what, stage) in enumerate(self._stages(), start=1):
            if name in self.done:
                continue
            print(f"\n[{number}/{len(list(self._stages()))}] {what}")
            started = time.monotonic()
            self.figures |= stage()
            self.figures["stage_seconds"] = self.figures.get("stage_seconds", {}) | {
                name: round(time.monotonic() - started, 1)
            }
            self.done.append(name)
            self._remember()

    def _stages(self) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]]]]:
        tensor, pipeline, data = self.layout
        yield "corpus", "collect the documentation that Python installations have", self._collect
        yield "tokenizer", f"train a SentencePiece tokenizer of {VOCAB_SIZE:,} pieces", self._train_tokenizer
        yield "data", "tokenize into .bin/.idx shards", self._tokenize
        yield "train", f"pre-train on TP {tensor} x PP {pipeline} x DP {data}, ZeRO-1, bf16", self._train
        yield "export", "export to a Hugging Face folder, and prove that it computes the same", self._export
        yield "evaluate", "evaluate the exported model on the held-out documents", self._evaluate
        yield "generate", "continue a sentence through transformers", self._generate
        yield "finetune", "fine-tune on source code, which the model has never seen", self._finetune

    def _collect(self) -> dict[str, Any]:
        corpus = installed_docs.write_corpus(self.out / "corpus")
        return {
            "corpus_megabytes": round((corpus.num_train_bytes + corpus.num_held_out_bytes) / 1e6, 2),
            "train_documents": corpus.num_train_documents,
            "heldout_documents": corpus.num_held_out_documents,
        }

    def _train_tokenizer(self) -> dict[str, Any]:
        folder = self._fresh("tokenizer")
        texts = sample_texts([self._corpus("train")], vocab_size=VOCAB_SIZE)
        return {"vocab_size": train_tokenizer(texts, kind="unigram", vocab_size=VOCAB_SIZE, out=folder).vocab_size}

    def _tokenize(self) -> dict[str, Any]:
        shutil.rmtree(self.out / "data", ignore_errors=True)
        tokens = {}
        for name in ("train", "heldout"):
            outcome = tokenize(inputs=[self._corpus(name)], tokenizer=self.out / "tokenizer", out=self._data(name))
            assert outcome.manifest  # this process does all units
            tokens[f"{name}_tokens"] = outcome.manifest.num_tokens
        return tokens

    def _train(self) -> dict[str, Any]:
        config = self._run_config()
        path = self.out / "run.yaml"
        with replacing(path) as temporary:
            temporary.write_text(to_yaml(config), encoding="utf-8")
        launch.train(load(path))
        return {"steps": config.run.steps, "consumed_tokens": config.run.steps * config.tokens_per_step}

    def _export(self) -> dict[str, Any]:
        from pipeline.checkpoint.logical import open_checkpoint
        from pipeline.convert.export import export

        report = export(open_checkpoint(self.out / "run"), self._fresh("model"))
        assert report.parity
        return {"parameters": report.num_parameters, "export_max_difference": report.parity.max_difference}

    def _evaluate(self) -> dict[str, Any]:
        from pipeline.evaluate import evaluate

        seq_len = self._run_config().model.seq_len
        unigram = unigram_loss(self._data("train"), self._data("heldout"), vocab_size=VOCAB_SIZE, seq_len=seq_len)
        loss = evaluate(self.out / "model", self._data("heldout")).loss
        print(
            f"held-out loss {loss:.4f} nats per token, {unigram - loss:.4f} below the {unigram:.4f} of the unigram "
            f"frequencies ({MIN_GAIN_NATS} asked for)"
        )
        if unigram - loss < MIN_GAIN_NATS:
            raise UserError(
                f"the model has learned too little: its held-out loss is {loss:.4f}, and {unigram - MIN_GAIN_NATS:.4f} "
                f"was to be reached. Give it more steps: pretrain quickstart --out DIR --steps N, with a new DIR."
            )
        return {"heldout_loss": loss, "unigram_loss": unigram}

    def _generate(self) -> dict[str, Any]:
        from pipeline.generate import generate

        text = generate(self.out / "model", PROMPT, max_new_tokens=40)
        print(text)
        return {"continuation": text}

    def _finetune(self) -> dict[str, Any]:
        from pipeline.finetune import finetune

        train, validation = self._write_source_code()
        result = finetune(
            self.out / "model",
            train=train,
            validation=validation,
            out=self._fresh("finetuned"),
            steps=FINETUNE_STEPS,
            lr=1e-3,
        )
        if not result.loss_after < result.loss_before:
            raise UserError(
                f"fine-tuning did not lower the loss: {result.loss_before:.4f} before, {result.loss_after:.4f} after. "
                f"Try a lower rate: pretrain finetune {self.out / 'model'} --lr 1e-4."
            )
        return {"finetune_loss_before": result.loss_before, "finetune_loss_after": result.loss_after}

    def _write_source_code(self) -> tuple[Path, Path]:
        """Files of training and validation texts; every eighth module is for validation."""
        lines = [orjson.dumps({"text": document.text}) + b"\n" for document in installed_docs.source_code_documents()]
        validation = lines[::8]
        del lines[::8]
        with creating_folder(self._fresh("source_code")) as folder:
            (folder / "train.jsonl").write_bytes(b"".join(lines))
            (folder / "validation.jsonl").write_bytes(b"".join(validation))
        return self.out / "source_code" / "train.jsonl", self.out / "source_code" / "validation.jsonl"

    def _run_config(self) -> RunConfig:
        tensor, pipeline, data = self.layout
        overrides: dict[str, str | int | Path] = {
            "run.dir": self.out / "run",
            "data.train": self._data("train"),
            "data.validation": self._data("heldout"),
            "parallel.tensor_parallel_size": tensor,
            "parallel.pipeline_parallel_size": pipeline,
            "parallel.data_parallel_size": data,
            # As many micro-batches as stages, so that all of them have work.
            "batch.micro_batch_size": max(GLOBAL_BATCH_SIZE // (pipeline * data), 1),
            "batch.global_batch_size": GLOBAL_BATCH_SIZE,
            "model.vocab_size": VOCAB_SIZE,
        }
        if self.steps:
            overrides["run.steps"] = self.steps
        with resources.as_file(resources.files("ds_configs") / "runs" / "quickstart.yaml") as path:
            return load(
                path, [f"{key}={json.dumps(value, default=str)}" for key, value in overrides.items()], check_data=False
            )

    def _restore(self) -> None:
        """Take up what an earlier start with the same settings has done."""
        path = self.out / STATE_FILE
        if not path.exists():
            refuse_occupied(self.out)
            return
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            settings, self.done, self.figures = state["settings"], state["done"], state["figures"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged: {error!r}. Remove {self.out} and start anew.") from error
        if settings != self.settings:
            raise UserError(
                f"{self.out} holds a quickstart with {settings}, and {self.settings} was asked for. Remove it, or give "
                "another --out."
            )
        print(f"{self.out}: kept from an earlier start: {', '.join(self.done) or 'nothing'}")

    def _remember(self) -> None:
        state = {"settings": self.settings, "done": self.done, "figures": self.figures}
        with replacing(self.out / STATE_FILE) as temporary:
            temporary.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")

    def summary(self, seconds: float) -> str:
        """What was made, what it measured, and what to try next."""
        found = self.figures
        gain = found["unigram_loss"] - found["heldout_loss"]
        rows = {
            "corpus": f"{found['corpus_megabytes']} MB, {found['train_documents']:,} documents to train on, "
            f"{found['heldout_documents']:,} held out",
            "tokenizer": f"SentencePiece unigram, {found['vocab_size']:,} pieces",
            "data": f"{found['train_tokens']:,} training tokens, {found['heldout_tokens']:,} held out",
            "run": f"{found['steps']} steps, {found['consumed_tokens']:,} tokens: checkpoints, metrics, TensorBoard",
            "model": f"{found['parameters']:,} parameters; logits differ from training's by "
            f"{found['export_max_difference']:.1e} at most",
            "finetuned": f"loss on source code {found['finetune_loss_before']:.3f} -> "
            f"{found['finetune_loss_after']:.3f}",
        }
        width = max(len(str(self.out / name)) for name in rows)
        return "\n".join(
            [
                "",
                *(f"{self.out / name!s:{width}}  {text}" for name, text in rows.items()),
                "",
                f"held-out loss {found['heldout_loss']:.4f} nats per token, {gain:.4f} below the unigram frequencies' "
                f"{found['unigram_loss']:.4f} (at least {MIN_GAIN_NATS} asked for)",
                f"{PROMPT!r} goes on as {found['continuation']!r}",
                f"{seconds:.0f} seconds",
                "",
                "Next:",
                f"  {_program('pretrain')} generate {self.out / 'model'} --prompt 'The function returns'",
                f"  {_program('tensorboard')} --logdir {self.out / 'run' / 'tensorboard'}",
                f"  {_program('pretrain')} train {self.out / 'run.yaml'} run.dir={self.out / 'longer'} run.steps=2000",
            ]
        )

    def _corpus(self, name: str) -> Path:
        return self.out / "corpus" / f"{name}.jsonl"

    def _data(self, name: str) -> Path:
        return self.out / "data" / name

    def _fresh(self, name: str) -> Path:
        """The folder for a stage's result; what a stage that was not finished left there is removed."""
        shutil.rmtree(self.out / name, ignore_errors=True)
        return self.out / name


def _program(name: str) -> str:
    """How to call a program of this installation from here."""
    return name if shutil.which(name) else os.path.relpath(Path(sys.executable).with_name(name))


def _default_layout() -> tuple[int, int, int]:
    """TP 2 x PP 2, or what the GPUs of this machine suffice for."""
    gpus = devices.num_gpus()
    return (min(gpus, 2), 1, 1) if 0 < gpus < 4 else (2, 2, 1)
