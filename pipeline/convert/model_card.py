"""README.md of an exported model: what it is, what it was trained on, how to load it."""

from typing import TYPE_CHECKING

from pipeline.convert.parity import Parity

if TYPE_CHECKING:
    from pipeline.checkpoint.logical import LogicalCheckpoint

TEMPLATE = """\
---
library_name: transformers
pipeline_tag: text-generation
---

# {name}

A Llama-style decoder, pre-trained from scratch with `pretrain`.

| | |
|---|---|
| parameters | {num_parameters:,} |
| layers, width, feed-forward width | {model.num_layers}, {model.hidden_size}, {model.ffn_hidden_size} |
| query heads, key/value heads, head width | {heads} |
| vocabulary, sequence length | {model.vocab_size:,}, {model.seq_len:,} |
| trained for | {step:,} steps, {num_tokens:,} tokens |
| weights | {dtype} |
| proof | {proof} |

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH")
model = AutoModelForCausalLM.from_pretrained("PATH")
ids = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=50)[0]))
```

`export.json` holds the source checkpoint and the checksum of each file. This model was neither instructed nor filtered
for safety: it continues text as its training data would.
"""


def model_card(checkpoint: "LogicalCheckpoint", *, name: str, dtype: str, parity: Parity | None) -> str:
    """The text of README.md."""
    model = checkpoint.config.model
    return TEMPLATE.format(
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
