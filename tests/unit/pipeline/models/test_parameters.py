"""The parameter table: slices and what they join to, initial values, names."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.models.families import parameter_table
from pipeline.models.parameters import ParameterSpec, padded_vocab_size
from tests.small_models import run_config

SIZES = (1, 2, 4)

models = st.builds(
    lambda **shape: run_config(**shape).model,
    vocab_size=st.integers(1, 700),
    num_layers=st.integers(1, 2),
    num_key_value_heads=st.sampled_from([4, 8]),
    num_attention_heads=st.just(8),
    hidden_size=st.sampled_from([16, 48]),
    ffn_hidden_size=st.integers(1, 5).map(lambda factor: 4 * factor),
    tie_embeddings=st.booleans(),
)


def full(row: ParameterSpec) -> torch.Tensor:
    """A tensor no two elements of which are equal."""
    return torch.arange(row.numel).reshape(row.shape)


@given(models, st.sampled_from(SIZES))
def test_slices_join_to_the_full_tensor(model, size: int) -> None:  # type: ignore[no-untyped-def]
    for row in parameter_table(model):
        slices = [row.split(full(row), rank=rank, size=size) for rank in range(size)]
        assert all(tuple(part.shape) == row.local_shape(size) for part in slices)
        assert torch.equal(row.join(slices), full(row))


@given(st.integers(1, 3), st.sampled_from(SIZES))
def test_each_block_is_split_on_its_own(rows_a_slice: int, size: int) -> None:
    shape = (2 * rows_a_slice * size, 3)
    row = ParameterSpec(name="w", layer=0, local_name="w", shape=shape, split_dim=0, num_blocks=2, init_std=1.0)
    gate, up = full(row).chunk(2)
    for rank in range(size):
        mine = slice(rank * rows_a_slice, (rank + 1) * rows_a_slice)
        assert torch.equal(row.split(full(row), rank=rank, size=size), torch.cat([gate[mine], up[mine]]))


@given(models, st.sampled_from(SIZES))
def test_a_slice_of_queries_keys_and_values_holds_whole_groups(model, size: int) -> None:  # type: ignore[no-untyped-def]
    [row] = [row for row in parameter_table(model) if row.name == "layers.0.self_attention.linear_qkv.weight"]
    group = (model.num_attention_heads // model.num_key_value_heads + 2) * model.head_dim
    assert row.local_shape(size)[0] % group == 0


@given(st.integers(1, 300), st.sampled_from(SIZES))
def test_vocabulary_padding_is_zero_and_comes_last(vocab_size: int, size: int) -> None:
    row = ParameterSpec(
        name="w", layer=0, local_name="w", shape=(vocab_size, 2), split_dim=0, pads_vocab=True, init_std=1.0
    )
    stored = torch.cat([row.split(full(row) + 1, rank=rank, size=size) for rank in range(size)])
    assert len(stored) == padded_vocab_size(vocab_size, size)
    assert torch.equal(stored[:vocab_size], full(row) + 1)
    assert not stored[vocab_size:].any()


@given(st.integers(1, 10**6), st.integers(1, 16))
def test_padding_is_the_least_that_splits_evenly(vocab_size: int, size: int) -> None:
    padded = padded_vocab_size(vocab_size, size)
    assert padded % (64 * size) == 0
    assert 0 <= padded - vocab_size < 64 * size


def test_initial_values_are_functions_of_seed_and_name() -> None:
    table = parameter_table(run_config().model)
    drawn = [row for row in table if row.init_std is not None]
    values = [row.initial_value(5) for row in drawn]
    assert all(torch.equal(row.initial_value(5), value) for row, value in zip(drawn, values, strict=True))
    assert len({tuple(value.flatten()[:4].tolist()) for value in values}) == len(drawn)
    assert not torch.equal(drawn[0].initial_value(6), values[0])
    assert all(torch.equal(row.initial_value(5), torch.ones(row.shape)) for row in table if row.init_std is None)


def test_initial_values_have_the_deviation_of_their_row() -> None:
    for row in parameter_table(run_config().model):
        if row.init_std is not None:
            value = row.initial_value(1)
            assert value.dtype == torch.float32
            assert float(value.std()) == pytest.approx(row.init_std, rel=5 / row.numel**0.5)
            assert abs(float(value.mean())) < 5 * row.init_std / row.numel**0.5


def test_a_row_is_found_by_the_names_of_both_engines() -> None:
    table = parameter_table(run_config(tie_embeddings=True).model)
    plain = table.row_of("0.word_embeddings.weight")
    assert plain.name == "embedding.word_embeddings.weight"
    assert table.row_of("tied_modules.0.word_embeddings.weight") is plain
    with pytest.raises(KeyError):
        table.row_of("9.word_embeddings.weight")
