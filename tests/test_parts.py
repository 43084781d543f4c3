"""Every part held against its paper's formula retyped, and against libraries that compute the same.

No oracle here shares code with attncli. In float64 a formula agrees within rtol 1e-12; what a library computes in
float32 agrees within that, and the test says so. Sizes are pairwise different wherever a mix-up of axes could hide.
"""

from __future__ import annotations

import contextlib
import importlib
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attncli
from attncli.errors import AttnError, InputError, OptionError
from tests.conftest import compute

pytestmark = pytest.mark.usefixtures("one_thread", "own_stream")

INF = math.inf
B, H, G, N, M, D, E, C = 2, 6, 3, 4, 5, 8, 7, 9  # batch, heads, kv heads, queries, keys, width of q, of another k, of v


def values(result: attncli.Attention, step: str) -> Any:
    x = result[step].values
    return x.detach().numpy() if isinstance(x, Tensor) else x


def names(result: attncli.Attention) -> list[str]:
    return [step.name for step in result]


def same(actual: Any, expected: Any, rtol: float = 1e-12, atol: float = 1e-14) -> None:
    actual, expected = (np.asarray(x.detach() if isinstance(x, Tensor) else x) for x in (actual, expected))
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def identical(actual: Any, expected: Any) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def draw(seed: int, *shape: int) -> np.ndarray:
    return rng(seed).standard_normal(shape)


def heads_of(seed: int, d_k: int = D) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """q (B, H, N, D), k (B, H, M, d_k), v (B, H, M, C)"""
    return draw(seed, B, H, N, D), draw(seed + 1, B, H, M, d_k), draw(seed + 2, B, H, M, C)


def softmax(s: np.ndarray) -> np.ndarray:
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# ── scores: each the paper's formula, cell by cell ───────────────────────────────────────────────
def cells(q: np.ndarray, k: np.ndarray, score: Any) -> np.ndarray:
    """score(one query, one key) for every pair: (B, H, N, M)"""
    pairs = [
        [[[score(x, y) for y in kh] for x in qh] for qh, kh in zip(qb, kb, strict=True)]
        for qb, kb in zip(q, k, strict=True)
    ]
    return np.array(pairs)


A = 10  # hidden units of additive and concat
W_Q, W_K, V_A = draw(50, D, A), draw(51, E, A), draw(52, A)
SCORES: dict[str, tuple[str, int, dict[str, np.ndarray], Any]] = {
    "general": ("general", E, {"score_w_q": draw(53, D, E)}, lambda q, k: q @ draw(53, D, E) @ k),
    "additive": (  # Bahdanau et al. 2015, A.1.2: v · tanh(W q + U k)
        "additive",
        E,
        {"score_w_q": W_Q, "score_w_k": W_K, "score_v": V_A},
        lambda q, k: sum(V_A[a] * math.tanh(W_Q[:, a] @ q + W_K[:, a] @ k) for a in range(A)),
    ),
    "additive without parameters": ("additive", D, {}, lambda q, k: np.tanh(q + k).sum()),  # as Keras without scale
    "additive with v only": ("additive", D, {"score_v": draw(54, D)}, lambda q, k: draw(54, D) @ np.tanh(q + k)),
    "concat": (  # Luong et al. 2015, §3.1: v · tanh(W [q; k]), W one matrix over both
        "concat",
        E,
        {"score_w_q": W_Q, "score_w_k": W_K, "score_v": V_A},
        lambda q, k: V_A @ np.tanh(np.vstack([W_Q, W_K]).T @ np.concatenate([q, k])),
    ),
    "cosine": ("cosine", D, {}, lambda q, k: (q @ k) / math.sqrt((q @ q) * (k @ k))),
    "euclidean": ("euclidean", D, {}, lambda q, k: -sum((a - b) ** 2 for a, b in zip(q, k, strict=True))),
    "elu": ("kernel:phi=elu", D, {}, lambda q, k: phi_elu(q) @ phi_elu(k)),
    "default phi": ("kernel", D, {}, lambda q, k: phi_elu(q) @ phi_elu(k)),
    "relu": ("kernel:phi=relu", D, {}, lambda q, k: np.maximum(q, 0) @ np.maximum(k, 0)),
    "exp": ("kernel:phi=exp", D, {}, lambda q, k: np.exp(q) @ np.exp(k)),
}


def phi_elu(x: np.ndarray) -> np.ndarray:
    return F.elu(torch.as_tensor(x)).numpy() + 1


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_their_formula(name: str) -> None:
    part, d_k, parameters, formula = SCORES[name]
    q, k, v = heads_of(1, d_k)
    result = compute({"q": q, "k": k, "v": v, "parameters": parameters}, score=part)

    expected = cells(q, k, formula)
    same(values(result, "scores"), expected)
    assert "scaled_scores" not in names(result)  # auto is 1 for all but dot
    same(values(result, "weights"), softmax(expected))
    same(values(result, "head_context"), softmax(expected) @ v)
    assert not result.warnings


def test_cosine_of_a_zero_vector_is_zero() -> None:
    q, k = draw(2, N, D), draw(3, M, D)
    q[1], k[3] = 0, 0
    s = values(compute({"q": q, "k": k}, score="cosine"), "scores")

    identical(s[1], np.zeros(M))
    identical(s[:, 3], np.zeros(N))
    assert (np.delete(np.delete(s, 1, 0), 3, 1) != 0).all()


def test_cosine_does_not_overflow_and_does_not_see_lengths() -> None:
    q, k = draw(4, N, D), draw(5, M, D)
    s = values(compute({"q": q, "k": k}, score="cosine"), "scores")

    same(values(compute({"q": q * 2.0**300, "k": k * 2.0**-300}, score="cosine"), "scores"), s)


def test_general_with_fewer_kv_heads() -> None:
    q, k, w = draw(6, B, H, N, D), draw(7, B, G, M, E), draw(8, D, E)
    expected = np.einsum("bhnd,de,bhme->bhnm", q, w, k.repeat(H // G, 1))

    same(values(compute({"q": q, "k": k, "parameters": {"score_w_q": w}}, score="general"), "scores"), expected)


def test_linear_attention_is_the_recurrence_of_its_paper() -> None:
    """Katharopoulos et al. 2020, eq. 12 and 18–20: a state of keys' features and values, read by each query."""
    q, k, v = draw(9, M, D), draw(10, M, D), draw(11, M, C)
    result = compute({"q": q, "k": k, "v": v}, score="kernel", normalizer="sum", mask="causal")

    state, total = np.zeros((D, C)), np.zeros(D)
    for i in range(M):
        state, total = state + np.outer(phi_elu(k[i]), v[i]), total + phi_elu(k[i])
        same(values(result, "context")[i], phi_elu(q[i]) @ state / (phi_elu(q[i]) @ total))


def test_onnx_linear_attention_is_unnormalised_dot_attention() -> None:
    """onnx.reference LinearAttention, update_rule linear; it accumulates in float32, so within 1e-5."""
    onnx = pytest.importorskip("onnx")
    ops = importlib.import_module("onnx.reference")
    if not hasattr(onnx.defs, "has") or not onnx.defs.has("LinearAttention"):
        pytest.skip("this release of onnx has no LinearAttention")
    q, k, v = (draw(i, B, M, n).astype(np.float32) for i, n in ((12, H * D), (13, G * D), (14, G * C)))
    node = onnx.helper.make_node(
        "LinearAttention", ["q", "k", "v"], ["y", "s"], q_num_heads=H, kv_num_heads=G, update_rule="linear"
    )
    float_ = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info(n, float_, None) for n in "qkv"],
        [onnx.helper.make_tensor_value_info(n, float_, None) for n in "ys"],
    )
    version = onnx.defs.get_schema("LinearAttention").since_version
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)])
    expected, _ = ops.ReferenceEvaluator(model).run(None, {"q": q, "k": k, "v": v})

    fields = {"q": q.astype(np.float64), "k": k.astype(np.float64), "v": v.astype(np.float64)}
    result = compute(fields, heads=H, kv_heads=G, normalizer="none", mask="causal")
    same(values(result, "context"), expected, rtol=1e-5, atol=1e-5)


# ── positions on embeddings ──────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("theta", [10000.0, 50.0])
@pytest.mark.parametrize("layout", ["interleaved", "halves"])
def test_sinusoids_are_vaswanis(layout: str, theta: float) -> None:
    """Vaswani et al. 2017, §3.5: PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos; halves is tensor2tensor's."""
    x, positions = draw(15, B, N, D), np.array([[0, 1, 2, 3], [7, 0, 500, 3]])
    code = np.zeros((B, N, D))
    for b in range(B):
        for t, p in enumerate(positions[b]):
            for i in range(D // 2):
                angle = p / theta ** (2 * i / D)
                where = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, D // 2 + i)
                code[b, t, where[0]], code[b, t, where[1]] = math.sin(angle), math.cos(angle)
    w_q = draw(16, D, E)
    fields = {"embeddings": x, "positions": positions, "parameters": {"w_q": w_q, "w_k": w_q}}
    result = compute(fields, position=f"sinusoidal:layout={layout},theta={theta}")

    assert names(result)[0] == "positioned_embeddings"
    same(values(result, "positioned_embeddings"), x + code)
    same(values(result, "q"), (x + code) @ w_q)
    same(values(result, "v"), x + code)


def test_sinusoids_of_a_memory_are_at_its_own_positions() -> None:
    x, y = draw(17, N, D), draw(18, M, D)
    fields = {"embeddings": x, "memory": {"embeddings": y}, "positions": [3, 1, 4, 0], "k_positions": [2, 7, 1, 8, 5]}
    result = compute(fields, position="sinusoidal")

    def code(at: list[int]) -> np.ndarray:
        wave = [math.sin, math.cos] * (D // 2)
        return np.array([[wave[i](t / 10000 ** (i // 2 * 2 / D)) for i in range(D)] for t in at])

    same(values(result, "positioned_embeddings"), x + code(fields["positions"]))
    same(values(result, "k"), y + code(fields["k_positions"]))


# ── rope: the paper's formula, pair by pair ──────────────────────────────────────────────────────
def rotated(x: np.ndarray, positions: Any, omega: Any, layout: str = "half", attention: float = 1.0) -> np.ndarray:
    """Su et al. 2021, eq. 15: pairs of the first 2·len(omega) columns of (…, t, d) turned by p·ω_i."""
    out, r = x.copy(), 2 * len(omega)
    for i, w in enumerate(omega):
        a, b = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, r // 2 + i)
        for t, p in enumerate(positions):
            turn = attention * np.exp(1j * p * w)  # e^(ipω)
            z = (x[..., t, a] + 1j * x[..., t, b]) * turn
            out[..., t, a], out[..., t, b] = z.real, z.imag
    return out


def omegas(r: int, theta: float = 10000.0) -> np.ndarray:
    return np.array([theta ** (-2 * i / r) for i in range(r // 2)])


ROPES = {
    "rope": ("half", D, omegas(D)),
    "rope:theta=500": ("half", D, omegas(D, 500)),
    "rope:layout=interleaved": ("interleaved", D, omegas(D)),
    "rope:layout=half,dims=6": ("half", 6, omegas(6)),
    "rope:layout=interleaved,dims=4": ("interleaved", 4, omegas(4)),
    "rope:fraction=0.25": ("half", 2, omegas(2)),
    "rope:fraction=0.75,layout=interleaved,theta=77": ("interleaved", 6, omegas(6, 77)),
    "rope:scaling=linear,factor=4": ("half", D, omegas(D) / 4),
    "rope:scaling=ntk,factor=3": ("half", D, omegas(D, 10000 * 3 ** (D / (D - 2)))),
    "rope:scaling=ntk,factor=3,dims=6": ("half", 6, omegas(6, 10000 * 3 ** (6 / 4))),
    # positions reach 19, so the length is 20: shorter than 64, longer than 8
    "rope:scaling=dynamic,factor=2,original=64": ("half", D, omegas(D)),
    "rope:scaling=dynamic,factor=2,original=8": ("half", D, omegas(D, 10000 * (2 * 20 / 8 - 1) ** (D / (D - 2)))),
    "rope:scaling=proportional,fraction=0.5": ("half", D, np.where(np.arange(D // 2) < D // 4, omegas(D), 0)),
    "rope:scaling=proportional,fraction=0.25,factor=8": ("half", D, np.where(np.arange(D // 2) < 1, omegas(D) / 8, 0)),
}
Q_POS, K_POS = [3, 0, 19, 8], [5, 4, 1, 2, 17]


@pytest.mark.parametrize("text", ROPES)
def test_rope_turns_pairs(text: str) -> None:
    layout, r, omega = ROPES[text]
    q, k, _ = heads_of(20)
    result = compute({"q": q, "k": k, "positions": Q_POS, "k_positions": K_POS}, position=text)
    assert len(omega) == r // 2

    q_turned, k_turned = rotated(q, Q_POS, omega, layout), rotated(k, K_POS, omega, layout)
    same(values(result, "positioned_q"), q_turned, rtol=1e-11, atol=1e-13)
    same(values(result, "positioned_k"), k_turned, rtol=1e-11, atol=1e-13)
    identical(values(result, "positioned_q")[..., r:], q[..., r:])
    same(values(result, "scores"), q_turned @ k_turned.swapaxes(-1, -2), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("scaling", "text"), [("none", "rope"), ("linear", "rope:scaling=linear,factor=3")])
def test_rope_scores_know_distances_alone(scaling: str, text: str) -> None:
    q, k = draw(22, N, D), draw(23, N, D)
    near = compute({"q": q, "k": k, "positions": [0, 1, 2, 3]}, position=text)
    far = compute({"q": q, "k": k, "positions": [100, 101, 102, 103]}, position=text)

    assert not np.allclose(values(near, "positioned_q"), values(far, "positioned_q"), atol=1e-2), scaling
    same(values(near, "scores"), values(far, "scores"), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("r", [D, 6])
def test_permuting_columns_turns_one_layout_into_the_other(r: int) -> None:
    """semantics 2.10: the same scores iff the turned columns are permuted to 0, 2, 4, …, 1, 3, 5, …"""
    q, k, _ = heads_of(24)
    order = [*range(0, r, 2), *range(1, r, 2), *range(r, D)]
    fields = {"positions": Q_POS, "k_positions": K_POS}
    pairs = compute({"q": q, "k": k, **fields}, position=f"rope:layout=interleaved,dims={r}")
    halves = compute({"q": q[..., order], "k": k[..., order], **fields}, position=f"rope:layout=half,dims={r}")
    unpermuted = compute({"q": q, "k": k, **fields}, position=f"rope:layout=half,dims={r}")

    same(values(halves, "positioned_q"), values(pairs, "positioned_q")[..., order])
    same(values(halves, "scores"), values(pairs, "scores"), rtol=1e-11, atol=1e-13)
    assert not np.allclose(values(unpermuted, "scores"), values(pairs, "scores"), atol=1e-2)


def test_rope_positions_of_each_batch_item() -> None:
    """Left padding: the item that starts two tokens later has the scores of its tokens alone."""
    x, pad = draw(25, 3, D), draw(26, 2, D)
    positions = [[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]]
    q = np.stack([np.concatenate([x, pad]), np.concatenate([pad, x])])
    mask = np.ones((2, 1, 5, 5), bool)
    mask[1, ..., :2] = False
    result = compute({"q": q, "k": q, "v": q, "positions": positions, "mask": mask}, position="rope", mask="causal")

    for b in range(2):
        same(values(result, "positioned_q")[b], rotated(q[b], positions[b], omegas(D)), rtol=1e-11)
    same(values(result, "weights")[1, 2:, 2:], values(result, "weights")[0, :3, :3])
    same(values(result, "context")[1, 2:], values(result, "context")[0, :3])


# ── positions on scores ──────────────────────────────────────────────────────────────────────────
def paper_slopes(n: int) -> list[float]:
    """Press et al.'s own get_slopes, retyped from their repository."""
    if math.log2(n).is_integer():
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]
    closest = 2 ** math.floor(math.log2(n))
    return paper_slopes(closest) + paper_slopes(2 * closest)[0::2][: n - closest]


def slopes_of(result: attncli.Attention) -> np.ndarray:
    """What a distance of 1 takes from each head's scores."""
    return (values(result, "scores") - values(result, "positioned_scores"))[0, :, 0, 1]


@pytest.mark.parametrize("heads", range(1, 18))
def test_alibi_slopes_are_the_papers_for_every_number_of_heads(heads: int) -> None:
    q = np.zeros((1, heads, 2, 3))
    same(slopes_of(compute({"q": q, "k": q}, position="alibi")), paper_slopes(heads), rtol=1e-14)


@pytest.mark.parametrize("heads", [1, 2, 5, 8, 11, 12, 16, 17])
def test_alibi_slopes_are_those_of_bloom_and_mpt(heads: int) -> None:
    """transformers' own, in float32."""
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    mpt = importlib.import_module("transformers.models.mpt.modeling_mpt")
    q = np.zeros((1, heads, 2, 3))
    own = slopes_of(compute({"q": q, "k": q}, position="alibi"))

    same(bloom.build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1], own, rtol=1e-6)
    same(mpt.build_mpt_alibi_tensor(heads, 3)[:, 0, 1], -own, rtol=1e-6)
    six = slopes_of(compute({"q": q, "k": q}, position="alibi:max=6"))
    same(mpt.build_mpt_alibi_tensor(heads, 3, alibi_bias_max=6)[:, 0, 1], -six, rtol=1e-6)


def test_alibi_is_minus_the_slope_times_the_distance_both_ways() -> None:
    q, k, _ = heads_of(30)
    result = compute({"q": q, "k": k, "positions": Q_POS, "k_positions": K_POS}, position="alibi")
    distance = np.abs(np.subtract.outer(Q_POS, K_POS))
    expected = q @ k.swapaxes(-1, -2) / math.sqrt(D) - np.array(paper_slopes(H))[:, None, None] * distance

    same(values(result, "positioned_scores"), expected)
    same(values(result, "weights"), softmax(expected))
    assert names(result).index("scaled_scores") < names(result).index("positioned_scores")


def t5_buckets(buckets: int, max_distance: int, bidirectional: bool, queries: list[int], keys: list[int]) -> np.ndarray:
    """The bucket our bias is read from: a table whose row r holds r."""
    q, k = np.zeros((len(queries), 2)), np.zeros((len(keys), 2))
    table = np.arange(float(buckets))[:, None]
    text = f"t5:buckets={buckets},max-distance={max_distance},bidirectional={'yes' if bidirectional else 'no'}"
    fields = {"q": q, "k": k, "positions": queries, "k_positions": keys, "parameters": {"bias_table": table}}
    result = attncli.attend(attncli.Problem(**fields), attncli.Variant(position=text), keep={"positioned_scores"})
    return values(result, "positioned_scores")


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(
    ("buckets", "max_distance"),
    [(32, 128), (32, 20), (32, 1000), (16, 64), (8, 10), (4, 3), (10, 17), (7, 30), (64, 128), (33, 127), (128, 777)],
)
def test_t5_buckets_are_transformers(buckets: int, max_distance: int, bidirectional: bool) -> None:
    """T5Attention._relative_position_bucket, exactly, at every distance on either side of every bound."""
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    queries, keys = [1500], list(range(3000))
    expected = t5.T5Attention._relative_position_bucket(
        torch.tensor(keys) - torch.tensor(queries)[:, None], bidirectional, buckets, max_distance
    )
    got = t5_buckets(buckets, max_distance, bidirectional, queries, keys)

    identical(got, expected.double())
    assert len(np.unique(got)) > buckets // 2 - 1


def test_t5_buckets_of_the_paper() -> None:
    """Raffel et al. 2020, §2.1: all offsets of 128 and more share a bucket; the near ones have one each."""
    got = t5_buckets(32, 128, True, [200], list(range(401)))[0]

    identical(got[200 - 7 : 201], np.arange(7, -1, -1))
    identical(got[201:208], 16 + np.arange(1, 8))
    assert set(got[: 200 - 127]) == {15}
    assert set(got[200 + 128 :]) == {31}
    identical(t5_buckets(32, 128, False, [200], list(range(185, 206)))[0], [*range(15, -1, -1), 0, 0, 0, 0, 0])


def test_t5_bias_of_heads_and_batch_is_unscaled() -> None:
    q, k, _ = heads_of(31)
    positions, k_positions = np.array([[0, 5, 40, 9], [3, 2, 1, 0]]), np.array([[0, 1, 2, 30, 4], [9, 1, 8, 2, 7]])
    table = draw(32, 8, H)
    fields = {"q": q, "k": k, "positions": positions, "k_positions": k_positions, "parameters": {"bias_table": table}}
    result = compute(fields, position="t5:buckets=8,max-distance=20,bidirectional=no")

    def bucket(back: int) -> int:  # 4 exact, then 4 that widen up to 20
        back = max(back, 0)
        return back if back < 4 else min(4 + int(math.log(back / 4) / math.log(20 / 4) * 4), 7)

    bias = np.array(
        [[[table[bucket(i - j)] for j in ks] for i in qs] for qs, ks in zip(positions, k_positions, strict=True)]
    )
    same(values(result, "positioned_scores"), q @ k.swapaxes(-1, -2) / math.sqrt(D) + bias.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("most", [0, 1, 3, 40])
def test_relative_bias_is_clipped(most: int) -> None:
    """Shaw et al. 2018, eq. 4: clip(j − i, −k, k)."""
    q, k, _ = heads_of(33)
    table = draw(34, 2 * most + 1, H)
    fields = {"q": q, "k": k, "positions": Q_POS, "k_positions": K_POS, "parameters": {"bias_table": table}}
    result = compute(fields, position=f"relative:max-distance={most}", scale="none")
    bias = np.array([[table[max(-most, min(most, j - i)) + most] for j in K_POS] for i in Q_POS])

    same(values(result, "positioned_scores"), q @ k.swapaxes(-1, -2) + bias.transpose(2, 0, 1))


# ── norms of q and k ─────────────────────────────────────────────────────────────────────────────
def normed(x: np.ndarray, name: str, eps: float) -> np.ndarray:
    """Row by row of (…, d), with nothing but sums."""
    out = np.empty_like(x)
    for where in np.ndindex(x.shape[:-1]):
        row = x[where]
        if name == "l2":
            out[where] = row / max(math.sqrt(sum(row**2)), eps)
        elif name == "rms":
            out[where] = row / math.sqrt(sum(row**2) / len(row) + eps)
        else:
            mean = sum(row) / len(row)
            out[where] = (row - mean) / math.sqrt(sum((row - mean) ** 2) / len(row) + eps)
    return out


def by_rows(x: np.ndarray) -> np.ndarray:
    """(B, H, T, d) → (B, T, H·d)"""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def by_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """(B, T, H·d) → (B, H, T, d)"""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


EPS = {"l2": 1e-12, "rms": 1e-6, "layer": 1e-5}


@pytest.mark.parametrize("gains", ["none", "a head's", "each head's", "q only"])
@pytest.mark.parametrize("eps", [None, 0.3])
@pytest.mark.parametrize("name", EPS)
def test_norms_of_each_head(name: str, eps: float | None, gains: str) -> None:
    q, k = draw(35, B, H, N, D), draw(36, B, G, M, D)
    if eps:  # for l2 it is a floor under the length: half the lengths are below it
        q[:, ::2], k[:, ::2] = q[:, ::2] * 0.01, k[:, ::2] * 0.01
    parameters = {
        "none": {},
        "a head's": {"q_norm": draw(37, D), "k_norm": draw(38, D)},
        "each head's": {"q_norm": draw(37, H, D), "k_norm": draw(38, G, D)},
        "q only": {"q_norm": draw(37, D)},
    }[gains]
    result = compute({"q": q, "k": k, "parameters": parameters}, qk_norm=name + (f":eps={eps}" if eps else ""))

    def gain(which: str) -> Any:
        g = parameters.get(which, np.ones(1))
        return g[:, None] if g.ndim == 2 else g

    q, k = (normed(x, name, eps or EPS[name]) * gain(g) for x, g in ((q, "q_norm"), (k, "k_norm")))
    same(values(result, "normed_q"), q)
    same(values(result, "normed_k"), k)
    same(values(result, "scores"), q @ k.repeat(H // G, 1).swapaxes(-1, -2), atol=1e-13)


@pytest.mark.parametrize("gains", [True, False])
@pytest.mark.parametrize("name", EPS)
def test_norms_of_the_whole_projection(name: str, gains: bool) -> None:
    q, k = draw(39, B, H, N, D), draw(40, B, G, M, D)
    q_gain, k_gain = draw(41, H * D), draw(42, G * D)
    fields = {"q": q, "k": k, "parameters": {"q_norm": q_gain, "k_norm": k_gain} if gains else {}}
    result = compute(fields, qk_norm=f"{name}:scope=full")

    q = normed(by_rows(q), name, EPS[name]) * (q_gain if gains else 1)
    k = normed(by_rows(k), name, EPS[name]) * (k_gain if gains else 1)
    same(values(result, "normed_q"), by_heads(q, H))
    same(values(result, "normed_k"), by_heads(k, G))


def test_norms_are_pytorchs() -> None:
    q, k = draw(43, N, D), draw(44, M, D)
    gain = draw(45, D)
    fields = {"q": q, "k": k, "parameters": {"q_norm": gain}}
    x, g = torch.as_tensor(q), torch.as_tensor(gain)

    same(values(compute(fields, qk_norm="l2"), "normed_q"), F.normalize(x, dim=-1) * g)
    same(values(compute(fields, qk_norm="rms:eps=0.01"), "normed_q"), F.rms_norm(x, (D,), g, 0.01))
    same(values(compute(fields, qk_norm="layer:eps=0.01"), "normed_q"), F.layer_norm(x, (D,), g, None, 0.01))


def test_a_zero_vector_is_normed_to_zero() -> None:
    q, k = np.zeros((N, D)), draw(46, M, D)
    for name in EPS:
        identical(values(compute({"q": q, "k": k}, qk_norm=name), "normed_q"), np.zeros((N, D)))


@pytest.mark.parametrize("scope", ["head", "full"])
@pytest.mark.parametrize("name", EPS)
def test_a_norm_stands_before_or_after_the_rotation(name: str, scope: str) -> None:
    q, k = draw(47, B, H, N, D), draw(48, B, G, M, D)
    wide = (H * D, G * D) if scope == "full" else (D, D)
    parameters = {"q_norm": draw(49, wide[0]), "k_norm": draw(50, wide[1])}
    fields = {"q": q, "k": k, "positions": Q_POS, "k_positions": K_POS, "parameters": parameters}

    def norm(x: np.ndarray, which: str) -> np.ndarray:
        if scope == "head":
            return normed(x, name, EPS[name]) * parameters[which]
        return by_heads(normed(by_rows(x), name, EPS[name]) * parameters[which], x.shape[1])

    before = compute(fields, qk_norm=f"{name}:scope={scope},at=before", position="rope")
    same(values(before, "positioned_q"), rotated(norm(q, "q_norm"), Q_POS, omegas(D)), atol=1e-13)
    same(values(before, "positioned_k"), rotated(norm(k, "k_norm"), K_POS, omegas(D)), atol=1e-13)
    assert names(before)[:6] == ["q", "k", "normed_q", "normed_k", "positioned_q", "positioned_k"]
    after = compute(fields, qk_norm=f"{name}:scope={scope},at=after", position="rope")
    same(values(after, "normed_q"), norm(rotated(q, Q_POS, omegas(D)), "q_norm"), atol=1e-13)
    same(values(after, "normed_k"), norm(rotated(k, K_POS, omegas(D)), "k_norm"), atol=1e-13)
    assert names(after)[:6] == ["q", "k", "positioned_q", "positioned_k", "normed_q", "normed_k"]
    assert not np.allclose(values(before, "scores"), values(after, "scores"), atol=1e-2)
    same(values(after, "scores"), values(after, "normed_q") @ values(after, "normed_k").repeat(2, 1).swapaxes(-1, -2))


# ── links ────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("base", [3, 1.5, 100])
def test_log_n_counts_what_a_query_sees(base: float) -> None:
    q = draw(60, B, H, M, D)
    result = compute({"q": q, "k": q, "lengths": [M, 3]}, log_n=base, mask="causal")
    s = q @ q.swapaxes(-1, -2) / math.sqrt(D)

    assert names(result)[2:6] == ["scores", "scaled_scores", "length_scaled_scores", "mask"]
    for b, length in enumerate([M, 3]):
        for i in range(M):
            n = min(i + 1, length)
            grown = s[b, :, i] * max(1, math.log(n) / math.log(base))
            same(values(result, "length_scaled_scores")[b, :, i], grown)
            same(values(result, "weights")[b, :, i, :n], softmax(grown[:, :n]))


def test_log_n_of_a_query_that_sees_nothing_is_finite() -> None:
    q, k = draw(61, N, D), draw(62, M, D)
    mask = np.ones((N, M), bool)
    mask[2] = False
    result = compute({"q": q, "k": k, "mask": mask}, log_n=2)

    same(values(result, "length_scaled_scores")[2], (q @ k.T / math.sqrt(D))[2])
    identical(values(result, "weights")[2], np.zeros(M))
    assert [w.partition(":")[0] for w in result.warnings] == ["empty-rows"]


# ── normalisers ──────────────────────────────────────────────────────────────────────────────────
def normalized(s: np.ndarray, normalizer: str, visible: np.ndarray | None = None, **choices: Any) -> attncli.Attention:
    """Weights of scores (…, n, m) as they stand: they are the file's bias to q and k of zeros."""
    q = np.zeros((*s.shape[:-1], 2))
    k = np.zeros((*s.shape[:-2], s.shape[-1], 2))
    fields = {
        "q": q,
        "k": k,
        "v": np.broadcast_to(np.eye(s.shape[-1]), (*s.shape[:-2], s.shape[-1], s.shape[-1])),
        "bias": s,
    }
    return compute(fields | ({} if visible is None else {"mask": visible}), normalizer=normalizer, **choices)


def row_by_row(s: np.ndarray, visible: np.ndarray, function: Any) -> np.ndarray:
    """function(the visible scores of a row), put back among zeros."""
    out = np.zeros(s.shape)
    for where in np.ndindex(s.shape[:-1]):
        seen = visible[where]
        out[where][seen] = function(s[where][seen])
    return out


def sparsemax_of(z: np.ndarray) -> np.ndarray:
    """Martins and Astudillo 2016, Algorithm 1."""
    ordered = np.sort(z)[::-1]
    support = max(n for n in range(1, len(z) + 1) if 1 + n * ordered[n - 1] > ordered[:n].sum())
    return np.maximum(z - (ordered[:support].sum() - 1) / support, 0)


def entmax15_of(z: np.ndarray) -> np.ndarray:
    """Peters et al. 2019, Algorithm 2."""
    ordered = np.sort(z / 2)[::-1]
    tau = None
    for n in range(1, len(z) + 1):
        mean, spread = ordered[:n].mean(), n * ordered[:n].var()
        if spread <= 1 and mean - math.sqrt((1 - spread) / n) <= ordered[n - 1]:
            tau = mean - math.sqrt((1 - spread) / n)
    return np.maximum(z / 2 - tau, 0) ** 2


def among(z: np.ndarray, k: int) -> np.ndarray:
    """The k largest; of equal ones those of lower index."""
    return np.isin(np.arange(len(z)), sorted(range(len(z)), key=lambda j: (-z[j], j))[:k])


def topk_of(k: int) -> Any:
    return lambda z: np.where(among(z, k), softmax(np.where(among(z, k), z, -INF)), 0)


NORMALIZERS: dict[str, Any] = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "sigmoid:bias=-1.5": lambda z: 1 / (1 + np.exp(-z + 1.5)),
    "sigmoid:bias=auto": lambda z: (
        1 / (1 + np.exp(-z + math.log(8)))
    ),  # Ramapuram et al. 2024: b = −ln n, of all n = 8 keys
    "sparsemax": sparsemax_of,
    "entmax:alpha=2": sparsemax_of,
    "entmax15": entmax15_of,
    "entmax": entmax15_of,
    "entmax:alpha=1": softmax,
    "relu": lambda z: np.maximum(z, 0),
    "topk:k=3": topk_of(3),
    "topk:k=1": topk_of(1),
    "topk:k=100": softmax,
    "hardmax": lambda z: among(z, 1).astype(float),
    "sum": lambda z: z / z.sum(),
    "none": lambda z: z,
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalizers_are_their_formula(name: str, masked: bool) -> None:
    s = draw(63, B, H, N, 8) * 1.7
    s[0, 0, 0] = [2, -1, 2, 2, 0, -1, 0.5, 2]  # ties
    s[0, 0, 1] = 0.25
    if name == "sum":
        s = np.abs(s)
    visible = rng(64).random(s.shape) < 0.6
    visible[..., 5] = True
    visible = visible if masked else np.ones(s.shape, bool)
    result = normalized(s, name, visible if masked else None)

    w = values(result, "weights")
    same(w, row_by_row(s, visible, NORMALIZERS[name]), atol=1e-13)
    identical(w[~visible], np.zeros((~visible).sum()))
    same(values(result, "head_context"), w)  # values are unit vectors
    if name.partition(":")[0] in ("sparsemax", "entmax15", "entmax", "topk", "hardmax"):
        same(w.sum(-1), np.ones(s.shape[:-1]))


@pytest.mark.parametrize("alpha", [1.01, 1.2, 1.5, 1.9, 2.0, 2.5, 4.0])
def test_entmax_solves_its_equation(alpha: float) -> None:
    """Peters et al. 2019, eq. 9: with p_i > 0, ((α − 1) z_i − p_i^(α − 1)) is one τ; below it p is 0; Σ p = 1."""
    s = draw(65, 50, 7)
    w = values(normalized(s, f"entmax:alpha={alpha}"), "weights")
    same(w.sum(-1), np.ones(50))
    for z, p in zip((alpha - 1) * s, w, strict=True):
        tau = (z - p ** (alpha - 1))[p > 1e-8]
        assert np.ptp(tau) < 1e-11
        assert (z[p == 0] <= tau.mean() + 1e-11).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)])
@pytest.mark.parametrize("alpha", [1.5, 3.0, 4.0, 20.0, 64.0])
def test_rows_of_entmax_sum_to_one(alpha: float, dtype: str, tolerance: float) -> None:
    """As entmax_bisect's do, by ensure_sum_one: the last bit of τ is worth ε^(1/(α − 1)) of a weight beside it."""
    w = values(normalized(draw(65, 200, 7), f"entmax:alpha={alpha}", dtype=dtype), "weights")
    assert w.dtype == dtype
    same(w.astype(np.float64).sum(-1), np.ones(200), rtol=tolerance)
    assert (w >= 0).all()


ENTMAX = [
    ("sparsemax", "sparsemax", {}, 1e-12),
    ("entmax15", "entmax15", {}, 1e-12),
    *(
        (f"entmax:alpha={a}", "entmax_bisect", {"alpha": a, "n_iter": 100}, 1e-9)
        for a in (1.2, 1.5, 1.75, 2.0, 2.5, 3.0)
    ),
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("ours", "theirs", "options", "tolerance"), ENTMAX)
def test_values_and_gradients_are_those_of_the_entmax_package(
    ours: str, theirs: str, options: dict[str, Any], tolerance: float, masked: bool
) -> None:
    entmax = pytest.importorskip("entmax")
    g = torch.Generator().manual_seed(66)
    q, k = (torch.randn(n, D, generator=g, dtype=torch.float64) for n in (9, 11))
    visible = torch.rand(9, 11, generator=g) < 0.6
    visible[:, 4] = True
    outer = torch.randn(9, 11, generator=g, dtype=torch.float64)

    x, y = q.clone().requires_grad_(), k.clone().requires_grad_()
    fields = {"q": x, "k": y} | ({"mask": visible} if masked else {})
    w = compute(fields, normalizer=ours)["weights"].values
    gradients = torch.autograd.grad(w, (x, y), outer)

    a, b = q.clone().requires_grad_(), k.clone().requires_grad_()
    s = a @ b.mT / math.sqrt(D)
    s = s.masked_fill(~visible, -INF) if masked else s
    p = getattr(entmax, theirs)(s, dim=-1, **options)
    same(w, p, rtol=tolerance, atol=tolerance)
    for mine, other in zip(gradients, torch.autograd.grad(p, (a, b), outer), strict=True):
        same(mine, other, rtol=1e-6, atol=1e-7 if "bisect" in theirs else 1e-12)


def test_the_example_of_entmax() -> None:
    """entmax's own README: x = [−2, 0, 0.5]."""
    s = np.array([[-2.0, 0, 0.5]])

    same(values(normalized(s, "sparsemax"), "weights"), [[0, 0.25, 0.75]])
    same(values(normalized(s, "entmax15"), "weights"), [[0, 0.3260, 0.6740]], atol=5e-5)
    same(values(normalized(s, "softmax"), "weights"), [[0.0486, 0.3592, 0.5922]], atol=5e-5)


@pytest.mark.parametrize("name", ["sparsemax", "entmax15", "entmax:alpha=3", "topk:k=2", "hardmax"])
@pytest.mark.parametrize("shift", [1e6, -1e6])
def test_shares_do_not_see_a_shift(name: str, shift: float) -> None:
    s = np.round(draw(67, N, 6), 3)
    same(values(normalized(s + shift, name), "weights"), values(normalized(s, name), "weights"), rtol=1e-7, atol=1e-8)


def test_of_many_equal_scores_the_first_stay() -> None:
    s = np.tile([1.0, 2.0, 2.0, 0.0], (N, 300))  # long enough for a sort that is not stable to mix them up

    identical(np.nonzero(values(normalized(s, "topk:k=5"), "weights")[2])[0], [1, 2, 5, 6, 9])
    identical(np.nonzero(values(normalized(s, "hardmax"), "weights")[2])[0], [1])


def test_hardmax_is_onnx_hardmax() -> None:
    """onnx.reference Hardmax: of equal ones the first."""
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Hardmax", ["s"], ["w"], axis=-1)
    s = np.round(draw(68, N, 9))  # ties
    expected = importlib.import_module("onnx.reference").ReferenceEvaluator(node).run(None, {"s": s})[0]

    identical(values(normalized(s, "hardmax"), "weights"), expected)


def test_negative_scores_under_sum_are_warned_of() -> None:
    s = np.array([[3.0, -1, 2], [1, 2, 1]])
    result = normalized(s, "sum")

    same(values(result, "weights"), [[0.75, -0.25, 0.5], [0.25, 0.5, 0.25]])
    assert [w.partition(":")[0] for w in result.warnings] == ["negative-weights", "no-entropy"]
    assert not normalized(np.abs(s), "sum").warnings


def test_rows_that_sum_to_zero_are_zero_and_warned_of() -> None:
    s = np.array([[3.0, -1, -2], [1, 2, 1], [0, 0, 0]])
    result = normalized(s, "sum")

    same(values(result, "weights"), [[0, 0, 0], [0.25, 0.5, 0.25], [0, 0, 0]])
    assert any(w.startswith("zero-sum: queries 0 and 2") for w in result.warnings)
    relu = compute({"q": [[-1.0, -2.0], [1, 2]], "k": [[3.0, 4.0]]}, score="kernel:phi=relu", normalizer="sum")
    identical(values(relu, "weights"), [[0.0], [1.0]])
    assert [w.partition(" sum")[0] for w in relu.warnings] == ["zero-sum: query 0: scores"]


@pytest.mark.parametrize("name", [n for n in NORMALIZERS if n != "sum"])
def test_a_query_that_sees_nothing_weighs_nothing_under_any_normalizer(name: str) -> None:
    s, visible = draw(69, N, 6), np.ones((N, 6), bool)
    visible[1] = False
    result = normalized(s, name, visible)

    identical(values(result, "weights")[1], np.zeros(6))
    identical(values(result, "context")[1], np.zeros(6))
    assert np.isfinite(values(result, "weights")).all()
    assert any(w.startswith("empty-rows: query 1 sees no key") for w in result.warnings)


# ── sinks ────────────────────────────────────────────────────────────────────────────────────────
def sinking(masked: bool) -> tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray]:
    q, k, v = heads_of(70)
    sinks = draw(71, H) * 2
    visible = np.tril(np.ones((N, M), bool)) if masked else np.ones((N, M), bool)
    fields = {"q": q, "k": k, "v": v, "parameters": {"sinks": sinks}, **({"mask": visible} if masked else {})}
    return fields, np.where(visible, q @ k.swapaxes(-1, -2) / math.sqrt(D), -INF), sinks, v


@pytest.mark.parametrize("masked", [False, True])
def test_a_sink_is_gpt_osss_column(masked: bool) -> None:
    """gpt-oss, torch/model.py: QK = cat([QK, S]), softmax, then the last column is dropped."""
    fields, s, sinks, v = sinking(masked)
    result = compute(fields, sink="given")
    column = np.broadcast_to(sinks[:, None, None], (B, H, N, 1))
    w = softmax(np.concatenate([s, column], -1))

    same(values(result, "weights"), w[..., :-1])
    same(values(result, "sink_weights"), w[..., -1])
    same(values(result, "head_context"), w[..., :-1] @ v)
    order = names(result)
    assert order.index("visible_keys") < order.index("sink_weights") == order.index("weights") - 1


@pytest.mark.parametrize("masked", [False, True])
def test_a_sink_is_softmax_times_a_gate(masked: bool) -> None:
    """semantics 2.13: w · σ(lse − sink), lse without the sink; ours is reported with it."""
    fields, s, sinks, _ = sinking(masked)
    result = compute(fields, sink="given")
    lse = np.log(np.exp(s).sum(-1))
    gate = 1 / (1 + np.exp(sinks[:, None] - lse))

    same(values(result, "weights"), softmax(s) * gate[..., None])
    same(values(result, "log_sum_exp"), np.log(np.exp(s).sum(-1) + np.exp(sinks)[:, None]))
    same(values(result, "max_score"), s.max(-1))
    same(values(result, "weights").sum(-1) + values(result, "sink_weights"), np.ones((B, H, N)))


def test_a_sink_of_zero_is_softmax1_and_add_zero_attn() -> None:
    """nn.MultiheadAttention(add_zero_attn=True) has one more key of zeros."""
    heads, d = 3, 12
    mha = nn.MultiheadAttention(d, heads, add_zero_attn=True, batch_first=True, dtype=torch.float64)
    x = torch.as_tensor(draw(72, B, N, d))
    with torch.no_grad():
        out, w = mha(x, x, x, average_attn_weights=False)
    packed, bias = mha.in_proj_weight.detach().chunk(3), mha.in_proj_bias.detach().chunk(3)
    parameters = {f"w_{a}": m for a, m in zip("qkv", packed, strict=True)}
    parameters |= {f"b_{a}": m for a, m in zip("qkv", bias, strict=True)}
    parameters |= {"w_o": mha.out_proj.weight.detach(), "b_o": mha.out_proj.bias.detach()}
    result = compute({"embeddings": x, "parameters": parameters, "w_layout": "out-in"}, sink="zero", heads=heads)

    same(values(result, "weights"), w[..., :N])
    same(values(result, "sink_weights"), w[..., N])
    same(values(result, "output"), out)
    s = values(result, "scaled_scores")
    same(values(result, "weights"), np.exp(s) / (1 + np.exp(s).sum(-1, keepdims=True)))  # Miller 2023


def test_a_sink_is_neither_scaled_nor_capped() -> None:
    fields, s, sinks, _ = sinking(False)
    result = compute(fields, sink="given", softcap=0.5, temperature=3, scale=2)
    capped = 0.5 * np.tanh(s * math.sqrt(D) * 2 / 0.5) / 3
    e = np.exp(capped)

    same(values(result, "weights"), e / (e.sum(-1, keepdims=True) + np.exp(sinks)[:, None, None]))


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_a_huge_sink_does_not_overflow(scale: float) -> None:
    q, k, _ = heads_of(73)
    result = compute({"q": q, "k": k, "parameters": {"sinks": np.full(H, scale)}}, sink="given")

    assert np.isfinite(values(result, "weights")).all()
    same(values(result, "sink_weights"), np.full((B, H, N), float(scale > 0)))
    same(values(compute({"q": q * 1e3, "k": k}, sink="zero"), "weights").sum(-1).max(), 1.0)


def test_a_query_that_sees_nothing_gives_all_to_the_sink() -> None:
    q, k, _ = heads_of(74)
    mask = np.ones((N, M), bool)
    mask[2] = False
    result = compute({"q": q, "k": k, "mask": mask}, sink="zero")

    identical(values(result, "weights")[:, :, 2], np.zeros((B, H, M)))
    identical(values(result, "sink_weights")[:, :, 2], np.ones((B, H)))
    identical(values(result, "log_sum_exp")[:, :, 2], np.zeros((B, H)))


# ── heads that are mixed ─────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("which", ["both", "talking_pre", "talking_post"])
def test_talking_heads_are_shazeers(which: str) -> None:
    """Shazeer et al. 2020, §3: einsum of the logits with P_l before the softmax, of the weights with P_w after."""
    q, k, v = heads_of(80)
    pre, post = draw(81, H, H), draw(82, H, H)
    parameters = {"talking_pre": pre, "talking_post": post}
    parameters = parameters if which == "both" else {which: parameters[which]}
    visible = np.tril(np.ones((N, M), bool), 1)
    result = compute({"q": q, "k": k, "v": v, "parameters": parameters, "mask": visible}, head_mixing="talking-heads")

    s = q @ k.swapaxes(-1, -2) / math.sqrt(D)
    if "talking_pre" in parameters:
        s = np.einsum("bgnm,gh->bhnm", s, pre)
        same(values(result, "mixed_scores"), s)
    assert ("mixed_scores" in names(result)) == ("talking_pre" in parameters)
    w = softmax(np.where(visible, s, -INF))
    same(values(result, "weights"), w)
    mixed = np.einsum("bgnm,gh->bhnm", w, post) if "talking_post" in parameters else w
    same(values(result, "mixed_weights"), mixed)
    same(values(result, "head_context"), mixed @ v, atol=1e-13)


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("depth", [0, 3])
@pytest.mark.parametrize("pairing", ["adjacent", "halves"])
def test_differential_attention_is_yes(pairing: str, depth: int, learned: bool) -> None:
    """Ye et al. 2024, eq. 1–3: (softmax(Q1 K1ᵀ/√d) − λ softmax(Q2 K2ᵀ/√d)) V, each pair normed × (1 − λ_init)."""
    pairs = H // 2
    q, k, v = draw(83, B, H, N, D), draw(84, B, H, M, D), draw(85, B, pairs, M, 2 * D)
    vectors = {f"lambda_{x}{i}": draw(86 + 2 * i + (x == "k"), D) * 0.3 for x in "qk" for i in (1, 2)}
    gain = draw(92, 2 * D)
    fields = {"q": q, "k": k, "v": v, "parameters": vectors | {"sub_norm": gain} if learned else {}}
    result = compute(
        fields, head_mixing=f"differential:pairing={pairing},depth={depth}", mask="causal", align="top-left"
    )

    lambda_init = 0.8 - 0.6 * math.exp(-0.3 * depth)
    amount = lambda_init
    if learned:
        amount += math.exp(vectors["lambda_q1"] @ vectors["lambda_k1"])
        amount -= math.exp(vectors["lambda_q2"] @ vectors["lambda_k2"])
    w = softmax(np.where(np.tri(N, M, dtype=bool), q @ k.swapaxes(-1, -2) / math.sqrt(D), -INF))
    for p in range(pairs):
        first, second = (2 * p, 2 * p + 1) if pairing == "adjacent" else (p, p + pairs)
        mixed = w[:, first] - amount * w[:, second]
        z = mixed @ v[:, p]
        z_normed = z / np.sqrt((z**2).mean(-1, keepdims=True) + 1e-5) * (gain if learned else 1) * (1 - lambda_init)
        same(values(result, "mixed_weights")[:, p], mixed)
        same(values(result, "head_context")[:, p], z, atol=1e-13)
        same(values(result, "normed_context")[:, p], z_normed, rtol=1e-11, atol=1e-13)
        same(values(result, "context")[..., p * 2 * D : (p + 1) * 2 * D], z_normed, rtol=1e-11, atol=1e-13)
    assert names(result)[-4:] == ["mixed_weights", "head_context", "normed_context", "context"]


# ── masks against brute force, where positions are not indices ───────────────────────────────────
T, S = 17, 23  # queries, keys of the larger grids
I_POS = [30, 2, 7, 5, 19, 0, 8, 8, 21, 3, 12, 40, 16, 1, 9, 25, 6]
J_POS = [4, 30, 0, 8, 9, 17, 1, 25, 33, 2, 12, 6, 7, 40, 5, 16, 3, 11, 20, 24, 8, 10, 31]


def seen(text: str, *, queries: int = T, keys: int = S, placed: bool = True) -> np.ndarray:
    """Who sees whom: (queries, keys)"""
    fields: dict[str, Any] = {"q": np.zeros((queries, 2)), "k": np.zeros((keys, 2))}
    fields |= {"positions": I_POS[:queries], "k_positions": J_POS[:keys]} if placed else {}
    result = attncli.attend(attncli.Problem(**fields), attncli.Variant(mask=text), keep={"mask"})
    return np.broadcast_to(values(result, "mask"), (queries, keys))


def brute(rule: Any, queries: Any = I_POS, keys: Any = J_POS) -> np.ndarray:
    return np.array([[bool(rule(i, j)) for j in keys] for i in queries])


@pytest.mark.parametrize("stride", [1, 2, 5, 8, 100])
def test_strided_is_the_union_of_childs_two_heads(stride: int) -> None:
    """Child et al. 2019, §4.2: A1 = {t … i}, t = max(0, i − l); A2 = {j : (i − j) mod l = 0}; both up to i."""

    def rule(i: int, j: int) -> bool:
        one = set(range(max(0, i - stride), i + 1))
        two = {a for a in range(i + 1) if (i - a) % stride == 0}
        return j in one | two

    identical(seen(f"strided:stride={stride}"), brute(rule))


@pytest.mark.parametrize(("stride", "summary"), [(1, 1), (4, 1), (5, 2), (8, 3), (8, 8), (100, 7)])
def test_fixed_is_the_union_of_childs_two_heads(stride: int, summary: int) -> None:
    """Child et al. 2019, §4.2: A1 = {j : ⌊j/l⌋ = ⌊i/l⌋}; A2 = {j : j mod l ∈ {t … l}}, t = l − c; both up to i."""

    def rule(i: int, j: int) -> bool:
        one = {a for a in range(i + 1) if a // stride == i // stride}
        two = {a for a in range(i + 1) if a % stride in range(stride - summary, stride + 1)}
        return j in one | two

    identical(seen(f"fixed:stride={stride},summary={summary}"), brute(rule))


@pytest.mark.parametrize("tokens", [(0,), (3, 11), (16, 0, 22)])
def test_global_tokens_are_indices_both_ways(tokens: tuple[int, ...]) -> None:
    """Beltagy et al. 2020, §3.1: symmetric, whatever the positions."""
    text = f"global:tokens={'+'.join(map(str, tokens))}"

    identical(seen(text), brute(lambda i, j: i in tokens or j in tokens, range(T), range(S)))


def test_longformer_is_a_window_or_global_tokens() -> None:
    got = seen("window:left=3,right=3 or global:tokens=0+9", queries=T, keys=T, placed=False)

    identical(got, brute(lambda i, j: abs(i - j) <= 3 or i in (0, 9) or j in (0, 9), range(T), range(T)))


@pytest.mark.parametrize("size", [7, 16, 17, 23])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 7, 8, 16, 17, 40])
def test_natten_is_its_papers_neighbourhood(kernel: int, size: int) -> None:
    """Hassani et al. 2023, §3.1: as many keys for each query, the nearest; NATTEN's get_window_start for odd kernels."""
    got = seen(f"natten:kernel={kernel}", queries=size, keys=size, placed=False)
    assert (got.sum(-1) == min(kernel, size)).all()
    for i in range(size):
        reach = kernel // 2
        start = max(i - reach, 0) + (size - i - reach - 1 if i + reach >= size else 0)  # natten's own line, odd kernels
        if kernel % 2 == 0:  # one neighbour fewer to the right
            start = min(max(i - reach, 0), size - kernel)
        start = max(start, 0)
        identical(np.flatnonzero(got[i]), np.arange(start, min(start + kernel, size)))


def test_natten_knows_indices_not_positions() -> None:
    identical(seen("natten:kernel=5", queries=T, keys=T), seen("natten:kernel=5", queries=T, keys=T, placed=False))


BIGBIRDS = [(4, 3, 2, 3, 0), (4, 3, 1, 0, 5), (5, 5, 0, 2, 1), (3, 1, 2, 1, 7), (1, 3, 2, 3, 0), (8, 3, 2, 3, 9)]


@pytest.mark.parametrize(("block", "window", "first", "random", "seed"), BIGBIRDS)
def test_bigbird_is_itc(block: int, window: int, first: int, random: int, seed: int) -> None:
    """Zaheer et al. 2020, §2 and App. D: neighbours, global blocks both ways, and r random blocks of those unseen."""
    size = 50
    text = f"bigbird:block={block},window={window},global={first},random={random},seed={seed}"
    got = seen(text, queries=size, keys=size, placed=False)
    blocks = -(-size // block)
    must = brute(
        lambda i, j: abs(i // block - j // block) <= window // 2 or i // block < first or j // block < first,
        range(size),
        range(size),
    )

    assert got[must].all()
    identical(got, seen(text, queries=size, keys=size, placed=False))  # a seed is a pattern
    for a in range(blocks):
        rows = got[a * block : (a + 1) * block]
        assert (rows == rows[0]).all()  # blocks see as one
        drawn = {b for b in range(blocks) if (rows[0] & ~must[a * block])[b * block : (b + 1) * block].any()}
        unseen = {b for b in range(blocks) if not must[a * block, b * block]}
        assert drawn <= unseen
        assert len(drawn) == (min(random, len(unseen)) if a >= first else 0)
        for b in drawn:
            assert rows[:, b * block : (b + 1) * block].all()
    if random and blocks > 2 * first + window + random:
        others = [
            seen(text.replace(f"seed={seed}", f"seed={n}"), queries=size, keys=size, placed=False) for n in (91, 92)
        ]
        assert any((other != got).any() for other in others)


@pytest.mark.parametrize("rate", [1, 3, 4])
def test_dilated_and_chunk_and_prefix_read_positions(rate: int) -> None:
    identical(seen(f"dilated:rate={rate}"), brute(lambda i, j: (i - j) % rate == 0))
    identical(seen(f"chunk:size={rate}"), brute(lambda i, j: math.floor(i / rate) == math.floor(j / rate)))
    identical(seen(f"prefix:length={rate}"), brute(lambda i, j: j < rate))
    identical(seen(f"window:left={rate},right=2"), brute(lambda i, j: j in range(i - rate, i + 3)))


# ── PyTorch's flex_attention, eager ──────────────────────────────────────────────────────────────
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")  # eager is what we want
@pytest.mark.parametrize("what", ["alibi", "softcap", "relative", "document", "prefix-lm", "natten"])
def test_flex_attention(what: str) -> None:
    """A score_mod or a mask_mod of its own; float64, so within 1e-12."""
    flex = pytest.importorskip("torch.nn.attention.flex_attention")
    t, g = 11, torch.Generator().manual_seed(95)
    q, k, v = (torch.randn(B, H, t, d, generator=g, dtype=torch.float64) for d in (D, D, D))
    slopes, table = torch.tensor(paper_slopes(H), dtype=torch.float64), torch.as_tensor(draw(96, 7, H))
    segments = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3])
    fields: dict[str, Any] = {"q": q, "k": k, "v": v}
    score_mod, mask_mod, choices = None, None, {}
    if what == "alibi":
        choices, score_mod = {"position": "alibi"}, lambda s, b, h, i, j: s - slopes[h] * (i - j).abs()
    elif what == "softcap":
        choices, score_mod = {"softcap": 0.7}, lambda s, b, h, i, j: 0.7 * torch.tanh(s / 0.7)
    elif what == "relative":
        fields |= {"parameters": {"bias_table": table}}
        choices = {"position": "relative:max-distance=3"}
        score_mod = lambda s, b, h, i, j: s + table[(j - i).clamp(-3, 3) + 3, h]  # noqa: E731
    elif what == "document":
        fields |= {"segments": segments}
        choices, mask_mod = {"mask": "document"}, lambda b, h, i, j: segments[i] == segments[j]
    elif what == "prefix-lm":
        choices, mask_mod = {"mask": "causal or prefix:length=4"}, lambda b, h, i, j: (i >= j) | (j < 4)
    else:
        choices = {"mask": "natten:kernel=5"}
        mask_mod = lambda b, h, i, j: (i.clamp(2, t - 3) - j).abs() <= 2  # noqa: E731 — attention-gym's natten
    block = flex.create_block_mask(mask_mod, None, None, t, t, device="cpu", BLOCK_SIZE=t) if mask_mod else None
    expected = flex.flex_attention(q, k, v, score_mod=score_mod, block_mask=block)

    same(values(compute(fields, **choices), "head_context"), expected, atol=1e-13)


# ── onnx.reference RotaryEmbedding ───────────────────────────────────────────────────────────────
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("r", [0, 4, 6])
def test_rope_is_onnx_rotary_embedding(interleaved: int, r: int) -> None:
    onnx = pytest.importorskip("onnx")
    q, k, _ = heads_of(97)
    positions, k_positions = np.array([[0, 5, 2, 9], [7, 7, 1, 0]]), np.array([[0, 5, 2, 9, 3], [7, 7, 1, 0, 8]])
    angles = np.outer(np.arange(10), omegas(r or D, 300))
    node = onnx.helper.make_node(
        "RotaryEmbedding", ["x", "cos", "sin", "at"], ["y"], interleaved=interleaved, rotary_embedding_dim=r
    )
    reference = importlib.import_module("onnx.reference").ReferenceEvaluator(node)
    layout = "interleaved" if interleaved else "half"
    text = f"rope:theta=300,layout={layout}" + (f",dims={r}" if r else "")
    result = compute({"q": q, "k": k, "positions": positions, "k_positions": k_positions}, position=text)

    for step, x, at in (("positioned_q", q, positions), ("positioned_k", k, k_positions)):
        expected = reference.run(None, {"x": x, "cos": np.cos(angles), "sin": np.sin(angles), "at": at})[0]
        same(values(result, step), expected, rtol=1e-11, atol=1e-14)


# ── transformers: frequencies of every scaling, and what its models do with them ─────────────────
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
    q, k = (torch.as_tensor(draw(n, B, h, N, D)) for n, h in ((98, H), (99, G)))
    angles = (positions[:, None].double() * inv_freq.double()).repeat(1, 2)[None]
    expected = llama.apply_rotary_pos_emb(q, k, angles.cos() * attention, angles.sin() * attention)

    parameters = {"rope_short": LONG["short_factor"], "rope_long": LONG["long_factor"]} if "longrope" in name else {}
    fields = {"q": q, "k": k, "positions": positions, "parameters": parameters}
    result = compute(fields, position=f"rope:theta={theta},{text}")
    same(values(result, "positioned_q"), expected[0], rtol=1e-4, atol=1e-4)
    same(values(result, "positioned_k"), expected[1], rtol=1e-4, atol=1e-4)
    if last == 199 or told["rope_type"] == "longrope":  # and it is not plain RoPE
        plain = compute(fields | {"parameters": {}}, position=f"rope:theta={theta}")
        assert not np.allclose(values(plain, "positioned_q"), expected[0], atol=1e-2)


@pytest.mark.parametrize("model", ["llama", "gptj", "cohere2"])
def test_rotations_are_those_of_the_models(model: str) -> None:
    """Each model's own apply_rotary_pos_emb with exact cosines; Cohere's turns in float32."""
    modeling = pytest.importorskip(f"transformers.models.{model}.modeling_{model}")
    q, k = torch.as_tensor(draw(100, B, H, N, D)), torch.as_tensor(draw(101, B, G, N, D))
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

    same(values(result, "positioned_q"), expected[0], rtol=tolerance, atol=tolerance)
    same(values(result, "positioned_k"), expected[1], rtol=tolerance, atol=tolerance)


# ── transformers: eager attention of small random models, layer by layer ─────────────────────────
# Everything runs through the model: its masks, positions, norms and projections. Its softmax and rotations are
# float32, so what it finds is compared within 2e-5 of the largest there is.
HIDDEN, VOCABULARY, TOKENS = H * D, 11, 7


def model_of(name: str, **options: Any) -> Any:
    """A model of transformers with random weights that make uneven attention."""
    transformers = pytest.importorskip("transformers")
    stem = name.removesuffix("Model").removesuffix("Encoder")
    config = getattr(transformers, {"Gemma3Text": "Gemma3TextConfig"}.get(stem, f"{stem}Config"))(**options)
    config._attn_implementation = "eager"
    torch.manual_seed(5)
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            spread = 0.3 if p.ndim == 1 else 1.6 / math.sqrt(HIDDEN)
            p.normal_(0, spread)
            if p.ndim == 1 and "norm" in key.lower() and not name.startswith("Gemma"):
                p += 1
    return model


def watched(model: Any, kind: str, **inputs: Any) -> list[tuple[Any, Tensor, tuple[Tensor, ...], dict[str, Any]]]:
    """(module, what goes in, what comes out, with what) of every attention of that kind."""
    found: list[tuple[Any, Tensor, tuple[Tensor, ...], dict[str, Any]]] = []

    def note(module: Any, arguments: Any, named: Any, out: Any) -> None:
        found.append((module, arguments[0] if arguments else named["hidden_states"], out, {**named, "args": arguments}))

    hooks = [m.register_forward_hook(note, with_kwargs=True) for m in model.modules() if type(m).__name__ == kind]
    with torch.no_grad():
        model(**inputs)
    for hook in hooks:
        hook.remove()
    assert found
    return found


def linear(parameters: dict[str, Tensor], letter: str, weight: Tensor, bias: Tensor | None) -> None:
    parameters[f"w_{letter}"] = weight.detach().double()
    if bias is not None:
        parameters[f"b_{letter}"] = bias.detach().double()


def projections(m: Any, heads: int, kv_heads: int) -> dict[str, Tensor]:
    """The parameters of an attention module, however it packs them."""
    p: dict[str, Tensor] = {}
    out = next(
        getattr(m, n)
        for n in ("o_proj", "out_proj", "dense", "Wo", "c_proj", "o", "none")
        if hasattr(m, n) or n == "none"
    )
    packed = next((getattr(m, n) for n in ("query_key_value", "Wqkv", "qkv_proj", "c_attn") if hasattr(m, n)), None)
    if packed is None:
        for letter, named in zip("qkv", (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v")), strict=True):
            module = next(getattr(m, n) for n in named if hasattr(m, n))
            linear(p, letter, module.weight, module.bias)
    else:
        turned = type(packed).__name__ == "Conv1D"  # GPT-2's (in, out)
        weight, bias = packed.weight.T if turned else packed.weight, getattr(packed, "bias", None)
        d = weight.shape[0] // (heads + 2 * kv_heads)
        kind = type(m).__name__
        if kind in ("BloomAttention", "GPTNeoXAttention") or (kind == "FalconAttention" and kv_heads == heads):
            rows = [torch.arange(weight.shape[0]).reshape(heads, 3, d)[:, n].flatten() for n in range(3)]
        else:  # all of q, then all of k, then all of v
            rows = list(torch.arange(weight.shape[0]).split([heads * d, kv_heads * d, kv_heads * d]))
        for letter, where in zip("qkv", rows, strict=True):
            linear(p, letter, weight[where], None if bias is None else bias[where])
    linear(p, "o", out.weight.T if type(out).__name__ == "Conv1D" else out.weight, getattr(out, "bias", None))
    plus = 1 if type(m).__name__.startswith("Gemma3") else 0
    for name in ("q_norm", "k_norm"):
        if hasattr(m, name):
            p[name] = getattr(m, name).weight.detach().double() + plus
    if hasattr(m, "sinks"):
        p["sinks"] = m.sinks.detach().double()
    return p


SMALL = {
    "hidden_size": HIDDEN,
    "num_attention_heads": H,
    "vocab_size": VOCABULARY,
    "intermediate_size": 13,
    "pad_token_id": 0,
}
TWO = SMALL | {"num_hidden_layers": 2}
GROUPED = TWO | {"num_key_value_heads": G, "head_dim": D}
ROPED = {"rope_theta": 10000.0, "rope_type": "default"}
LLAMA31 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0}
LLAMA31 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
WINDOWED = {"mask": "causal and window:left=2"}  # 3 keys, its own among them
MODELS: dict[
    str, tuple[str, str, dict[str, Any], Any]
] = {  # model, attention, configuration, layer → (preset, choices)
    "llama2": ("LlamaModel", "LlamaAttention", TWO, lambda n: ("llama2", {})),
    "llama3": (
        "LlamaModel",
        "LlamaAttention",
        GROUPED | {"rope_parameters": ROPED | {"rope_theta": 500000.0}, "attention_bias": True},
        lambda n: ("llama3", {}),
    ),
    "llama3.1": ("LlamaModel", "LlamaAttention", GROUPED | {"rope_parameters": LLAMA31}, lambda n: ("llama3.1", {})),
    "mistral": ("MistralModel", "MistralAttention", GROUPED | {"sliding_window": 3}, lambda n: ("mistral", WINDOWED)),
    "qwen2": ("Qwen2Model", "Qwen2Attention", TWO | {"num_key_value_heads": G}, lambda n: ("qwen2", {})),
    "qwen3": ("Qwen3Model", "Qwen3Attention", GROUPED, lambda n: ("qwen3", {})),
    "olmo2": ("Olmo2Model", "Olmo2Attention", TWO, lambda n: ("olmo2", {})),
    "gemma2": (
        "Gemma2Model",
        "Gemma2Attention",
        GROUPED | {"sliding_window": 3, "query_pre_attn_scalar": D},
        lambda n: (f"gemma2:layer={n}", WINDOWED if n == 0 else {}),
    ),
    "gemma2 with another cap": (
        "Gemma2Model",
        "Gemma2Attention",
        GROUPED | {"sliding_window": 3, "query_pre_attn_scalar": 2, "attn_logit_softcapping": 1.5},
        lambda n: (f"gemma2:layer={n}", (WINDOWED if n == 0 else {}) | {"softcap": 1.5, "scale": 2**-0.5}),
    ),
    "gemma3": (
        "Gemma3TextModel",
        "Gemma3Attention",
        GROUPED | {"sliding_window": 3, "query_pre_attn_scalar": D, "num_hidden_layers": 6},
        lambda n: (f"gemma3:layer={n}", WINDOWED if n < 5 else {}),
    ),
    "gpt-oss": (
        "GptOssModel",
        "GptOssAttention",
        GROUPED | {"sliding_window": 3, "num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size": 16},
        lambda n: (f"gpt-oss:layer={n}", WINDOWED if n == 0 else {}),
    ),
    "cohere2": (
        "Cohere2Model",
        "Cohere2Attention",
        GROUPED | {"sliding_window": 3, "num_hidden_layers": 4},
        lambda n: (f"cohere2:layer={n}", WINDOWED if n < 3 else {}),
    ),
    "smollm3": (
        "SmolLM3Model",
        "SmolLM3Attention",
        GROUPED | {"num_hidden_layers": 4},
        lambda n: (f"smollm3:layer={n}", {}),
    ),
    "phi3": ("Phi3Model", "Phi3Attention", TWO | {"num_key_value_heads": G}, lambda n: ("phi3", {})),
    "modernbert": (
        "ModernBertModel",
        "ModernBertAttention",
        SMALL | {"num_hidden_layers": 4, "local_attention": 4},
        lambda n: (f"modernbert:layer={n}", {"mask": "window:left=2,right=2"} if n % 3 else {}),
    ),
    "gpt-neox": ("GPTNeoXModel", "GPTNeoXAttention", TWO, lambda n: ("gpt-neox", {})),
    "gptj": (
        "GPTJModel",
        "GPTJAttention",
        {"n_embd": HIDDEN, "n_head": H, "n_layer": 2, "vocab_size": VOCABULARY, "rotary_dim": 4, "n_positions": 16},
        lambda n: ("gptj", {"position": "rope:theta=10000,layout=interleaved,dims=4"}),
    ),
    "gpt2": (
        "GPT2Model",
        "GPT2Attention",
        {"n_embd": HIDDEN, "n_head": H, "n_layer": 2, "vocab_size": VOCABULARY, "n_positions": 16},
        lambda n: ("gpt2", {}),
    ),
    "bloom": (
        "BloomModel",
        "BloomAttention",
        {"hidden_size": HIDDEN, "n_head": H, "n_layer": 2, "vocab_size": VOCABULARY},
        lambda n: ("bloom", {}),
    ),
    "mpt": (
        "MptModel",
        "MptAttention",
        {"d_model": HIDDEN, "n_heads": H, "n_layers": 2, "vocab_size": VOCABULARY, "max_seq_len": 16},
        lambda n: ("mpt", {}),
    ),
    "falcon": ("FalconModel", "FalconAttention", TWO, lambda n: ("falcon", {})),
    "falcon-alibi": (
        "FalconModel",
        "FalconAttention",
        TWO | {"alibi": True, "multi_query": False},
        lambda n: ("falcon-alibi", {}),
    ),
}


def held(result: attncli.Attention, weights: Tensor, output: Tensor, tolerance: float = 2e-5) -> None:
    """A model's weights and output are ours."""
    same(values(result, "weights"), weights.double(), rtol=0, atol=tolerance)
    same(values(result, "output"), output.double(), rtol=0, atol=tolerance * float(output.abs().max()))
    assert float(weights.std()) > 0.03  # nothing of it is uniform
    assert not [w for w in result.warnings if not w.startswith("unused-field")]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # transformers, on its own names
@pytest.mark.parametrize("name", MODELS)
def test_eager_attention_of_models(name: str) -> None:
    architecture, kind, options, choose = MODELS[name]
    model = model_of(architecture, **options)
    x = torch.as_tensor(draw(110, B, TOKENS, HIDDEN), dtype=torch.float32)
    layers = watched(model, kind, inputs_embeds=x, output_attentions=True)

    for n, (module, given, out, told) in enumerate(layers):
        preset, choices = choose(n)
        kv_heads = {"falcon": 1}.get(name) or options.get("num_key_value_heads", H)
        parameters = projections(module, H, kv_heads)
        if name == "falcon-alibi":  # its model hands ALiBi to SDPA in the mask, and the eager path adds it once more
            causal = torch.full((TOKENS, TOKENS), torch.finfo(torch.float32).min).triu(1)
            with torch.no_grad():
                out = module(given, alibi=told["alibi"], attention_mask=causal, output_attentions=True)
        output = out[0]
        if name == "bloom":  # what it adds to the residual
            output = output - told["args"][1]
        fields = {"embeddings": given.double(), "parameters": parameters, "w_layout": "out-in"}
        result = compute(fields, name=preset, heads=H, kv_heads=kv_heads, **choices)
        # transformers rounds Falcon's ALiBi to bfloat16
        held(result, out[1], output, 5e-3 if name == "falcon-alibi" else 2e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_eager_attention_of_bert() -> None:
    model = model_of("BertModel", **TWO)
    x = torch.as_tensor(draw(111, B, TOKENS, HIDDEN), dtype=torch.float32)
    for module, given, out, _ in watched(model, "BertSelfAttention", inputs_embeds=x, output_attentions=True):
        p: dict[str, Tensor] = {}
        for letter, one in zip("qkv", (module.query, module.key, module.value), strict=True):
            linear(p, letter, one.weight, one.bias)
        result = compute({"embeddings": given.double(), "parameters": p, "w_layout": "out-in"}, name="bert", heads=H)
        same(values(result, "weights"), out[1].double(), rtol=0, atol=2e-5)
        same(values(result, "context"), out[0].double(), rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_eager_attention_of_t5() -> None:
    """Encoder, decoder and, as `cross`, what joins them; the table stands in the first layer of each stack."""
    options = {"d_model": HIDDEN, "d_kv": E, "num_heads": H, "d_ff": 13, "num_layers": 2, "vocab_size": VOCABULARY}
    model = model_of("T5Model", **options)
    x, y = (torch.as_tensor(draw(n, B, t, HIDDEN), dtype=torch.float32) for n, t in ((112, 40), (113, 37)))
    found = watched(model, "T5Attention", inputs_embeds=x, decoder_inputs_embeds=y, output_attentions=True)

    tables = {False: model.encoder, True: model.decoder}
    kinds = []
    for module, given, out, told in found:
        p = projections(module, H, H)
        fields: dict[str, Any] = {"embeddings": given.double(), "parameters": p, "w_layout": "out-in"}
        decodes, memory = module.is_decoder, told.get("key_value_states")
        if memory is None:
            table = tables[decodes].block[0].layer[0].SelfAttention.relative_attention_bias.weight
            p["bias_table"] = table.detach().double()
            preset: dict[str, Any] = {"name": "t5-decoder" if decodes else "t5-encoder"}
        else:
            fields["memory"] = {"embeddings": memory.double()}
            preset = {"name": "cross", "scale": "none"}
        kinds.append(preset["name"])
        weights = next(o for o in out[1:] if o is not None and o.shape[:2] == (B, H) and o.min() >= 0)
        result = compute(fields, heads=H, **preset)
        same(values(result, "weights"), weights.double(), rtol=0, atol=5e-5)
        same(values(result, "output"), out[0].double(), rtol=0, atol=1e-4 * float(out[0].abs().max()))
    assert kinds == ["t5-encoder"] * 2 + ["t5-decoder", "cross"] * 2


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_eager_attention_of_diffllama() -> None:
    """A pair is heads h and h + H/2; the value of a pair is kv heads g and g + G/2 side by side."""
    heads, kv_heads, d = 8, 4, 6
    options = SMALL | {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": d,
        "num_hidden_layers": 2,
    }
    model = model_of("DiffLlamaModel", **options, rms_norm_eps=1e-5)
    x = torch.as_tensor(draw(114, B, TOKENS, HIDDEN), dtype=torch.float32)
    for n, (module, given, out, _) in enumerate(watched(model, "DiffLlamaAttention", inputs_embeds=x)):
        p = projections(module, heads, kv_heads)
        p["w_v"] = p["w_v"].reshape(2, kv_heads // 2, d, -1).transpose(0, 1).flatten(0, 2)
        p |= {f"lambda_{v}": getattr(module, f"lambda_{v}").detach().double() for v in ("q1", "k1", "q2", "k2")}
        fields = {"embeddings": given.double(), "parameters": p, "w_layout": "out-in"}
        held(compute(fields, name=f"diffllama:layer={n}", heads=heads, kv_heads=kv_heads), out[1], out[0])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_left_padded_batch_of_llama() -> None:
    """Positions per batch item, and padding that is hidden; what padding itself attends to is nobody's."""
    model = model_of("LlamaModel", **GROUPED)
    x = torch.as_tensor(draw(115, B, TOKENS, HIDDEN), dtype=torch.float32)
    there = torch.ones(B, TOKENS, dtype=torch.long)
    there[1, :3] = 0
    positions = (there.cumsum(-1) - 1).clamp(min=0)
    layers = watched(model, "LlamaAttention", inputs_embeds=x, attention_mask=there, position_ids=positions)

    for module, given, out, _ in layers:
        fields = {"embeddings": given.double(), "parameters": projections(module, H, G), "w_layout": "out-in"}
        fields |= {"positions": positions, "mask": there[:, None, None].bool()}
        result = compute(fields, name="llama2", heads=H, kv_heads=G)
        for b, start in ((0, 0), (1, 3)):
            same(values(result, "weights")[b, :, start:], out[1][b, :, start:].double(), rtol=0, atol=2e-5)
            same(values(result, "output")[b, start:], out[0][b, start:].double(), rtol=0, atol=1e-4)


# ── steps and their order; the cache ─────────────────────────────────────────────────────────────
def test_steps_stand_in_the_order_of_computation() -> None:
    q, v = draw(120, B, H, M, D), draw(121, B, H // 2, M, C)
    fields = {"q": q, "k": q, "v": v, "bias": draw(122, M, M), "parameters": {}}
    result = compute(
        fields | {"parameters": {"q_norm": np.ones(D), "k_norm": np.ones(D)}},
        qk_norm="rms",
        position="rope",
        softcap=5,
        temperature=2,
        log_n=2,
        mask="causal",
        sink="zero",
        head_mixing="differential",
        top=2,
    )
    assert names(result) == [
        *("q", "k", "v", "normed_q", "normed_k", "positioned_q", "positioned_k", "scores", "scaled_scores"),
        *("softcapped_scores", "tempered_scores", "length_scaled_scores", "biased_scores", "mask", "masked_scores"),
        *("max_score", "log_sum_exp", "entropy", "visible_keys", "sink_weights", "weights", "mixed_weights"),
        *("top_keys", "top_weights", "head_context", "normed_context", "context"),
    ]


def test_links_that_parts_act_at_stand_in_the_chain() -> None:
    q = draw(123, B, H, M, D)
    parameters = {"talking_pre": np.eye(H), "talking_post": np.eye(H)}
    fields = {"q": q, "k": q, "parameters": parameters}
    chain = "position,scale,mix,mask,softcap,log-n"
    result = compute(
        fields, head_mixing="talking-heads", position="alibi", mask="causal", chain=chain, softcap=3, log_n=2
    )

    assert [n for n in names(result) if n.endswith("scores")] == [
        *("scores", "positioned_scores", "scaled_scores", "mixed_scores", "masked_scores"),
        *("softcapped_scores", "length_scaled_scores"),
    ]
    s = q @ q.swapaxes(-1, -2) - np.array(paper_slopes(H))[:, None, None] * abs(np.subtract.outer(range(M), range(M)))
    same(values(result, "scaled_scores"), s / math.sqrt(D))
    s = 3 * np.tanh(s / math.sqrt(D) / 3) * np.maximum(1, np.log2(np.arange(1, M + 1)))[:, None]
    same(values(result, "weights"), softmax(np.where(np.tri(M, dtype=bool), s, -INF)))


ROTATED = {"position": "rope:layout=interleaved,dims=6", "qk_norm": "rms:eps=0.01"}
DECODED = [
    ROTATED,
    {"position": "rope:scaling=yarn,factor=4,original=16", "qk_norm": "layer:scope=full", "kv_map": "tile"},
    {"position": "rope", "qk_norm": "l2:at=after", "sink": "zero"},
    {"position": "alibi", "qk_norm": "rms"},
    {"position": "t5:buckets=8,max-distance=9,bidirectional=no"},
    {"position": "relative:max-distance=3", "normalizer": "entmax15"},
    {"position": "sinusoidal", "score": "kernel", "normalizer": "sum"},
]


@pytest.mark.parametrize("choices", DECODED, ids=lambda c: c["position"].partition(":")[0])
@pytest.mark.parametrize("pieces", [(4, 5), (1, 1, 7), (6, 2, 1)])
def test_decoding_through_the_past_is_the_full_run(choices: dict[str, str], pieces: tuple[int, ...]) -> None:
    t, width = sum(pieces), 12
    x, parameters = draw(124, B, t, width), {"w_q": draw(125, width, H * D), "w_k": draw(126, width, G * D)}
    parameters |= {"w_v": draw(127, width, G * C), "q_norm": draw(128, D), "k_norm": draw(129, D)}
    if "full" in choices.get("qk_norm", ""):
        parameters |= {"q_norm": draw(128, H * D), "k_norm": draw(129, G * D)}
    if "qk_norm" not in choices:
        parameters = {k: p for k, p in parameters.items() if not k.endswith("norm")}
    rows = {"t5": 8, "relative": 7}.get(choices["position"].partition(":")[0])
    parameters |= {"bias_table": draw(130, rows, H)} if rows else {}
    given = {"heads": H, "kv_heads": G, "mask": "causal", **choices}
    full = compute({"embeddings": x, "parameters": parameters}, **given)
    keys = next(n for n in ("positioned_k", "normed_k", "k") if n in names(full))
    keys = "normed_k" if "after" in choices.get("qk_norm", "") else keys

    past, start = None, 0
    for size in pieces:
        fields: dict[str, Any] = {"embeddings": x[:, start : start + size], "parameters": parameters}
        result = compute(fields | ({"past": past} if past else {}), **given) if past else compute(fields, **given)
        stop = start + size
        same(values(result, "weights"), values(full, "weights")[:, :, start:stop, :stop], rtol=1e-10)
        same(values(result, "context"), values(full, "context")[:, start:stop], rtol=1e-10, atol=1e-12)
        if past:  # what is kept is what was normed and rotated
            same(values(result, "present_k"), values(full, keys)[:, :, :stop], atol=1e-13)
            same(values(result, "present_v"), values(full, "v")[:, :, :stop])
            past = {"k": values(result, "present_k"), "v": values(result, "present_v")}
        else:
            past = {"k": values(result, keys), "v": values(result, "v")}
        start = stop


# ── what is refused, and what its name is ────────────────────────────────────────────────────────
EVEN, ODD = {"q": draw(131, N, D), "k": draw(132, N, D)}, {"q": draw(133, N, E), "k": draw(134, N, E)}
HEADED = {n: draw(135, B, 3, N, D) for n in "qkv"}
ROPE2 = {"q": draw(136, N, 2), "k": draw(137, N, 2)}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "rope on an odd width": (ODD, {"position": "rope"}, "odd-width", "7 of 7"),
    "rope on odd dims": (EVEN, {"position": "rope:dims=3"}, "odd-width", "3 of 8"),
    "rope on more than there is": (EVEN, {"position": "rope:dims=10"}, "odd-width", "10 of 8"),
    "rope on a fraction of nothing": (EVEN, {"position": "rope:fraction=0.1"}, "odd-width", "0 of 8"),
    "proportional on an odd width": (
        ODD,
        {"position": "rope:scaling=proportional,fraction=0.5"},
        "odd-width",
        "7 of 7",
    ),
    "sinusoids on q and k": (EVEN, {"position": "sinusoidal"}, "already-projected", "sinusoidal"),
    "sinusoids on an odd width": ({"embeddings": ODD["q"]}, {"position": "sinusoidal"}, "odd-width", "7"),
    "t5 without a table": (EVEN, {"position": "t5"}, "missing-parameters", "bias_table"),
    "relative without a table": (EVEN, {"position": "relative:max-distance=2"}, "missing-parameters", "bias_table"),
    "a table of other buckets": (
        EVEN | {"parameters": {"bias_table": np.zeros((31, 1))}},
        {"position": "t5"},
        "shape-mismatch",
        "(31, 1)",
    ),
    "a table of 2m rows": (
        EVEN | {"parameters": {"bias_table": np.zeros((6, 1))}},
        {"position": "relative:max-distance=3"},
        "shape-mismatch",
        "(7, 1)",
    ),
    "a table of other heads": (
        HEADED | {"parameters": {"bias_table": np.zeros((7, 2))}},
        {"position": "relative:max-distance=3"},
        "shape-mismatch",
        "(7, 3)",
    ),
    "longrope without factors": (
        EVEN,
        {"position": "rope:scaling=longrope,original=8"},
        "missing-parameters",
        "rope_short",
    ),
    "longrope of too few factors": (
        EVEN | {"parameters": {"rope_short": np.ones(3), "rope_long": np.ones(3)}},
        {"position": "rope:scaling=longrope,original=8"},
        "shape-mismatch",
        "(4)",
    ),
    "general without a matrix": (EVEN, {"score": "general"}, "missing-parameters", "score_w_q"),
    "general with another matrix": (
        EVEN | {"parameters": {"score_w_q": np.ones((D, E))}},
        {"score": "general"},
        "shape-mismatch",
        "(8, 8)",
    ),
    "a sink without sinks": (EVEN, {"sink": "given"}, "missing-parameters", "sinks"),
    "sinks of other heads": (
        HEADED | {"parameters": {"sinks": np.ones(2)}},
        {"sink": "given"},
        "shape-mismatch",
        "(3)",
    ),
    "odd heads in pairs": (HEADED, {"head_mixing": "differential"}, "heads-mismatch", "3 heads"),
    "talking heads without a word": (HEADED, {"head_mixing": "talking-heads"}, "missing-parameters", "talking_pre"),
    "half of the vectors of λ": (
        {n: draw(138, B, h, N, w) for n, h, w in (("q", 2, D), ("k", 2, D), ("v", 1, 2 * D))}
        | {"parameters": {"lambda_q1": np.ones(D), "lambda_k1": np.ones(D)}},
        {"head_mixing": "differential"},
        "missing-parameters",
        "lambda_k2 and lambda_q2",
    ),
    "a gain of another width": (
        EVEN | {"parameters": {"q_norm": np.ones(E)}},
        {"qk_norm": "rms"},
        "shape-mismatch",
        "(8)",
    ),
    "a head's gain for all heads": (
        HEADED | {"parameters": {"q_norm": np.ones(D)}},
        {"qk_norm": "rms:scope=full"},
        "shape-mismatch",
        "(24)",
    ),
    "cosine of two widths": ({"q": EVEN["q"], "k": ODD["k"]}, {"score": "cosine"}, "shape-mismatch", "cosine"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_problem_cannot_have_is_refused(name: str) -> None:
    fields, choices, code, says = REFUSED[name]
    with pytest.raises(InputError) as caught:
        compute(fields, **choices)

    assert caught.value.code == code
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        *(
            ({"sink": "zero", "normalizer": n}, n)
            for n in ("sigmoid", "sparsemax", "entmax15", "topk:k=2", "hardmax", "sum", "none")
        ),
        ({"sink": "given", "normalizer": "relu"}, "relu"),
        ({"position": "rope:scaling=linear"}, "factor"),
        ({"position": "rope:scaling=yarn,factor=2"}, "original"),
        ({"position": "rope:factor=2"}, "factor"),
        ({"position": "rope:dims=2,fraction=0.5"}, "fraction"),
        ({"position": "rope:scaling=llama3,factor=2,original=8,low=4,high=4"}, "high"),
        ({"position": "rope:layout=quarter"}, "quarter"),
        ({"position": "rope:fraction=1.5"}, "1.5"),
        ({"position": "alibi:max=0"}, "0"),
        ({"position": "relative"}, "max-distance"),
        ({"normalizer": "entmax:alpha=0.5"}, "0.5"),
        ({"normalizer": "topk"}, "k"),
        ({"normalizer": "topk:k=0"}, "0"),
        ({"qk_norm": "rms:eps=-1"}, "-1"),
        ({"score": "kernel:phi=gelu"}, "gelu"),
        ({"head_mixing": "differential:depth=-1"}, "-1"),
        ({"log_n": 1}, "1"),
        ({"mask": "natten:kernel=0"}, "0"),
        ({"mask": "fixed:summary=1"}, "stride"),
        ({"mask": "fixed:stride=3,summary=4"}, "summary"),
        ({"mask": "bigbird:window=2"}, "odd"),
    ],
)
def test_what_a_variant_cannot_be_is_refused(choices: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError) as caught:
        attncli.Variant(**choices)

    assert says in str(caught.value) + (caught.value.help or "")


# Each of these must be refused by attncli itself (an AttnError), or computed: never a bare error of torch or Python.
UNREFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ntk on two columns": (ROPE2, {"position": "rope:scaling=ntk,factor=2"}),
    "dynamic on two columns": (ROPE2, {"position": "rope:scaling=dynamic,factor=2,original=2"}),
    "yarn with theta 1": (EVEN, {"position": "rope:theta=1,scaling=yarn,factor=2,original=4"}),
    "t5 whose distances are all exact": (
        {"q": np.zeros((20, 2)), "k": np.zeros((20, 2)), "parameters": {"bias_table": np.zeros((32, 1))}},
        {"position": "t5:buckets=32,max-distance=8"},
    ),
    "a gain of (H, H·d) for all heads": (
        HEADED | {"parameters": {"q_norm": np.ones((3, 3 * D))}},
        {"qk_norm": "rms:scope=full"},
    ),
    "rope on keys of another width": (
        {"q": EVEN["q"], "k": ODD["k"], "parameters": {"score_w_q": np.ones((D, E))}},
        {"position": "rope", "score": "general"},
    ),
    "rope on keys narrower than dims": (
        {"q": EVEN["q"], "k": EVEN["k"][:, :4], "parameters": {"score_w_q": np.ones((D, 4))}},
        {"position": "rope:dims=6", "score": "general"},
    ),
    "sinusoids on a memory of odd width": (
        {"embeddings": EVEN["q"], "memory": {"embeddings": ODD["k"]}, "parameters": {"w_k": np.ones((E, D))}},
        {"position": "sinusoidal", "align": "top-left"},
    ),
    "additive of two widths": ({"q": EVEN["q"], "k": ODD["k"]}, {"score": "additive"}),
    "additive with half its matrices": (EVEN | {"parameters": {"score_w_q": np.ones((D, 5))}}, {"score": "additive"}),
    "concat with weights of another width": (EVEN | {"parameters": {"score_v": np.ones(5)}}, {"score": "concat"}),
}


@pytest.mark.parametrize("name", UNREFUSED)
def test_nothing_but_our_own_errors_comes_out(name: str) -> None:
    fields, choices = UNREFUSED[name]
    with contextlib.suppress(AttnError):
        assert np.isfinite(values(compute(fields, **choices), "weights")).all()
