"""Dropout under every splitting: who draws the same mask, who one of its own, and that a resumed run goes on drawing.

Dims: s slice of the sequence, B batch, H hidden, Q query positions, K key positions, N query heads.
"""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import torch
from megatron.core.tensor_parallel import get_cuda_rng_tracker

from pipeline import train
from pipeline.checkpoint import rng
from pipeline.config.schema import RunConfig
from pipeline.errors import Interrupted
from pipeline.models.attention import SdpaCoreAttention
from pipeline.models.residual import HiddenDropout, ResidualAdd
from tests.distributed import runs
from tests.distributed.runs import Layout

RATE = 0.5
DROPOUT = {"model.hidden_dropout": RATE, "model.attention_dropout": RATE}
SEQUENCE_PARALLEL = {"parallel.sequence_parallel": True}
Masks = list[npt.NDArray[np.bool_]]


@dataclass
class Drawn:
    """What one rank drew and computed in the micro-batches of one step, in its own order.

    Attributes:
        hidden: what was dropped of the residual stream's activations, [s, B, H] each.
        attention: what was dropped of the attention weights, of those that count, flat.
        streams: the residual stream after each addition, [s, B, H] each.
    """

    hidden: Masks = field(default_factory=list)
    attention: Masks = field(default_factory=list)
    streams: list[npt.NDArray[np.float32]] = field(default_factory=list)


def train_and_show_masks(config: RunConfig) -> Drawn:
    """Train."""
    drawn = Drawn()
    with watched(drawn):
        train.train(config)
    return drawn


@contextmanager
def watched(drawn: Drawn) -> Iterator[None]:
    """Note in `drawn` what the layers draw."""
    drop, add, attend = HiddenDropout.forward, ResidualAdd.forward, SdpaCoreAttention.forward

    def dropping(self: HiddenDropout, hidden: torch.Tensor) -> torch.Tensor:
        dropped = drop(self, hidden)
        drawn.hidden.append((dropped == 0).numpy().copy())
        return dropped

    def adding(self: ResidualAdd, *args: Any) -> torch.Tensor:
        stream = add(self, *args)
        drawn.streams.append(stream.detach().numpy().copy())
        return stream

    def attending(self: SdpaCoreAttention, query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        states = get_cuda_rng_tracker().get_states()
        drawn.attention.append(attention_mask(lambda *given: attend(self, *given, *args[1:], **kwargs), query, key))
        get_cuda_rng_tracker().set_states(states)
        return attend(self, query, key, *args, **kwargs)

    with (
        mock.patch.object(HiddenDropout, "forward", dropping),
        mock.patch.object(ResidualAdd, "forward", adding),
        mock.patch.object(SdpaCoreAttention, "forward", attending),
    ):
        yield


@torch.no_grad()
def attention_mask(attend: Any, query_QBND: torch.Tensor, key_KBGD: torch.Tensor) -> npt.NDArray[np.bool_]:
    """What is dropped: equal scores, and values that tell the keys apart, show the weights themselves."""
    num_keys, num_samples, num_groups, _ = key_KBGD.shape
    value_KBGK = torch.eye(num_keys)[:, None, None].expand(num_keys, num_samples, num_groups, num_keys)
    weights = attend(torch.zeros_like(query_QBND), torch.zeros_like(key_KBGD), value_KBGK)
    dropped_QBNK = weights.unflatten(-1, (-1, num_keys)) == 0
    seen_QK = torch.ones(len(query_QBND), num_keys, dtype=torch.bool).tril()
    return dropped_QBNK[seen_QK[:, None, None].expand_as(dropped_QBNK)].numpy()


def drawn_of(layout: Layout, data: Path, run_dir: Path, **overrides: Any) -> list[Drawn]:
    """What each rank drew in one step."""
    config = runs.run_config(data, run_dir, layout, {**DROPOUT, "run.steps": 1, **overrides})
    found = runs.start(train_and_show_masks, config)
    assert all(one.hidden and one.attention for one in found)
    return found


def same(left: Masks, right: Masks) -> bool:
    return len(left) == len(right) and all(np.array_equal(*pair) for pair in zip(left, right, strict=True))


def assert_independent(masks: Masks) -> None:
    """Any two agree about as often as coins do, and each drops its share."""
    for mask in masks:
        assert mask.mean() == pytest.approx(RATE, abs=chance(mask.size))
    for left, right in itertools.combinations(masks, 2):
        size = min(left.size, right.size)
        assert (left.ravel()[:size] == right.ravel()[:size]).mean() == pytest.approx(0.5, abs=chance(size))


def chance(size: int) -> float:
    """Six standard deviations of the mean of so many coins: of 10,000 pairs, none is so far off."""
    return 6 * 0.5 / size**0.5


@pytest.fixture(scope="module")
def tensor_parallel(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Drawn]:
    return drawn_of((2, 1, 1, 0), data, tmp_path_factory.mktemp("run"))


def test_tensor_parallel_ranks_draw_one_mask_for_what_they_share(tensor_parallel: list[Drawn]) -> None:
    left, right = tensor_parallel
    assert same(left.hidden, right.hidden)
    assert_independent(left.hidden)
    assert len(left.streams) == 4 * 4 * 2, "layers, micro-batches, additions"
    assert all(np.array_equal(*pair) for pair in zip(left.streams, right.streams, strict=True))


def test_tensor_parallel_ranks_draw_masks_of_their_own_for_heads(tensor_parallel: list[Drawn]) -> None:
    left, right = tensor_parallel
    assert_independent(left.attention + right.attention)


def test_slices_of_the_sequence_have_masks_of_their_own(data: Path, tmp_path: Path) -> None:
    left, right = drawn_of((2, 1, 1, 0), data, tmp_path, **SEQUENCE_PARALLEL)
    assert_independent(left.hidden + right.hidden)
    assert_independent(left.attention + right.attention)


def test_stages_and_copies_of_the_model_have_masks_of_their_own(data: Path, tmp_path: Path) -> None:
    ranks = drawn_of((1, 2, 2, 1), data, tmp_path)
    assert_independent([mask for rank in ranks for mask in rank.hidden])
    assert_independent([mask for rank in ranks for mask in rank.attention])


@dataclass(frozen=True, kw_only=True)
class ResumeCase:
    layout: Layout
    overrides: Mapping[str, Any] = field(default_factory=dict)


RESUME_CASES = (
    ResumeCase(layout=(1, 1, 1, 0)),
    ResumeCase(layout=(2, 2, 1, 1), overrides={**SEQUENCE_PARALLEL, "precision.dtype": "bf16"}),
    ResumeCase(layout=(1, 1, 2, 3), overrides={"parallel.recompute": "full"}),
)
STOPPED_AFTER, STEPS = 2, 4


def train_without_random_state(config: RunConfig) -> None:
    """Train, as if a checkpoint said nothing of the random streams."""
    with mock.patch.object(rng, "restore"):
        train.train(config)


def stopped_run(case: ResumeCase, data: Path, run_dir: Path) -> RunConfig:
    config = runs.run_config(data, run_dir, case.layout, {**DROPOUT, **case.overrides, "run.steps": STEPS})
    with pytest.raises(Interrupted):
        runs.start(runs.train_and_stop, config, STOPPED_AFTER)
    return config


@pytest.mark.parametrize("case", RESUME_CASES, ids=str)
def test_a_resumed_run_goes_on_drawing(case: ResumeCase, data: Path, tmp_path: Path) -> None:
    resumed = stopped_run(case, data, tmp_path / "resumed")
    runs.start(train.train, resumed)
    whole = runs.run_config(data, tmp_path / "whole", case.layout, {**DROPOUT, **case.overrides, "run.steps": STEPS})
    runs.start(train.train, whole)
    for name in ("train/loss", "train/grad_norm"):
        assert runs.figures(resumed, name) == runs.figures(whole, name)
    assert len(runs.figures(whole)) == STEPS


def test_that_is_because_the_streams_are_saved(data: Path, tmp_path: Path) -> None:
    """Without them the masks of the first steps come again."""
    config = stopped_run(RESUME_CASES[0], data, tmp_path / "saved")
    other = stopped_run(RESUME_CASES[0], data, tmp_path / "forgotten")
    runs.start(train.train, config)
    runs.start(train_without_random_state, other)
    assert runs.figures(config)[:STOPPED_AFTER] == runs.figures(other)[:STOPPED_AFTER]
    assert runs.figures(config)[STOPPED_AFTER] != runs.figures(other)[STOPPED_AFTER]


@pytest.mark.parametrize("layout", [(1, 2, 1, 1), (2, 1, 1, 0)], ids=str)
def test_an_evaluation_draws_nothing(layout: Layout, data: Path, tmp_path: Path) -> None:
    """Training goes on after it as if there had been none."""
    evaluated = {"data.validation": str(data / "validation"), "monitor.eval_every_steps": 1, "monitor.eval_samples": 8}
    losses = []
    for name, overrides in (("without", {}), ("with", evaluated)):
        config = runs.run_config(data, tmp_path / name, layout, {**DROPOUT, "run.steps": 3, **overrides})
        runs.start(train.train, config)
        losses.append(runs.figures(config))
    assert losses[0] == losses[1]
    assert len(runs.figures(config, "validation/loss")) == 3


@pytest.mark.parametrize("layout", [(1, 2, 1, 1), (1, 1, 1, 0)], ids=str)
def test_an_evaluation_drops_nothing(layout: Layout, data: Path, tmp_path: Path) -> None:
    """At a rate too low to change a weight, its loss is that without dropout; the training loss is not."""
    training, validation = [], []
    for name, dropout in (("without", {}), ("with", DROPOUT)):
        overrides = {"data.validation": str(data / "validation"), "monitor.eval_samples": 8, "optimizer.lr": 1e-30}
        config = runs.run_config(data, tmp_path / name, layout, {**overrides, **dropout, "run.steps": 1})
        runs.start(train.train, config)
        training.append(runs.figures(config))
        validation.append(runs.figures(config, "validation/loss"))
    assert validation[0] == validation[1]
    assert training[0] != training[1]
