"""transformers: the frequencies of every scaling, and what its models do with them."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers import assert_close, compute, draw_normal, step_values
from tests.parts.position_formulas import omegas

pytestmark = pytest.mark.usefixtures("own_stream")
B, H, G, N, M, D, E, C = 2, 6, 3, 4, 5, 8, 7, 9  # batch, heads, kv heads, queries, keys, width of q, of another k, of v
Q_POS, K_POS = [3, 0, 19, 8], [5, 4, 1, 2, 17]


# Its inv_freq, cos and sin are float32: at positions up to 199 angles are off by 2e-5 at most, hence the tolerance.
LONG = {"short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [2.0, 5.0, 9.0, 16.0]}
SCALINGS: dict[str, tuple[dict[str, Any], str, int]] = {  # rope_parameters, ours, the largest position
    "linear": ({"rope_type": "linear", "factor": 4.0}, "scaling=linear,factor=4", 199),
    "dynamic, short": ({"rope_type": "dynamic", "factor": 4.0}, "scaling=dynamic,factor=4,original=64", 60),
    "dynamic, at the bound": ({"rope_type": "dynamic", "factor": 4.0}, "scaling=dynamic,factor=4,original=64", 63),
    "dynamic, long": ({"rope_type": "dynamic", "factor": 4.0}, "scaling=dynamic,factor=4,original=64", 199),
    "yarn": ({"rope_type": "yarn", "factor": 4.0}, "scaling=yarn,factor=4,original=64", 199),
    "yarn, not truncated": (
        {"rope_type": "yarn", "factor": 32.0, "truncate": False, "beta_fast": 8.0, "beta_slow": 0.5},
        "scaling=yarn,factor=32,original=64,truncate=no,beta-fast=8,beta-slow=0.5",
        199,
    ),
    "yarn, a ramp beyond the last pair": (
        {"rope_type": "yarn", "factor": 4.0, "beta_slow": 0.001},
        "scaling=yarn,factor=4,original=64,beta-slow=0.001",
        199,
    ),
    "yarn, a ramp without width": (
        {"rope_type": "yarn", "factor": 4.0, "beta_slow": 10.5},  # 64 / 10.5 is less than 2π: no pair turns so often
        "scaling=yarn,factor=4,original=64,beta-slow=10.5",
        199,
    ),
    "yarn, one mscale of two": (
        {"rope_type": "yarn", "factor": 40.0, "mscale": 0.5},
        "scaling=yarn,factor=40,original=64,mscale=0.5",
        199,
    ),
    "yarn, attention factor": (
        {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.7},
        "scaling=yarn,factor=4,original=64,attention-factor=1.7",
        199,
    ),
    "yarn, mscale": (
        {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.6},
        "scaling=yarn,factor=40,original=64,mscale=1,mscale-all-dim=0.6",
        199,
    ),
    "llama3": (
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        "scaling=llama3,factor=8,original=64",
        199,
    ),
    "llama3, other bounds": (
        {"rope_type": "llama3", "factor": 3.0, "low_freq_factor": 2.0, "high_freq_factor": 30.0},
        "scaling=llama3,factor=3,original=64,low=2,high=30",
        199,
    ),
    "longrope, short": ({"rope_type": "longrope", "factor": 8.0, **LONG}, "scaling=longrope,factor=8,original=64", 63),
    "longrope, long": ({"rope_type": "longrope", "factor": 8.0, **LONG}, "scaling=longrope,factor=8,original=64", 64),
    "longrope, attention factor": (
        {"rope_type": "longrope", "factor": 8.0, "attention_factor": 1.3, **LONG},
        "scaling=longrope,factor=8,original=64,attention-factor=1.3",
        199,
    ),
    "proportional": (
        {"rope_type": "proportional", "partial_rotary_factor": 0.5, "factor": 2.0},
        "scaling=proportional,fraction=0.5,factor=2",
        199,
    ),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # transformers on its own names
@pytest.mark.parametrize("theta", [10000.0, 150.0])
@pytest.mark.parametrize("name", SCALINGS)
def test_scalings_are_rope_init_functions(name: str, theta: float) -> None:
    transformers = pytest.importorskip("transformers")
    llama = importlib.import_module("transformers.models.llama.modeling_llama")
    init = importlib.import_module("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS
    told, text, last = SCALINGS[name]
    if told["rope_type"] not in init:
        pytest.skip("this release of transformers has no such scaling")
    told = told | {"rope_theta": theta}
    if told["rope_type"] in ("yarn", "llama3", "longrope"):
        told |= {"original_max_position_embeddings": 64}
    config = transformers.LlamaConfig(
        hidden_size=H * D,
        num_attention_heads=H,
        num_key_value_heads=G,
        head_dim=D,
        max_position_embeddings=64,
        rope_parameters=told,
    )
    inv_freq, attention = init[told["rope_type"]](config, torch.device("cpu"), seq_len=last + 1)
    positions = torch.tensor([0, 3, last, 17])
    q, k = (torch.as_tensor(draw_normal(n, B, h, N, D)) for n, h in ((98, H), (99, G)))
    angles = (positions[:, None].double() * inv_freq.double()).repeat(1, 2)[None]
    expected = llama.apply_rotary_pos_emb(q, k, angles.cos() * attention, angles.sin() * attention)

    parameters = {"rope_short": LONG["short_factor"], "rope_long": LONG["long_factor"]} if "longrope" in name else {}
    fields = {"q": q, "k": k, "positions": positions, "parameters": parameters}
    result = compute(fields, position=f"rope:theta={theta},{text}")
    assert_close(step_values(result, "positioned_q"), expected[0], rtol=1e-4, atol=1e-4)
    assert_close(step_values(result, "positioned_k"), expected[1], rtol=1e-4, atol=1e-4)
    if last == 199 or told["rope_type"] == "longrope":  # and it is not plain RoPE
        plain = compute(fields | {"parameters": {}}, position=f"rope:theta={theta}")
        assert not np.allclose(step_values(plain, "positioned_q"), expected[0], atol=1e-2)


@pytest.mark.parametrize("model", ["llama", "gptj", "cohere2"])
def test_rotations_are_those_of_the_models(model: str) -> None:
    """Each model's own apply_rotary_pos_emb with exact cosines; Cohere's turns in float32."""
    modeling = pytest.importorskip(f"transformers.models.{model}.modeling_{model}")
    q, k = torch.as_tensor(draw_normal(100, B, H, N, D)), torch.as_tensor(draw_normal(101, B, G, N, D))
    positions = torch.tensor(Q_POS)
    angles = positions[:, None] * torch.as_tensor(omegas(D))
    if model == "gptj":  # (b, t, h, d), sin and cos once a pair

        def turn(x: Tensor) -> Tensor:
            return modeling.apply_rotary_pos_emb(x.transpose(1, 2), angles.sin()[None], angles.cos()[None]).transpose(
                1, 2
            )

        expected = turn(q), turn(k)
    else:
        twice = angles.repeat(1, 2) if model == "llama" else angles.repeat_interleave(2, -1)
        expected = modeling.apply_rotary_pos_emb(q, k, twice.cos()[None], twice.sin()[None])
    layout = "half" if model == "llama" else "interleaved"
    result = compute({"q": q, "k": k, "positions": positions}, position=f"rope:layout={layout}")
    tolerance = 1e-6 if model == "cohere2" else 1e-12

    assert_close(step_values(result, "positioned_q"), expected[0], rtol=tolerance, atol=tolerance)
    assert_close(step_values(result, "positioned_k"), expected[1], rtol=tolerance, atol=tolerance)
