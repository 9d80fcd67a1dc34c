"""Operations that are counted from the config, beside those that torch counts while the model runs.

Dims: B batch, N query heads, G key/value heads, Q query positions, K key positions, D head.
"""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config.architectures import ARCHITECTURES, ArchitectureName
from pipeline.config.load import build
from pipeline.config.sample import denoising
from pipeline.config.schema import RunConfig
from pipeline.config.stage_rules import num_pipeline_layers
from pipeline.distributed import single_process
from pipeline.flops import layer_flops, num_causal_scores, training_flops
from pipeline.models import attention
from pipeline.models.families import family_of, parameter_table, pipeline_layers
from pipeline.models.parameters import initialize
from pipeline.models.pipeline_layer import LayerStack
from tests.unit.pipeline.config.sections import sections

VOCAB_SIZE = 192  # no padding, which torch would count and we do not
OBJECTIVES = {"gpt": "causal", "bert": "masked", "t5": "span"}
# Odd lengths and sizes that differ, so that no term is mistaken for another one.
SHAPE = {"num_layers": 3, "hidden_size": 24, "num_attention_heads": 4, "ffn_hidden_size": 40, "seq_len": 23}
VARIANTS: tuple[dict[str, Any], ...] = (
    {"architecture": "llama", "num_key_value_heads": 2},
    {"architecture": "llama", "tie_embeddings": True, "head_dim": 10},
    {"architecture": "qwen2", "num_key_value_heads": 1},
    {"architecture": "qwen3", "num_key_value_heads": 2, "head_dim": 8},
    {"architecture": "mistral", "sliding_window": 5},
    {"architecture": "mistral", "sliding_window": 50},
    {"architecture": "gpt2"},
    {"architecture": "bert"},
    {"architecture": "bert", "pairs": "nsp"},
    {"architecture": "t5", "num_decoder_layers": 2, "head_dim": 7},
    {"architecture": "t5", "gated_mlp": False, "activation": "relu", "tie_embeddings": True},
)
assert {variant["architecture"] for variant in VARIANTS} == set(get_args(ArchitectureName))


def run_config(*, pairs: str = "none", **model: Any) -> RunConfig:
    changes = {f"model.{key}": value for key, value in (SHAPE | {"vocab_size": VOCAB_SIZE} | model).items()}
    changes |= {"objective.name": OBJECTIVES[ARCHITECTURES[model["architecture"]].family], "objective.pairs": pairs}
    return build(sections(changes), check_data=False)


@pytest.fixture(autouse=True, scope="module")
def world() -> Iterator[None]:
    with single_process():
        yield


def attend_to_seen_keys(
    query_BNQD: torch.Tensor,
    key_BGKD: torch.Tensor,
    value_BGKD: torch.Tensor,
    *,
    attn_mask: torch.Tensor | None,
    is_causal: bool,
    **_: Any,
) -> torch.Tensor:
    """Attention without softmax that multiplies no query with a key that it does not see; only its products matter."""
    (_, heads, length, _), num_keys = query_BNQD.shape, key_BGKD.shape[2]
    seen_QK = torch.ones(length, num_keys, dtype=torch.bool)
    if is_causal:
        seen_QK = seen_QK.tril()
    elif attn_mask is not None:
        one = attn_mask[0, 0]
        seen_QK = (one if one.dtype == torch.bool else one > torch.finfo(one.dtype).min).expand(length, num_keys)
    key_BNKD, value_BNKD = (one.repeat_interleave(heads // one.shape[1], dim=1) for one in (key_BGKD, value_BGKD))
    rows = []
    for index, seen_K in enumerate(seen_QK):
        scores_BN1K = query_BNQD[:, :, index : index + 1] @ key_BNKD[:, :, seen_K].transpose(2, 3)
        rows.append(scores_BN1K @ value_BNKD[:, :, seen_K])
    return torch.cat(rows, dim=2)


def batch(config: RunConfig) -> tuple[Any, Any]:
    """Inputs and labels of one sample."""
    family, ones_1S = family_of(config.model), torch.ones(1, config.model.seq_len, dtype=torch.long)
    if config.model.family == "gpt":
        return ones_1S, ones_1S
    if config.model.family == "t5":
        ones_1T = torch.ones(1, denoising(config).target_len, dtype=torch.long)
        return (ones_1S, ones_1S, ones_1T), ones_1T
    return (ones_1S,) * len(family.inputs), (ones_1S, ones_1S[:, 0]) if config.model.pair_head else ones_1S


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_torch_counts_as_many(variant: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "scaled_dot_product_attention", attend_to_seen_keys)
    config = run_config(**variant)
    stack = LayerStack(pipeline_layers(config.model))
    initialize(stack, parameter_table(config.model), seed=1, tensor_rank=0, tensor_parallel_size=1)
    inputs, labels = batch(config)
    counter = FlopCounterMode(display=False)
    with counter:
        outputs = stack(inputs)
    counted = counter.get_flop_counts()
    by_layer = [sum(counted.get(f"LayerStack.{index}", {}).values()) for index in range(len(layer_flops(config)))]
    assert by_layer == [layer.flops for layer in layer_flops(config)]
    with FlopCounterMode(display=False) as of_backward:
        family_of(config.model).make_loss()(outputs, labels).backward()
    assert sum(by_layer) + of_backward.get_total_flops() == training_flops(config)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_layers_are_those_of_the_model(variant: dict[str, Any]) -> None:
    config = run_config(**variant)
    names = [layer.name for layer in layer_flops(config)]
    assert len(names) == len(pipeline_layers(config.model)) == num_pipeline_layers(config)
    for row in parameter_table(config.model):
        assert row.name == f"{names[row.layer]}.{row.local_name}"


@given(length=st.integers(1, 60), window=st.integers(1, 80) | st.none())
def test_causal_scores_are_those_that_are_seen(length: int, window: int | None) -> None:
    seen = [key for query in range(length) for key in range(query + 1) if window is None or query - key < window]
    assert num_causal_scores(length, window) == len(seen)


def test_recomputation_and_the_split_change_nothing() -> None:
    config = run_config(architecture="llama")
    changes = {"recompute": "full", "tensor_parallel_size": 2, "data_parallel_size": 4}
    split = config.model_copy(update={"parallel": config.parallel.model_copy(update=changes)})
    assert training_flops(split) == training_flops(config)


def test_a_model_of_known_size() -> None:
    """Llama 2 7B at 4,096 tokens: 6 x 6.74e9 a token less the embeddings' part, and 3.2e9 for scores that are seen."""
    config = run_config(
        architecture="llama",
        num_layers=32,
        hidden_size=4096,
        num_attention_heads=32,
        ffn_hidden_size=11008,
        seq_len=4096,
        vocab_size=32000,
    )
    products = 6 * (32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32000 * 4096)
    assert training_flops(config) / 4096 == pytest.approx(products + 6 * 32 * 4096 * 4097, rel=1e-12)
