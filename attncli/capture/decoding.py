"""Let a model continue its text by the likeliest tokens, and stop before the step that is to be captured. Entry: `continue_text`."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attncli.capture.model import Tokens, find_start
from attncli.errors import InputError
from attncli.types import Json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass
class DecodeStep:
    """The step that reads the last of the generated tokens, and the cache before it."""

    inputs: Json  # of the step
    whole_inputs: Json  # of a pass over the same tokens, without a cache
    past_length: int  # tokens before that of the step
    labels: list[str]  # of all tokens, that of the step included
    generated: list[str]


def continue_text(model: PreTrainedModel, name: str, tokens: Tokens, count: int) -> DecodeStep:
    """Generate tokens, each the likeliest, and return the step that reads the last of them.

    Args:
        model: with the head that says the next token.
        name: of the model.
        tokens: of one text; an encoder reads it where there is one.
        count: how many tokens to generate.

    Raises:
        InputError: the model keeps no cache; or it ends its text earlier.
    """
    import torch

    is_pair = bool(model.config.is_encoder_decoder)
    ids = torch.tensor(tokens.ids)
    text: Json = {"input_ids": ids}
    accepted = inspect.signature(model.forward).parameters
    if "attention_mask" in accepted:
        text["attention_mask"] = torch.ones_like(ids)
    if is_pair:
        start = torch.full_like(ids[:, :1], find_start(model))
        read, inputs = start, {**text, "decoder_input_ids": start}
    else:
        read, inputs = ids, text
    generated: list[int] = []
    with torch.no_grad():
        while True:
            output = model(**inputs, use_cache=True, return_dict=True)
            if output.get("past_key_values") is None:
                message = f"{name} keeps no cache of keys and values, so it has no decode step"
                raise InputError("no-decode-step", message, help="leave --decode out")
            token = output["logits"][:, -1].argmax(-1, keepdim=True)
            generated.append(int(token))
            inputs = _next_inputs(output, token, text, read, is_pair=is_pair)
            if len(generated) == count:
                break
            if int(token) in _ends_of_text(model):
                raise InputError(
                    "out-of-range",
                    f"{name} ends its text after {len(generated)} of the {count} tokens",
                    help=f"--decode {len(generated)}",
                )
            read = torch.cat([read, token], -1)
    labels = tokens.label_ids(generated)
    whole = torch.cat([read, token], -1)
    if is_pair:
        return DecodeStep(
            inputs,
            {**text, "decoder_input_ids": whole},
            read.shape[1],
            [*tokens.label_ids(start[0].tolist()), *labels],
            labels,
        )
    whole_inputs: Json = {"input_ids": whole}
    if "attention_mask" in text:
        whole_inputs["attention_mask"] = torch.ones_like(whole)
    return DecodeStep(inputs, whole_inputs, read.shape[1], [*tokens.labels[0], *labels], labels)


def _next_inputs(output: Json, token: torch.Tensor, text: Json, read: torch.Tensor, *, is_pair: bool) -> Json:
    """Return what the step is called with that reads a token after those that were read."""
    import torch

    inputs: Json = {"past_key_values": output["past_key_values"]}
    if is_pair:
        from transformers.modeling_outputs import BaseModelOutput

        encoded = BaseModelOutput(last_hidden_state=output["encoder_last_hidden_state"])
        return inputs | {"encoder_outputs": encoded, "decoder_input_ids": token} | _mask_of(text)
    inputs["input_ids"] = token
    if "attention_mask" in text:
        inputs["attention_mask"] = torch.ones(1, read.shape[1] + 1, dtype=torch.long)
    return inputs


def _mask_of(text: Json) -> Json:
    return {"attention_mask": text["attention_mask"]} if "attention_mask" in text else {}


def _ends_of_text(model: PreTrainedModel) -> set[int]:
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = getattr(model.config, "eos_token_id", None) if ends is None else ends
    return set(ends) if isinstance(ends, list | tuple) else set() if ends is None else {ends}
