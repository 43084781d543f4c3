"""Tiny random models of real architectures: small enough to be made in a test, and drawn so that a wrong reading is seen."""

from __future__ import annotations

import torch

from attncli.capture.model import Tokens, use_eager
from attncli.capture.request import CaptureRequest
from attncli.capture.run import CaptureCallbacks, capture_model, make_inputs

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": 128,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
IDS = torch.randint(3, 90, (2, 12), generator=torch.Generator().manual_seed(7)).tolist()


def make_model(model_type: str, *, head: bool = False, **changed: object):
    """Make a model of a type. Its arrays are drawn large and its biases and gains moved: at their defaults all weights are nearly uniform.

    Args:
        model_type: as transformers has it.
        head: whether it has the head that says the next token; its text then has no end unless one is given.
        changed: fields of its configuration.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = AutoConfig.for_model(model_type, **SIZES | ({"eos_token_id": None} if head else {}) | changed)
    use_eager(config)
    loader = (AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM) if head else AutoModel
    model = loader.from_config(config, attn_implementation="eager").eval()
    draw_parameters(model)
    return model


def draw_parameters(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.requires_grad:  # such as a table of sinusoids
                continue
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
            if parameter.dim() >= 2 and parameter.numel():
                parameter.copy_(noise * max(parameter[0].numel(), 1) ** -0.5)
            else:
                parameter.add_(noise * 0.25)


def capture(model, ids=None, visible=None, depth="hidden", dtype="float32", inputs=None):
    """Capture every layer of a model; none may be left out."""
    ids = IDS if ids is None else ids
    tokens = Tokens(ids, visible or [[1] * len(row) for row in ids], [[f"t{i}" for i in row] for row in ids])
    layers, unread = [], []
    request = CaptureRequest(depth=depth, dtype=dtype)
    callbacks = CaptureCallbacks(layers.append, lambda *why: unread.append(why))
    given = make_inputs(model, "tiny", tokens) if inputs is None else inputs
    capture_model(model, "tiny", request, tokens, callbacks, given)
    assert unread == []
    return layers
