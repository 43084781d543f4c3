"""Attention of the ONNX reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from tests.helpers import assert_close, assert_identical, compute, step_values
from tests.oracles.tensors import coins, floats, merged, stream

pytestmark = [pytest.mark.usefixtures("own_stream"), pytest.mark.uncounted]
INF = math.inf
B, H, G, N, M, D, C, P = 2, 6, 3, 4, 5, 7, 9, 8  # batch, heads, kv heads, queries, keys, width of q and k, of v, past
BROADCASTS = [(M,), (N, 1), (N, M), (H, N, M), (1, H, 1, M), (B, 1, N, M), (B, H, N, M)]


# Run on onnx 1.23.2 (opset 28; Attention at 23, 24 and 25), whose reference has causal offsets and zeros for empty
# rows (onnx #8068) and cap before mask (#7867); older releases give other figures for the same opset. Figures are
# float64. Attributes are float32, and so is the root of a scale, hence 0.5625 = 0.75². It multiplies q and k each by √scale, which
# rounds differently from scaling the scores: rtol 1e-12 with a little atol where a sum cancels.
ONNX_INPUTS = ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")
ONNX_TYPES = {
    "bool": onnx.TensorProto.BOOL,
    "int64": onnx.TensorProto.INT64,
    "float32": onnx.TensorProto.FLOAT,
    "float64": onnx.TensorProto.DOUBLE,
}


def onnx_attention(
    opset: int, inputs: dict[str, Any], outputs: tuple[str, ...] = ("Y",), **attributes: Any
) -> list[np.ndarray]:
    """The named outputs, of (Y, present_key, present_value, qk), by onnx's reference evaluator."""
    fed = {name: np.asarray(x) for name, x in inputs.items()}
    names = [name if name in fed else "" for name in ONNX_INPUTS]
    while not names[-1]:
        names.pop()
    slots = [name if name in outputs else "" for name in ("Y", "present_key", "present_value", "qk")]
    while not slots[-1]:
        slots.pop()
    node = helper.make_node("Attention", names, slots, **attributes)
    graph = helper.make_graph(
        [node],
        "attention",
        [helper.make_tensor_value_info(name, ONNX_TYPES[str(x.dtype)], x.shape) for name, x in fed.items()],
        [helper.make_tensor_value_info(name, ONNX_TYPES[str(fed["Q"].dtype)], None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return list(ReferenceEvaluator(model).run(list(outputs), fed))


def onnx_qkv(
    g: torch.Generator, rank: int, kv_heads: int = G
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """(ONNX's inputs, its attributes, our fields, our choices, (B, H, T, d) arrays) of one random q, k, v, of rank 3 or 4."""
    x = {"q": floats(g, B, H, N, D), "k": floats(g, B, kv_heads, M, D), "v": floats(g, B, kv_heads, M, C)}
    laid = {n: (merged(t) if rank == 3 else t).numpy() for n, t in x.items()}
    attributes = {"q_num_heads": H, "kv_num_heads": kv_heads} if rank == 3 else {}
    choices = {"heads": H, "kv_heads": kv_heads} if rank == 3 else {}
    return {n.upper(): a for n, a in laid.items()}, attributes, dict(laid), choices, x


def onnx_case(name: str, g: torch.Generator) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(ONNX's further inputs, its attributes, our fields, our choices)"""
    kind, _, rank = name.partition(" ")
    causal = {"mask": "causal", "align": "top-left"}
    if kind in ("bool", "float", "causal-bool", "causal-float"):
        shape = BROADCASTS[int(rank)]
        mask = coins(g, *shape).numpy()
        if kind.endswith("float"):
            mask = np.where(mask, floats(g, *shape).numpy(), -INF)
        told, chosen = ({"is_causal": 1}, causal) if kind.startswith("causal") else ({}, {})
        return {"attn_mask": mask}, told, {"bias" if kind.endswith("float") else "mask": mask}, chosen
    return {
        "plain": ({}, {}, {}, {}),
        "causal": ({}, {"is_causal": 1}, {}, causal),
        "scaled": ({}, {"scale": 0.5625}, {}, {"scale": 0.5625}),
        "softcap": ({}, {"softcap": 1.25}, {}, {"softcap": 1.25}),
        "causal softcap scaled": (
            {},
            {"softcap": 1.25, "scale": 0.5625, "is_causal": 1},
            {},
            {"softcap": 1.25, "scale": 0.5625, **causal},
        ),
    }[name]


ONNX_CASES = ["plain", "causal", "scaled", "softcap", "causal softcap scaled"]


# (N, 1) is left out: ONNX pads a mask that is shorter than the keys, and never repeats it along them.
ONNX_CASES += [f"{kind} {rank}" for kind in ("bool", "float") for rank in (0, 2, 3, 4, 5, 6)] + [
    "causal-bool 2",
    "causal-bool 6",
    "causal-float 3",
    "causal-float 5",
]


@pytest.mark.parametrize("opset", [23, 24, 25])
@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("name", ONNX_CASES)
def test_onnx_on_every_mask_and_rank(name: str, rank: int, opset: int) -> None:
    g = stream(600 + ONNX_CASES.index(name))
    inputs, attributes, fields, choices, _ = onnx_qkv(g, rank)
    further, told, ours, chosen = onnx_case(name, g)
    y, w = onnx_attention(opset, inputs | further, ("Y", "qk"), **attributes, **told, qk_matmul_output_mode=3)
    result = compute(fields | ours, **choices, **chosen)
    assert_close(step_values(result, "context" if rank == 3 else "head_context"), y, atol=1e-14)
    assert_close(step_values(result, "weights"), w, atol=1e-15)


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("rank", [3, 4])
def test_onnx_shares_kv_heads(rank: int, kv_heads: int) -> None:
    inputs, attributes, fields, choices, _ = onnx_qkv(stream(630), rank, kv_heads)
    (y,) = onnx_attention(24, inputs, **attributes, is_causal=1)
    result = compute(fields, **choices, mask="causal", align="top-left")
    assert_close(step_values(result, "context" if rank == 3 else "head_context"), y, atol=1e-14)


@pytest.mark.parametrize("masked", ["", "causal", "bool", "float"])
@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("opset", [23, 25])
def test_onnx_with_a_past(opset: int, rank: int, masked: str) -> None:
    """New queries count on from the past: causal sees P + i + 1 keys. A mask is over past and new keys."""
    g = stream(640)
    inputs, attributes, fields, choices, x = onnx_qkv(g, rank)
    past_k, past_v = floats(g, B, G, P, D).numpy(), floats(g, B, G, P, C).numpy()
    mask = coins(g, N, P + M).numpy()
    bias = np.where(mask, floats(g, N, P + M).numpy(), -INF)
    told = {"": {}, "causal": {}, "bool": {"attn_mask": mask}, "float": {"attn_mask": bias}}[masked]
    ours = {"": {}, "causal": {}, "bool": {"mask": mask}, "float": {"bias": bias}}[masked]
    y, present_k, present_v, w = onnx_attention(
        opset,
        inputs | {"past_key": past_k, "past_value": past_v} | told,
        ("Y", "present_key", "present_value", "qk"),
        **attributes,
        is_causal=int(masked == "causal"),
        qk_matmul_output_mode=3,
    )
    result = compute(
        {**fields, "past": {"k": past_k, "v": past_v}, **ours},
        **choices,
        mask="causal" if masked == "causal" else "full",
    )
    assert_close(step_values(result, "context" if rank == 3 else "head_context"), y, atol=1e-14)
    assert_close(step_values(result, "weights"), w, atol=1e-15)
    assert_identical(step_values(result, "present_k"), present_k)
    assert_identical(step_values(result, "present_v"), present_v)
    assert_identical(step_values(result, "k"), x["k"])  # the new keys alone
    assert result["present_k"].axes == ("batch", "kv_head", "key", "dim")
    assert result["k"].axes == ("batch", "kv_head", "new_key", "dim")


# Mode 0 is checked without softcap: with one, this release hands back the capped scores there too.
@pytest.mark.parametrize(
    ("mode", "softcap", "masked", "step"),
    [
        (0, None, "", "scaled_scores"),
        (0, None, "float", "scaled_scores"),
        (0, None, "causal", "scaled_scores"),
        (1, None, "float", "scaled_scores"),
        (1, 1.25, "", "softcapped_scores"),
        (1, 1.25, "float", "softcapped_scores"),
        (1, 1.25, "causal", "softcapped_scores"),
        (2, None, "finite", "biased_scores"),
        (2, 1.25, "finite", "biased_scores"),
        (2, None, "float", "masked_scores"),
        (2, 1.25, "float", "masked_scores"),
        (2, 1.25, "bool", "masked_scores"),
        (2, 1.25, "causal", "masked_scores"),
        (2, 1.25, "causal finite", "masked_scores"),
        (3, None, "", "weights"),
        (3, 1.25, "causal finite", "weights"),
    ],
)
@pytest.mark.parametrize("opset", [23, 24, 25])
def test_onnx_stages_are_our_steps(opset: int, mode: int, softcap: float | None, masked: str, step: str) -> None:
    g = stream(650 + mode)
    inputs, _, fields, _, _ = onnx_qkv(g, 4)
    mask, bias = coins(g, H, N, M).numpy(), floats(g, H, N, M).numpy()
    added = {
        "": {},
        "causal": {},
        "bool": mask,
        "finite": bias,
        "causal finite": bias,
        "float": np.where(mask, bias, -INF),
    }[masked]
    told = {"attn_mask": added} if isinstance(added, np.ndarray) else {}
    ours = {"mask" if masked == "bool" else "bias": added} if told else {}
    causal = masked.startswith("causal")
    (qk,) = onnx_attention(
        opset,
        inputs | told,
        ("qk",),
        is_causal=int(causal),
        qk_matmul_output_mode=mode,
        **({"softcap": softcap} if softcap else {}),
    )
    result = compute(
        fields | ours, softcap=softcap or "none", **({"mask": "causal", "align": "top-left"} if causal else {})
    )
    assert_close(step_values(result, step), qk, atol=1e-14)


@pytest.mark.parametrize("left", [-1, 0, 1, 3])
@pytest.mark.parametrize("right", [-1, 0, 2])
@pytest.mark.parametrize("how", ["", "causal", "past", "causal past", "nonpad", "causal nonpad", "mask a head"])
def test_onnx_windows(how: str, left: int, right: int) -> None:
    """left_window_size and right_window_size are new in opset 25; both count neighbours, -1 is no bound."""
    g = stream(660)
    inputs, _, fields, _, _ = onnx_qkv(g, 4)
    further: dict[str, Any] = {}
    ours: dict[str, Any] = {}
    if "past" in how:
        past_k, past_v = floats(g, B, G, P, D).numpy(), floats(g, B, G, P, C).numpy()
        further, ours = {"past_key": past_k, "past_value": past_v}, {"past": {"k": past_k, "v": past_v}}
    elif "nonpad" in how:
        further, ours = nonpad([5, 3])
    elif "mask" in how:
        further = ours = {"mask": coins(g, B, H, N, M).numpy()}
        further = {"attn_mask": further["mask"]}
    causal = "causal" in how
    y, w = onnx_attention(
        25,
        inputs | further,
        ("Y", "qk"),
        is_causal=int(causal),
        left_window_size=left,
        right_window_size=right,
        qk_matmul_output_mode=3,
    )
    choices = {} if "past" in how or "nonpad" in how else {"align": "top-left"}
    result = compute(
        fields | ours, mask=[f"window:left={left},right={right}", "causal" if causal else "full"], **choices
    )
    assert_close(step_values(result, "head_context"), y, atol=1e-14)
    assert_close(step_values(result, "weights"), w, atol=1e-15)


def nonpad(counts: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An external cache: so many keys of each batch item count, and the queries are the last N of them."""
    positions = [[n - N + i for i in range(N)] for n in counts]
    return {"nonpad_kv_seqlen": np.array(counts)}, {
        "lengths": counts,
        "positions": positions,
        "k_positions": list(range(M)),
    }


@pytest.mark.parametrize("counts", [[5, 4], [5, 2], [3, 1]])
@pytest.mark.parametrize("masked", ["", "bool", "float"])
@pytest.mark.parametrize("opset", [24, 25])
def test_onnx_nonpad_is_lengths_and_positions(opset: int, masked: str, counts: list[int]) -> None:
    """With fewer keys than queries the first queries stand before all keys, and see none."""
    g = stream(670)
    inputs, _, fields, _, _ = onnx_qkv(g, 4)
    further, ours = nonpad(counts)
    if masked:
        mask = coins(g, H, N, M).numpy() if masked == "bool" else floats(g, B, 1, N, M).numpy()
        further, ours = further | {"attn_mask": mask}, ours | {"mask" if masked == "bool" else "bias": mask}
    y, w = onnx_attention(opset, inputs | further, ("Y", "qk"), is_causal=1, qk_matmul_output_mode=3)
    result = compute(fields | ours, mask="causal")
    assert_close(step_values(result, "head_context"), y, atol=1e-14)
    assert_close(step_values(result, "weights"), w, atol=1e-15)
    first_rows = [N - n for n in counts]  # so many queries stand before all keys
    assert all(not step_values(result, "weights")[b, :, : max(n, 0)].any() for b, n in enumerate(first_rows))


@pytest.mark.parametrize("opset", [24, 25])
def test_onnx_nonpad_without_causal_is_lengths_alone(opset: int) -> None:
    inputs, _, fields, _, _ = onnx_qkv(stream(680), 4)
    y, w = onnx_attention(opset, inputs | {"nonpad_kv_seqlen": np.array([4, 1])}, ("Y", "qk"), qk_matmul_output_mode=3)
    result = compute({**fields, "lengths": [4, 1]})
    assert_close(step_values(result, "head_context"), y, atol=1e-14)
    assert_close(step_values(result, "weights"), w, atol=1e-15)


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("opset", [23, 24, 25])
def test_onnx_gives_zero_to_a_query_that_sees_nothing(opset: int, kind: str) -> None:
    g = stream(690)
    inputs, _, fields, _, _ = onnx_qkv(g, 4)
    mask = coins(g, H, N, M).numpy()
    mask[:, :, 0], mask[2, 1], mask[5, 3] = True, False, False
    added = mask if kind == "bool" else np.where(mask, floats(g, H, N, M).numpy(), -INF)
    y, w = onnx_attention(opset, {**inputs, "attn_mask": added}, ("Y", "qk"), qk_matmul_output_mode=3)
    result = compute({**fields, "mask" if kind == "bool" else "bias": added})
    assert_close(step_values(result, "head_context"), y, atol=1e-14)
    assert_close(step_values(result, "weights"), w, atol=1e-15)
    assert sorted({(h, i) for _, h, i in np.argwhere(~step_values(result, "weights").any(-1)).tolist()}) == [
        (2, 1),
        (5, 3),
    ]


@pytest.mark.parametrize("name", ["plain", "causal softcap scaled", "bool 6", "float 3"])
def test_onnx_in_float32(name: str) -> None:
    """Both sum in float32: 1e-5 of the value, 1e-6 of the values' size."""
    g = stream(695)
    inputs, _, fields, _, _ = onnx_qkv(g, 4)
    further, told, ours, chosen = onnx_case(name, g)

    def narrow(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {n: x if x.dtype == bool else x.astype(np.float32) for n, x in arrays.items()}

    y, w = onnx_attention(24, narrow(inputs | further), ("Y", "qk"), **told, qk_matmul_output_mode=3)
    result = compute(narrow(fields | ours), **chosen)
    assert step_values(result, "head_context").dtype == y.dtype == np.float32
    assert_close(step_values(result, "head_context"), y, rtol=1e-5, atol=1e-6)
    assert_close(step_values(result, "weights"), w, rtol=1e-5, atol=1e-6)
