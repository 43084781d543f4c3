"""Learned arrays as frameworks keep them: each name is read as its framework computes with it, and what is open is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import attncli
from attncli.errors import InputError
from attncli.framework_arrays import FRAMEWORK_ARRAYS
from tests.helpers import ROOT, assert_close, compute, draw_normal, softmax, step_values

pytestmark = pytest.mark.usefixtures("own_stream")
T, S, E, H, G, D = 5, 4, 12, 6, 3, 2  # queries, keys of a memory, width, heads, kv heads, width of one
X = draw_normal(130, T, E)


def mha(**options: Any) -> nn.MultiheadAttention:
    """PyTorch's own layer, with biases that are not 0."""
    torch.manual_seed(3)
    layer = nn.MultiheadAttention(E, H, batch_first=True, dtype=torch.float64, **options)
    for p in layer.parameters():
        nn.init.normal_(p, std=0.5)
    return layer.eval()


# ── nn.MultiheadAttention ────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("bias", [True, False])
def test_the_state_dict_of_multihead_attention_is_its_layer(bias):
    layer = mha(bias=bias)
    x = torch.from_numpy(X)
    output, weights = layer(x, x, x, average_attn_weights=False)
    result = compute({"embeddings": X, "parameters": layer.state_dict()}, heads=H)
    assert_close(step_values(result, "weights"), weights)
    assert_close(step_values(result, "output"), output)
    assert result.variant["projection"] == "given:qkv=3hd"


def test_keys_and_values_of_another_width():
    """Their matrices stand apart, and the bias is packed all the same."""
    layer = mha(kdim=7, vdim=7)
    memory = draw_normal(131, S, 7)
    x, y = torch.from_numpy(X), torch.from_numpy(memory)
    fields = {"embeddings": X, "memory": {"embeddings": memory}, "parameters": layer.state_dict()}
    result = compute(fields, heads=H)
    assert_close(step_values(result, "output"), layer(x, y, y)[0])


def test_gradients_reach_the_packed_array():
    layer, x = mha(), torch.from_numpy(X)
    parameters = dict(layer.named_parameters())
    result = attncli.attend(attncli.Problem(embeddings=x, parameters=parameters), attncli.Variant(heads=H))
    ours = torch.autograd.grad(result["output"].values.square().sum(), layer.in_proj_weight)[0]
    theirs = torch.autograd.grad(layer(x, x, x)[0].square().sum(), layer.in_proj_weight)[0]
    assert_close(ours, theirs, rtol=1e-10)


def test_w_layout_says_nothing_of_a_frameworks_names():
    layer = mha()
    fields = {"embeddings": X, "parameters": layer.state_dict()}
    want = step_values(compute(fields, heads=H), "output")
    for w_layout in ("in-out", "out-in"):
        assert_close(step_values(compute({**fields, "w_layout": w_layout}, heads=H), "output"), want)


# ── TransformerLens ──────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kv_heads", [H, G])
def test_matrices_of_transformer_lens(kv_heads):
    """Its einsums, retyped: each head has a matrix of its own; grouped keys and values are named _W_K and _W_V."""
    grouped = "_" if kv_heads < H else ""
    p = {
        "W_Q": draw_normal(132, H, E, D),
        "b_Q": draw_normal(133, H, D),
        f"{grouped}W_K": draw_normal(134, kv_heads, E, D),
        f"{grouped}b_K": draw_normal(135, kv_heads, D),
        f"{grouped}W_V": draw_normal(136, kv_heads, E, D),
        f"{grouped}b_V": draw_normal(137, kv_heads, D),
        "W_O": draw_normal(138, H, D, E),
        "b_O": draw_normal(139, E),
    }
    q = np.einsum("te,hed->thd", X, p["W_Q"]) + p["b_Q"]
    k, v = (np.einsum("te,hed->thd", X, p[f"{grouped}W_{x}"]) + p[f"{grouped}b_{x}"] for x in "KV")
    k, v = (np.repeat(x, H // kv_heads, 1) for x in (k, v))
    pattern = softmax(np.einsum("qhd,khd->hqk", q, k) / np.sqrt(D))
    output = np.einsum("hqk,khd,hde->qe", pattern, v, p["W_O"]) + p["b_O"]

    result = compute({"embeddings": X, "parameters": p})
    assert (result.variant["heads"], result.variant["kv_heads"]) == (H, kv_heads)
    assert_close(step_values(result, "weights"), pattern)
    assert_close(step_values(result, "output"), output, rtol=1e-11)


# ── packed arrays ────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kv_heads", [H, G, 1])
@pytest.mark.parametrize("layout", ["3hd", "h3d"])
def test_a_packed_array_is_cut_as_it_lies(layout, kv_heads):
    """Rows are numbered by what they are, laid out by hand, and found again."""
    w, b = {}, {}
    for x, n in (("q", H), ("k", kv_heads), ("v", kv_heads)):
        w[x], b[x] = draw_normal(140 + n, n, D, E), draw_normal(150 + n, n, D)
    if layout == "3hd":
        rows = [(x, head) for x, n in (("q", H), ("k", kv_heads), ("v", kv_heads)) for head in range(n)]
    else:
        shared = H // kv_heads
        rows = [
            row
            for g in range(kv_heads)
            for row in (*(("q", head) for head in range(g * shared, (g + 1) * shared)), ("k", g), ("v", g))
        ]
    packed = {
        "query_key_value.weight": np.concatenate([w[x][head] for x, head in rows]),
        "query_key_value.bias": np.concatenate([b[x][head] for x, head in rows]),
    }
    separate = {f"w_{x}": w[x].reshape(-1, E).T for x in "qkv"} | {f"b_{x}": b[x].ravel() for x in "qkv"}
    choices = {"heads": H, "kv_heads": kv_heads}
    want = compute({"embeddings": X, "parameters": separate}, **choices)
    got = compute({"embeddings": X, "parameters": packed}, projection=f"given:qkv={layout}", **choices)
    for step in ("q", "k", "v", "context"):
        assert_close(step_values(got, step), step_values(want, step))
    if kv_heads == 1:  # both layouts are one, so that nothing is open
        assert_close(
            step_values(compute({"embeddings": X, "parameters": packed}, **choices), "v"), step_values(want, "v")
        )


@pytest.mark.parametrize("turned", [False, True], ids=["GPT-2", "nanoGPT"])
def test_c_attn_lies_as_its_sizes_say(turned):
    """Conv1D computes x @ W, nn.Linear x @ W.T; the square c_proj follows c_attn."""
    w, out = draw_normal(160, E, 3 * E), draw_normal(161, E, E)
    parameters = {"c_attn.weight": w.T if turned else w, "c_proj.weight": out.T if turned else out}
    result = compute({"embeddings": X, "parameters": parameters}, heads=H)
    assert_close(step_values(result, "q").swapaxes(0, 1).reshape(T, E), X @ w[:, :E])
    assert_close(step_values(result, "output"), step_values(result, "context") @ out)


def test_kv_heads_follow_from_the_sizes():
    p = {
        "q_proj.weight": (H * D, E),
        "k_proj.weight": (G * D, E),
        "v_proj.weight": (G * D, E),
        "o_proj.weight": (E, H * D),
    }
    parameters = {name: draw_normal(170, *shape) for name, shape in p.items()}
    assert compute({"embeddings": X, "parameters": parameters}, heads=H).variant["kv_heads"] == G
    packed = {"qkv_proj.weight": draw_normal(171, (H + 2 * G) * D, E), "o_proj.weight": draw_normal(172, E, H * D)}
    assert compute({"embeddings": X, "parameters": packed}, heads=H).variant["kv_heads"] == G


def test_of_q_k_and_v_that_are_given_only_the_output_layer_is_applied():
    q = draw_normal(173, H, T, D)
    parameters = {"out_proj.weight": draw_normal(174, E, H * D), "in_proj_weight": draw_normal(175, 3 * E, E)}
    result = compute({"q": q, "k": q, "v": q, "layout": "htd", "parameters": parameters})
    assert_close(step_values(result, "output"), step_values(result, "context") @ parameters["out_proj.weight"].T)
    assert result.warnings == ("unused-field: parameters.in_proj_weight is not used by this variant",)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────
PACKED, SQUARE = np.ones((3 * E, E)), np.ones((E, E))
REFUSED = {
    "heads": ({"in_proj_weight": PACKED}, {}, "missing-heads", "--heads 1 for a single head"),
    "order": (
        {"query_key_value.weight": PACKED},
        {"heads": H},
        "two-readings",
        "choose one: --projection given:qkv=3hd, or --projection given:qkv=h3d",
    ),
    "order of grouped heads": (
        {"wqkv.weight": PACKED},
        {"heads": 4, "kv_heads": 1 + 3},
        "two-readings",
        "given:qkv=h3d",
    ),
    "unequal parts": ({"in_proj_weight": PACKED}, {"heads": 5}, "heads-mismatch", "--heads 1, 2, 3, 4, 6 or 12"),
    "a part is missing": (
        {"q_proj.weight": SQUARE, "v_proj.weight": SQUARE},
        {"heads": H},
        "missing-parameters",
        "a layer that has one of them has all three",
    ),
    "the same twice": (
        {"in_proj_weight": PACKED, "w_k": SQUARE},
        {"heads": H},
        "two-sources",
        "leave w_k or in_proj_weight out",
    ),
    "two outputs": (
        {"in_proj_weight": PACKED, "o_proj.weight": SQUARE, "out_proj.weight": SQUARE},
        {"heads": H},
        "two-sources",
        "leave o_proj.weight or out_proj.weight out",
    ),
    "W_Q alone": ({"W_Q": np.ones((4, E, 3))}, {"heads": H}, "missing-parameters", ""),
    "heads of W_Q": (
        {"W_Q": np.ones((4, E, 3)), "W_K": np.ones((4, E, 3)), "W_V": np.ones((4, E, 3))},
        {"heads": H},
        "heads-mismatch",
        "",
    ),
    "another width": (
        {"in_proj_weight": np.ones((30, 10))},
        {"heads": 5},
        "shape-mismatch",
        "embeddings are what goes into this layer",
    ),
    "c_attn without longer side": ({"c_attn.weight": SQUARE}, {"heads": 2}, "wrong-shape", "cut it into w_q"),
    "c_proj alone": ({"w_q": SQUARE, "c_proj.weight": SQUARE}, {"heads": 2}, "wrong-shape", "give it as w_o"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_open_or_does_not_fit_is_refused(what):
    parameters, choices, code, help = REFUSED[what]
    with pytest.raises(InputError) as refused:
        compute({"embeddings": X, "parameters": parameters}, **choices)
    assert refused.value.code == code
    assert help in refused.value.help


@pytest.mark.parametrize(
    ("wide", "said"),
    [
        ("q", r"q_proj\.weight takes 5 columns, but the embeddings have 12"),
        ("k", r"k_proj\.weight takes 5 columns, but the memory have 7"),
    ],
)
def test_a_matrix_that_does_not_fit_is_held_against_what_it_takes(wide, said):
    widths = {"q": E, "k": 7, "v": 7} | {wide: 5}
    parameters = {f"{x}_proj.weight": np.ones((E, n)) for x, n in widths.items()}

    with pytest.raises(InputError, match=said):
        compute({"embeddings": X, "memory": {"embeddings": np.ones((2, 7))}, "parameters": parameters}, heads=H)


@pytest.mark.parametrize("name", ["in_proj_weight", "c_attn", "q_proj.weight", "qkv"])
def test_a_frameworks_name_beside_the_embeddings_is_sent_into_its_group(name):
    with pytest.raises(InputError, match="has no field") as refused:
        attncli.validation.fields.find_field(name)
    assert '"parameters": {"' in refused.value.help


def test_every_name_stands_in_the_documentation():
    page = (ROOT / "docs/file-format.md").read_text(encoding="utf-8")
    for name in FRAMEWORK_ARRAYS:
        assert f"`{name.removesuffix('.weight').removesuffix('.bias')}`" in page or f"`{name}`" in page, name


def test_the_name_of_a_layer_leads_to_its_weight():
    for name, help in {
        "c_attn": "did you mean 'c_attn.weight'?",
        "W_query": "did you mean 'w_q', which is laid out as w_layout says, or 'W_query.weight', as its framework stores it?",
    }.items():
        with pytest.raises(InputError, match="no part has a parameter called") as refused:
            compute({"embeddings": X, "parameters": {name: SQUARE}})
        assert refused.value.help == help
