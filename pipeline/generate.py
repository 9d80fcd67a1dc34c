"""`pretrain generate`: a prompt continued by an exported model, through transformers."""

import argparse
import json
from pathlib import Path

import torch

from pipeline.convert.hugging_face import load_causal_model, load_tokenizer
from pipeline.errors import UserError

MIN_TEMPERATURE = 0.01  # below it, logits divided by it may overflow, and 0 says the same


def generate(folder: Path, prompt: str, *, max_new_tokens: int = 64, temperature: float = 0.8, seed: int = 0) -> str:
    """`prompt` and its continuation by the model in `folder`; equal arguments give equal text on one machine.

    Args:
        temperature: 0 (the likeliest token each time), or 0.01 or more; 1 draws from the model's own distribution.

    Raises:
        UserError: the folder holds no model, or the prompt is empty, too long or no valid text.
    """
    if max_new_tokens < 1 or not (temperature == 0 or temperature >= MIN_TEMPERATURE):
        raise UserError(
            f"max_new_tokens={max_new_tokens}, temperature={temperature} cannot be used: give 1 or more tokens, and a "
            f"temperature of 0, or of {MIN_TEMPERATURE} or more."
        )
    _check_text(prompt)
    model, tokenizer = load_causal_model(folder), load_tokenizer(folder)
    ids = torch.tensor([tokenizer(prompt)["input_ids"]], dtype=torch.long)
    _check_length(ids.shape[1], max_new_tokens, model.config.max_position_embeddings)
    torch.manual_seed(seed)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        **sampling,
    )
    return str(tokenizer.decode(output[0], skip_special_tokens=True))


def _check_text(prompt: str) -> None:
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the prompt is not valid UTF-8 at character {error.start + 1}: give it as UTF-8.") from error


def _check_length(num_prompt_tokens: int, max_new_tokens: int, limit: int) -> None:
    if num_prompt_tokens == 0:
        raise UserError("the prompt is empty: give some text to continue.")
    if num_prompt_tokens + max_new_tokens > limit:
        room = limit - num_prompt_tokens
        way_out = f"Ask for {room} or fewer." if room > 0 else "Shorten the prompt."
        raise UserError(
            f"max_new_tokens={max_new_tokens} cannot be used: the prompt has {num_prompt_tokens} tokens and the model "
            f"was trained on {limit} positions. {way_out}"
        )


def command(args: argparse.Namespace) -> int:
    """`pretrain generate`: reads `model prompt max_new_tokens temperature seed json` of `args`."""
    text = generate(
        Path(args.model), args.prompt, max_new_tokens=args.max_new_tokens, temperature=args.temperature, seed=args.seed
    )
    print(json.dumps({"prompt": args.prompt, "text": text}) if args.json else text)
    return 0
