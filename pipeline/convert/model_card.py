"""README.md of an exported model: what it is, what it was trained on, how to load it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from pipeline.config.architectures import Family
from pipeline.convert.form import form_of
from pipeline.convert.parity import Parity
from pipeline.convert.special_ids import SpecialIds

if TYPE_CHECKING:
    from pipeline.checkpoint.logical import LogicalCheckpoint

TEMPLATE = """\
---
library_name: transformers
pipeline_tag: {task}
---

# {name}

{what}, pre-trained from scratch with `pretrain`.

| | |
|---|---|
| parameters | {num_parameters:,} |
| layers, width, feed-forward width | {model.num_layers}, {model.hidden_size}, {model.ffn_hidden_size} |
| query heads, key/value heads, head width | {heads} |
| vocabulary, sequence length | {model.vocab_size:,}, {model.seq_len:,} |
| trained for | {step:,} steps, {num_tokens:,} tokens |
| weights | {dtype} |
| proof | {proof} |

{usage}
`export.json` holds the source checkpoint and the checksum of each file. This model was neither instructed nor filtered
for safety.
"""

USAGE = """\
```python
from transformers import {model_class}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH")
model = {model_class}.from_pretrained("PATH")
{lines}
```
"""


@dataclass(frozen=True, kw_only=True)
class _Use:
    """What a model of one family is for, and how it is called."""

    what: str
    task: str
    lines: str


USES: Mapping[Family, _Use] = MappingProxyType(
    {
        "gpt": _Use(
            what="A decoder",
            task="text-generation",
            lines='ids = tokenizer("Once upon a time", return_tensors="pt")\n'
            "print(tokenizer.decode(model.generate(**ids, max_new_tokens=50)[0]))",
        ),
        "bert": _Use(
            what="An encoder",
            task="fill-mask",
            lines='ids = tokenizer(f"Once upon a {tokenizer.mask_token}", return_tensors="pt")\n'
            "print(tokenizer.decode(model(**ids)[0].argmax(-1)[0]))",
        ),
        "t5": _Use(
            what="An encoder-decoder",
            task="text2text-generation",
            lines='ids = tokenizer("Once upon a <extra_id_0>", return_tensors="pt")\n'
            "print(tokenizer.decode(model.generate(**ids, max_new_tokens=20)[0]))",
        ),
    }
)


def model_card(checkpoint: "LogicalCheckpoint", *, name: str, dtype: str, parity: Parity | None) -> str:
    """The text of README.md."""
    model = checkpoint.config.model
    use = USES[model.family]
    [model_class] = form_of(model).config(model, torch.float32, SpecialIds())["architectures"]
    return TEMPLATE.format(
        what=f"{use.what} of the architecture {model.architecture}",
        task=use.task,
        usage=USAGE.format(model_class=model_class, lines=use.lines),
        name=name,
        model=model,
        heads=f"{model.num_attention_heads}, {model.num_key_value_heads}, {model.head_dim}",
        num_parameters=checkpoint.table.num_parameters,
        step=checkpoint.step,
        num_tokens=checkpoint.consumed_samples * model.seq_len,
        dtype=dtype,
        proof=_proof(parity),
    )


def _proof(parity: Parity | None) -> str:
    if parity is None:
        return "none: exported with `--no-verify`"
    return (
        f"logits equal the training model's within {parity.max_difference:.1e} "
        f"({parity.num_tokens:,} tokens, fp32, allowed {parity.tolerance:.0e})"
    )
