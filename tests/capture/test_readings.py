"""What the numbers of tiny models are read as: each layer from hidden states, with the weights and the output that the model has."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from attncli.capture.model import dtype_throughout, use_eager
from tests.capture.tiny_models import IDS, capture, draw_parameters, make_model
from tests.helpers import compute

pytestmark = [pytest.mark.slow, pytest.mark.uncounted]

GPT2 = {"n_embd": 64, "n_head": 4, "n_layer": 2}
T5 = {"d_model": 64, "d_kv": 16, "num_layers": 2, "num_heads": 4, "d_ff": 64, "relative_attention_num_buckets": 8}
MPT = {"d_model": 64, "n_heads": 4, "n_layers": 2}
READINGS = {  # model → its configuration, and the choices of each layer beside heads and kv heads
    "bert": ({}, [{}, {}]),
    "gpt2": (GPT2, [{"mask": "causal"}] * 2),
    "llama": ({}, [{"mask": "causal", "position": "rope:theta=10000"}] * 2),
    "mistral": ({"sliding_window": 5}, [{"mask": "causal and window:left=4", "position": "rope:theta=10000"}] * 2),
    "gemma2": (
        {"sliding_window": 5, "query_pre_attn_scalar": 100},
        [
            {"mask": mask, "position": "rope:theta=10000", "softcap": 50.0, "scale": 0.1}
            for mask in ("causal and window:left=4", "causal")
        ],
    ),
    "qwen3": ({}, [{"mask": "causal", "position": "rope:theta=10000", "qk_norm": "rms:eps=1e-06"}] * 2),
    "olmo2": ({}, [{"mask": "causal", "position": "rope:theta=10000", "qk_norm": "rms:eps=1e-05,scope=full"}] * 2),
    "hunyuan_v1_dense": (
        {},
        [{"mask": "causal", "position": "rope:theta=10000", "qk_norm": "rms:eps=1e-05,at=after"}] * 2,
    ),
    "gpt_neox": ({}, [{"mask": "causal", "position": "rope:theta=10000,dims=4"}] * 2),
    "glm4": ({}, [{"mask": "causal", "position": "rope:theta=10000,layout=interleaved,dims=8"}] * 2),
    "cohere": ({}, [{"mask": "causal", "position": "rope:theta=500000,layout=interleaved"}] * 2),
    "phi3": ({}, [{"mask": "causal", "position": "rope:theta=10000"}] * 2),
    "bloom": ({"n_head": 4, "n_layer": 2}, [{"mask": "causal", "position": "alibi"}] * 2),
    "mpt": (MPT, [{"mask": "causal", "position": "alibi"}] * 2),
    "t5": (
        T5,
        [{"position": "t5:buckets=8,bidirectional=true", "scale": 1.0}] * 2
        + [{"mask": "causal", "position": "t5:buckets=8,bidirectional=false", "scale": 1.0}, {"scale": 1.0}] * 2,
    ),
}


SHOWN = {  # what each model is there for
    "bert": "separate projections",
    "gpt2": "packed by kind in a Conv1D",
    "llama": "rotary halves and grouped heads",
    "mistral": "a window",
    "gemma2": "soft cap and windows that differ by layer",
    "qwen3": "q and k norms before the rotation",
    "olmo2": "q and k norms over the whole projection",
    "hunyuan_v1_dense": "q and k norms after the rotation",
    "gpt_neox": "partial rotation and heads packed one by one",
    "glm4": "partial interleaved rotation",
    "cohere": "interleaved rotation",
    "phi3": "packed by kind",
    "bloom": "ALiBi",
    "mpt": "ALiBi by another way",
    "t5": "T5 buckets in encoder and decoder, and cross-attention",
}


@pytest.mark.parametrize("model_type", [pytest.param(name, id=f"{SHOWN[name]} of {name}") for name in READINGS])
def test_a_model_is_read_from_hidden_states(model_type):
    config, expected = READINGS[model_type]

    layers = capture(make_model(model_type, **config))

    assert [layer.depth for layer in layers] == ["hidden"] * len(expected)
    assert [without_heads(layer.choices) for layer in layers] == expected
    assert all(layer.proven == ("weights", "output") and layer.largest_difference < 1e-5 for layer in layers)


def without_heads(choices):
    return {name: value for name, value in choices.items() if name not in ("heads", "kv_heads")}


def test_grouped_heads_and_packed_layouts_are_the_columns_of_one_matrix():
    """GPT-NeoX packs head by head, Phi-3 all queries, then all keys, then all values."""
    neox, phi = make_model("gpt_neox"), make_model("phi3")

    [by_head, _], [by_kind, _] = capture(neox), capture(phi)

    packed = neox.layers[0].attention.query_key_value.weight.detach().numpy()  # (4 heads × (q, k, v) × 16, 64)
    np.testing.assert_array_equal(
        by_head.problem.parameters["w_k"], packed.reshape(4, 3, 16, 64)[:, 1].reshape(64, 64).T
    )
    packed = phi.layers[0].self_attn.qkv_proj.weight.detach().numpy()
    np.testing.assert_array_equal(by_kind.problem.parameters["w_v"], packed[64 + 32 :].T)
    assert (by_kind.heads, by_kind.kv_heads) == (4, 2)


def test_sinks_and_scaled_frequencies_are_the_models_own():
    model = make_model(
        "gpt_oss", num_local_experts=4, layer_types=["sliding_attention", "full_attention"], sliding_window=5
    )

    layers = capture(model)

    assert [layer.choices["mask"] for layer in layers] == ["causal and window:left=4", "causal"]
    np.testing.assert_array_equal(
        layers[0].problem.parameters["sinks"], model.layers[0].self_attn.sinks.detach().numpy()
    )
    assert all(layer.choices["sink"] == "given" and layer.proven == ("weights", "output") for layer in layers)


def test_cross_attention_has_the_encoders_tokens_as_memory():
    layers = capture(make_model("bart", num_hidden_layers=1, decoder_layers=1, d_model=64, decoder_attention_heads=4))

    assert [layer.name for layer in layers] == ["encoder.0", "decoder.0", "cross.0"]
    assert [layer.kind for layer in layers] == ["self", "self", "cross"]
    assert layers[2].problem.memory["embeddings"].shape == (2, 12, 64)
    assert all(layer.depth == "hidden" for layer in layers)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_is_hidden_on_either_side(side):
    ids = [IDS[0], [0] * 4 + IDS[1][:8] if side == "left" else IDS[1][:8] + [0] * 4]
    visible = [[int(i > 0) for i in row] for row in ids]

    for model_type in ("bert", "llama"):
        layers = capture(make_model(model_type), ids, visible)

        assert [layer.depth for layer in layers] == ["hidden", "hidden"]
        if side == "right":
            assert layers[0].problem.lengths.tolist() == [12, 8]
        else:
            assert not layers[0].problem.mask[1, ..., :4].any()


@pytest.mark.parametrize("model_type", ["bert", "llama", "qwen3", "gemma2", "t5"])
def test_float64_holds_from_construction_to_the_end_of_the_pass(model_type):
    with dtype_throughout("float64"):
        layers = capture(make_model(model_type, **(T5 if model_type == "t5" else {})).double(), dtype="float64")

    assert all(layer.depth == "hidden" and layer.largest_difference < 1e-10 for layer in layers)


def test_from_qkv_begins_with_what_enters_the_attention_function():
    [layer, _] = capture(make_model("llama"), depth="qkv")

    assert layer.depth == "qkv"
    assert (layer.problem.q.shape, layer.problem.k.shape) == ((2, 4, 12, 16), (2, 2, 12, 16))
    assert layer.choices == {"mask": "causal"}


def test_what_stands_between_context_and_output_is_told():
    """A gate before W_o: weights and context are exact, the output is not ours."""
    [layer, *_] = capture(make_model("afmoe", num_local_experts=4, num_dense_layers=2))

    assert layer.proven == ("weights", "context")
    assert layer.unread == "what enters the output projection is not the context"


def test_a_layer_that_is_changed_is_not_right_any_more():
    """The proof would notice: one number of a matrix is moved."""
    [layer, _] = capture(make_model("llama"))
    problem = layer.problem
    fields = {
        "embeddings": problem.embeddings,
        "parameters": {**problem.parameters, "w_k": problem.parameters["w_k"] + np.eye(64, 32) * 1e-3},
    }

    weights = compute(fields, **problem.variant)["weights"].values
    difference = np.abs(np.asarray(weights) - problem.expected["weights"]["values"]).max()

    assert difference > 1e-5


def test_one_layers_tensors_are_held_at_a_time():
    """While a layer is handed on, no tensor of an earlier one is alive."""
    import gc
    import weakref

    alive = []
    model = make_model("llama", num_hidden_layers=4)

    from attncli.capture.recorder import Recorder

    seen = []

    def on_layer(call):
        gc.collect()
        seen.append(sum(reference() is not None for reference in alive))
        alive.append(weakref.ref(call.weights))

    with torch.no_grad(), (recorder := Recorder(model, on_layer)).recording(batch_size=2, traced=False):
        model(torch.tensor(IDS))

    assert recorder.interface_call_count == 4
    assert seen == [0, 0, 0, 0]


def test_a_problem_is_what_is_written_and_read_back(tmp_path):
    from attncli import read
    from attncli.writers.problem import PROBLEM_FORMATS, write_problem

    [layer, _] = capture(make_model("llama"))

    for format in PROBLEM_FORMATS:
        path = tmp_path / f"layer.{format}"
        path.write_bytes(write_problem(layer.problem, format))
        problem = read(str(path))
        np.testing.assert_array_equal(np.float32(problem.embeddings), layer.problem.embeddings)
        np.testing.assert_array_equal(np.float32(problem.parameters["w_q"]), layer.problem.parameters["w_q"])
        assert problem.variant == json.loads(json.dumps(layer.problem.variant))
        assert problem.about["module"] == "layers.0.self_attn"


def test_attention_over_windows_is_read_per_window():
    from transformers import DonutSwinConfig, DonutSwinModel

    config = DonutSwinConfig(image_size=32, patch_size=4, embed_dim=24, depths=[2], num_heads=[2], window_size=4)
    use_eager(config)
    model = DonutSwinModel(config).eval()
    draw_parameters(model)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))

    layers = capture(model, inputs={"pixel_values": pixels})

    assert [(layer.depth, layer.heads, layer.proven) for layer in layers] == [("hidden", 2, ("weights", "output"))] * 2
    assert layers[0].problem.embeddings.shape == (3 * 4, 16, 24)  # four windows of 4 × 4 patches an image
