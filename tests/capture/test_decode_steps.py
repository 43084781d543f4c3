"""A decode step: the model has generated tokens, and the last of them attends to a cache."""

from __future__ import annotations

import json

import numpy as np
import pytest

from attncli.capture.model import Tokens, dtype_throughout
from attncli.capture.request import CaptureRequest
from attncli.capture.run import CaptureCallbacks, capture_decode_step
from attncli.errors import InputError
from tests.capture.test_readings import GPT2, MPT, T5
from tests.capture.tiny_models import IDS, make_model

pytestmark = [pytest.mark.slow, pytest.mark.uncounted]

GENERATED = 3
BART = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 64, "decoder_attention_heads": 4}
STEPS = {  # model → its configuration, and the choices of its layers beside heads, kv heads and scale
    "llama": ({}, {"position": "rope:theta=10000"}),
    "qwen3": ({}, {"position": "rope:theta=10000", "qk_norm": "rms:eps=1e-06"}),
    "cohere": ({}, {"position": "rope:theta=500000,layout=interleaved"}),
    "gpt_neox": ({}, {"position": "rope:theta=10000,dims=4"}),
    "gpt2": (GPT2, {}),
    "bloom": ({"n_head": 4, "n_layer": 2}, {"position": "alibi"}),
    "mpt": (MPT, {"position": "alibi"}),
}


def decode(model_type, count=GENERATED, dtype="float32", depth="hidden", **changed):
    """Capture every layer of a decode step."""
    model = make_model(model_type, head=True, **changed)
    if dtype == "float64":
        model = model.double()
    tokens = Tokens(IDS[:1], [[1] * 12], [[f"t{i}" for i in range(12)]])
    layers, unread = [], []
    request = CaptureRequest(generated_count=count, dtype=dtype, depth=depth)
    capture_decode_step(
        model, "tiny", request, tokens, CaptureCallbacks(layers.append, lambda *why: unread.append(why))
    )
    assert unread == []
    return layers


@pytest.mark.parametrize("model_type", STEPS)
def test_a_step_is_read_from_hidden_states_with_the_cache_before_it(model_type):
    config, expected = STEPS[model_type]

    layers = decode(model_type, **config)

    assert len(layers) == 2
    for layer in layers:
        problem = layer.problem
        choices = {name: x for name, x in layer.choices.items() if name not in ("heads", "kv_heads", "scale")}
        assert (layer.depth, layer.kind, choices) == ("hidden", "self", expected)
        assert layer.proven == ("weights", "output")
        assert layer.largest_difference < 1e-5
        assert problem.embeddings.shape == (1, 64)
        assert problem.past["k"].shape == (1, layer.kv_heads, 12 + GENERATED - 1, 16)
        assert problem.past["tokens"][:12] == [f"t{i}" for i in range(12)]
        assert problem.expected["weights"]["values"].shape == (4, 1, 12 + GENERATED)


def test_a_sliding_cache_has_dropped_keys_and_positions_say_which():
    sliding, whole = decode("gemma2", sliding_window=5)

    assert sliding.problem.past["k"].shape[2] == 4
    assert sliding.problem.positions.tolist() == [14]
    assert sliding.problem.k_positions.tolist() == [10, 11, 12, 13, 14]
    assert sliding.problem.past["tokens"][:2] == ["t10", "t11"]
    assert whole.problem.past["k"].shape[2] == 14
    assert whole.problem.k_positions is None
    assert [layer.depth for layer in (sliding, whole)] == ["hidden", "hidden"]


def test_a_decoder_continues_from_its_start_and_attends_to_what_the_encoder_read():
    own, cross = decode("bart", **BART)
    first, _, _, _ = decode("t5", **T5)

    assert [layer.name for layer in (own, cross)] == ["decoder.0", "cross.0"]
    assert (own.depth, own.problem.past["k"].shape[2], own.problem.past["tokens"][0]) == ("hidden", GENERATED, "2")
    assert (cross.depth, cross.problem.k.shape) == ("qkv", (4, 12, 16))
    assert cross.problem.k_tokens == [f"t{i}" for i in range(12)]
    assert cross.unread == "its projections do not run in a decode step: k and v come from the cache"
    assert first.choices["position"] == "t5:buckets=8,bidirectional=false"


def test_a_step_holds_in_float64():
    with dtype_throughout("float64"):
        layers = decode("llama", dtype="float64")

    assert all(layer.depth == "hidden" and layer.largest_difference < 1e-10 for layer in layers)


def test_a_step_from_qkv_has_the_cache_too():
    [layer, _] = decode("llama", depth="qkv")

    assert (layer.depth, layer.problem.q.shape, layer.problem.k.shape) == ("qkv", (4, 1, 16), (2, 1, 16))
    assert layer.problem.past["k"].shape == (1, 2, 14, 16)


def test_a_model_without_a_cache_and_one_that_ends_its_text_are_refused():
    with pytest.raises(InputError, match="keeps no cache") as no_cache:
        decode("bert")
    with pytest.raises(InputError, match="ends its text after 1 of the 3 tokens") as ended:
        decode("llama", eos_token_id=list(range(128)))

    assert (no_cache.value.code, ended.value.code, ended.value.help) == ("no-decode-step", "out-of-range", "--decode 1")


def test_a_step_is_captured_from_the_command_line_and_proves_itself(attn, tmp_path):
    make_model("llama", head=True, eos_token_id=None).save_pretrained(tmp_path / "tiny")
    make_model("llama").save_pretrained(tmp_path / "headless")
    make_model("vit").save_pretrained(tmp_path / "seeing")

    done = attn("capture", "tiny", "--ids", "5,6,7,8", "--decode", "2", "--layer", "1", "-o", "step.json")
    headless = attn("capture", "headless", "--ids", "5,6", "--decode", "2", "-o", "steps")
    seeing = attn("capture", "seeing", "--ids", "5,6", "--decode", "2", "-o", "steps")

    problem = json.loads((tmp_path / "step.json").read_text())
    generated = done.err.splitlines()[0]
    assert (
        generated
        == f"2 generated tokens: {problem['past']['tokens'][-1]} {problem['tokens'][0]}; the step reads the last"
    )
    assert problem["past"]["tokens"][:4] == ["5", "6", "7", "8"]
    assert np.shape(problem["past"]["k"]) == (1, 2, 5, 16)
    assert attn("check", "step.json").status == 0
    assert headless.err.startswith("error[missing-parameters]: the folder lacks the head that says the next token")
    assert seeing.err.startswith("error[no-decode-step]: seeing generates no text")
    assert not (tmp_path / "steps").exists()
