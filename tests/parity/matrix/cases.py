"""The matrix as data: which model is trained under which splitting, and how far it may be from one rank.

The order of sums is all that a splitting may change. PRODUCT has every model under every splitting over four ranks,
SHAPES what is odd about a model or a splitting, HALVES the formats of 16 bits. `make test` runs DAILY, in which each
model meets each value of each axis, each feature meets each family that has it, and every two values of axes meet;
`make test-all` runs all.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from tests.parity.matrix.records import Case, Control, Layout, Options, Tolerance, layouts, pairwise

# Reasons come with what was measured: loss (an evaluation is as one), gradient norm, weight, and what was learned.
FP32 = Tolerance(
    loss=1e-6,
    evaluation=1e-6,
    grad_norm=2e-6,
    weight=3e-5,
    learned=3e-4,
    reason="Sums are taken in another order: 2e-7 (three units in the last place), 5e-7, 4e-6, 5e-5. The smallest "
    "faults known are a loss off by 5e-6 (norms of queries and keys that are not summed over the heads) and a gradient "
    "norm off by 7e-5 (gradients of T5's tables that do not cross the stages).",
)
BF16 = Tolerance(
    loss=2**-8,
    evaluation=2**-8,
    grad_norm=10 * 2**-8,
    weight=2e-2,
    learned=0.4,
    reason="Values are rounded by up to 2^-8 of their size, and a loss is a mean: 3e-4; but 3e-3 for T5, whose "
    "embeddings are about 1, so that steps of 1e-3 are below their rounding. A norm is that of gradients rounded many "
    "times: 2e-2. Adam's step goes by a gradient's sign more than by its size: 8e-3 of the 2e-2 that 10 steps can "
    "make, 0.2.",
)
FP16 = Tolerance(
    loss=2**-11,
    evaluation=2**-11,
    grad_norm=10 * 2**-11,
    weight=2e-2,
    learned=0.15,
    reason="As bf16 with a rounding of 2^-11: 5e-5 and 3e-4 for T5, 2e-3, 7e-3, 0.07.",
)
# The 1.6 million gradients of an embedding.
LONG_NORM = replace(
    FP32,
    grad_norm=5e-4,
    reason="As fp32, but torch's norm on a CPU adds up fp32 squares one after another: of 1.6 million it loses 2e-4.",
)

ALL_HEADS: Options = {"model.num_key_value_heads": None}  # the base config groups them
T5: Options = ALL_HEADS | {
    "model.architecture": "t5",
    "model.num_layers": 2,
    "objective.name": "span",
    "objective.target_len": 16,
}
MODELS: Mapping[str, Options] = MappingProxyType(
    {
        "llama": {"model.architecture": "llama"},
        "qwen2": {"model.architecture": "qwen2"},
        "qwen3": {"model.architecture": "qwen3"},
        "mistral": {"model.architecture": "mistral", "model.sliding_window": 9},
        "gpt2": ALL_HEADS | {"model.architecture": "gpt2"},
        "bert": ALL_HEADS | {"model.architecture": "bert", "objective.name": "masked", "objective.pairs": "nsp"},
        "t5": T5,
        "t5_original": T5 | {"model.tie_embeddings": True, "model.gated_mlp": False, "model.activation": "relu"},
    }
)

PRODUCT = [Case(model=model, layout=layout, tolerance=FP32) for model in MODELS for layout in layouts(max_ranks=4)]

TWO_STAGES = Layout(pipeline=2)
FOUR_STAGES = Layout(pipeline=4)
SLICED = Layout(tensor=2, sequence_parallel=True)
SPLIT_BOTH_WAYS = Layout(tensor=2, pipeline=2, zero=1, sequence_parallel=True)
COPIES = Layout(tensor=2, data=2, zero=1)


def shapes(
    feature: str, options: Options, split: Mapping[str, tuple[Layout, ...]], *, tolerance: Tolerance = FP32
) -> list[Case]:
    """Models of one odd shape, each under some layouts."""
    return [
        Case(model=model, layout=layout, feature=feature, options=options, tolerance=tolerance)
        for model, layouts in split.items()
        for layout in layouts
    ]


def cuts(model: str, *sizes: tuple[int, ...]) -> list[Case]:
    """A model with its pipeline layers cut into stages of these sizes."""
    return [
        Case(
            model=model,
            layout=Layout(pipeline=len(each)),
            feature="stages_of_" + "_".join(map(str, each)),
            split_options={"parallel.stage_layers": list(each)},
            tolerance=FP32,
        )
        for each in sizes
    ]


GPT2S_VOCABULARY: Options = {"model.vocab_size": 50257, "model.hidden_size": 32, "model.num_layers": 2}
ONE_HEAD: Options = {"model.num_key_value_heads": 1}
THREE_LAYERS: Options = {"model.num_layers": 3}
ODD_LENGTH: Options = {"model.seq_len": 26}
ODD_LENGTHS: Options = ODD_LENGTH | {"objective.target_len": 14}
DOCUMENTS: Options = {"data.attend_within_documents": True, "data.reset_positions": True}
DEEP_ENCODER: Options = {"model.num_layers": 3, "model.num_decoder_layers": 1}
DEEP_DECODER: Options = {"model.num_layers": 1, "model.num_decoder_layers": 3}

SHAPES = [
    *shapes(
        "vocabulary_of_50257",
        GPT2S_VOCABULARY,
        {"gpt2": (Layout(tensor=4, sequence_parallel=True),)},
        tolerance=LONG_NORM,
    ),
    *shapes("one_key_value_head", ONE_HEAD, {"llama": (SLICED,), "qwen2": (Layout(tensor=2),), "qwen3": (SLICED,)}),
    *shapes("three_layers", THREE_LAYERS, {"llama": (TWO_STAGES,), "bert": (TWO_STAGES,)}),
    *shapes("odd_length", ODD_LENGTH, {"gpt2": (SLICED,), "bert": (SPLIT_BOTH_WAYS,)}),
    *shapes("odd_length", ODD_LENGTHS, {"t5": (SLICED,)}),
    *shapes("tied", {"model.tie_embeddings": True}, {"llama": (TWO_STAGES, SPLIT_BOTH_WAYS)}),
    *shapes("untied", {"model.tie_embeddings": False}, {"gpt2": (TWO_STAGES,)}),
    *shapes("documents", DOCUMENTS, {"llama": (TWO_STAGES, COPIES), "gpt2": (SPLIT_BOTH_WAYS,), "mistral": (SLICED,)}),
    *shapes("one_text", {"objective.pairs": "none"}, {"bert": (SPLIT_BOTH_WAYS,)}),
    *shapes("deep_encoder", DEEP_ENCODER, {"t5": (TWO_STAGES,), "t5_original": (SPLIT_BOTH_WAYS,)}),
    *shapes("deep_decoder", DEEP_DECODER, {"t5": (TWO_STAGES,)}),
    # A stage of the embedding alone, or of the head; encoder and decoder layers in one stage.
    *cuts("llama", (1, 6)),
    *cuts("gpt2", (1, 6), (6, 1)),
    # A stage that is sent a mask and sends on, in its place, logits.
    *cuts("bert", (1, 6), (6, 1), (1, 5, 1)),
    *cuts("t5", (1, 8), (3, 6), (6, 3)),
    *cuts("t5_original", (2, 7), (5, 1, 2, 1)),
]
EIGHT_RANKS = (
    Layout(tensor=2, pipeline=2, data=2, zero=1, sequence_parallel=True),
    Layout(tensor=4, pipeline=2, zero=1, sequence_parallel=True),
    Layout(tensor=2, pipeline=4),
    Layout(pipeline=4, data=2, zero=1),
)
MORE_SHAPES = [
    *shapes(
        "vocabulary_of_50257",
        GPT2S_VOCABULARY,
        dict.fromkeys(("llama", "bert", "t5"), (Layout(tensor=4),)),
        tolerance=LONG_NORM,
    ),
    *shapes(
        "one_key_value_head",
        ONE_HEAD,
        dict.fromkeys(("llama", "qwen2", "qwen3"), (Layout(tensor=4), SPLIT_BOTH_WAYS)),
    ),
    *shapes("three_layers", THREE_LAYERS, {"gpt2": (TWO_STAGES,), "t5": (TWO_STAGES, FOUR_STAGES)}),
    *shapes("documents", DOCUMENTS, dict.fromkeys(("qwen3", "mistral"), (SPLIT_BOTH_WAYS, Layout(data=2, zero=3)))),
    *cuts("t5_original", (1, 8), (4, 5), (1, 1, 1, 6), (6, 1, 1, 1)),
    *shapes("eight_ranks", {}, dict.fromkeys(MODELS, EIGHT_RANKS)),
]
RECOMPUTED = [
    Case(
        model=model,
        layout=layout,
        feature=f"recompute_{recompute}",
        split_options={"parallel.recompute": recompute},
        tolerance=FP32,
    )
    for model in ("llama", "bert", "t5_original")
    for recompute, layout in (("full", SPLIT_BOTH_WAYS), ("full", Layout(data=2, zero=3)), ("selective", SLICED))
]
HALVES = [
    Case(
        model=model,
        layout=layout,
        feature=precision,
        # At this scale of the loss no step of fp16 overflows.
        split_options={"precision.initial_loss_scale_power": 10},
        precision=precision,
        tolerance=tolerance,
    )
    for model in ("llama", "gpt2", "bert", "t5_original")
    for layout in (SPLIT_BOTH_WAYS, COPIES, Layout(data=2, zero=2), Layout(tensor=2, data=2, zero=3))
    for precision, tolerance in (("bf16", BF16), ("fp16", FP16))
]

CASES = [*PRODUCT, *SHAPES, *MORE_SHAPES, *RECOMPUTED, *HALVES]
DAILY = frozenset(map(str, [*pairwise(PRODUCT), *SHAPES, *RECOMPUTED, *pairwise(HALVES)]))

CONTROLS = [
    Control(fault=fault, case=Case(model=model, layout=layout, tolerance=FP32), seen_by=seen_by)
    for fault, model, layout, seen_by in (
        ("norms are not summed over slices", "llama", SLICED, ("loss", "grad_norm")),
        ("norms are not summed over slices", "qwen3", Layout(tensor=2), ("loss", "grad_norm")),
        ("biases are not summed over slices", "gpt2", SLICED, ("loss", "grad_norm")),
        ("positions are not summed over slices", "gpt2", SLICED, ("loss", "grad_norm")),
        ("shared layers are not summed over slices", "bert", SLICED, ("loss", "grad_norm")),
        ("gradients of pairs are added up", "bert", SLICED, ("loss", "grad_norm")),
        ("tied gradients are not summed", "gpt2", TWO_STAGES, ("loss", "grad_norm")),
        ("tied gradients are not summed", "bert", TWO_STAGES, ("loss", "grad_norm")),
        ("tied gradients are not summed", "t5_original", TWO_STAGES, ("loss", "grad_norm")),
        ("tables get no gradient from later stages", "t5", FOUR_STAGES, ("loss", "grad_norm")),
        ("padding of the vocabulary takes part", "llama", Layout(tensor=2), ("loss", "grad_norm")),
        ("each replica takes the mean of its labels", "bert", Layout(data=2), ("loss", "grad_norm")),
        ("the norm leaves copies out", "gpt2", Layout(tensor=2, pipeline=2), ("grad_norm",)),
    )
]
