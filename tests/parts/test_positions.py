"""Positions on embeddings, on q and k, and on scores: the formulas of their papers, pair by pair."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import torch

import attncli
from attncli.errors import OptionError
from attncli.variant import Variant
from tests.helpers import assert_close, assert_identical, compute, draw_normal, softmax, step_names, step_values
from tests.parts.position_formulas import omegas, paper_slopes, rotated

pytestmark = pytest.mark.usefixtures("own_stream")
B, H, G, N, M, D, E, C = 2, 6, 3, 4, 5, 8, 7, 9  # batch, heads, kv heads, queries, keys, width of q, of another k, of v


def heads_of(seed: int, d_k: int = D) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """q (B, H, N, D), k (B, H, M, d_k), v (B, H, M, C)"""
    return draw_normal(seed, B, H, N, D), draw_normal(seed + 1, B, H, M, d_k), draw_normal(seed + 2, B, H, M, C)


Q_POS, K_POS = [3, 0, 19, 8], [5, 4, 1, 2, 17]


@pytest.mark.parametrize("theta", [10000.0, 50.0])
@pytest.mark.parametrize("layout", ["interleaved", "halves"])
def test_sinusoids_are_vaswanis(layout: str, theta: float) -> None:
    """Vaswani et al. 2017, §3.5: PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos; halves is tensor2tensor's."""
    x, positions = draw_normal(15, B, N, D), np.array([[0, 1, 2, 3], [7, 0, 500, 3]])
    code = np.zeros((B, N, D))
    for b in range(B):
        for t, p in enumerate(positions[b]):
            for i in range(D // 2):
                angle = p / theta ** (2 * i / D)
                where = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, D // 2 + i)
                code[b, t, where[0]], code[b, t, where[1]] = math.sin(angle), math.cos(angle)
    w_q = draw_normal(16, D, E)
    fields = {"embeddings": x, "positions": positions, "parameters": {"w_q": w_q, "w_k": w_q}}
    result = compute(fields, position=f"sinusoidal:layout={layout},theta={theta}")

    assert step_names(result)[0] == "positioned_embeddings"
    assert_close(step_values(result, "positioned_embeddings"), x + code)
    assert_close(step_values(result, "q"), (x + code) @ w_q)
    assert_close(step_values(result, "v"), x + code)


def test_sinusoids_of_a_memory_are_at_its_own_positions() -> None:
    x, y = draw_normal(17, N, D), draw_normal(18, M, D)
    fields = {"embeddings": x, "memory": {"embeddings": y}, "positions": [3, 1, 4, 0], "k_positions": [2, 7, 1, 8, 5]}
    result = compute(fields, position="sinusoidal")

    def code(at: list[int]) -> np.ndarray:
        wave = [math.sin, math.cos] * (D // 2)
        return np.array([[wave[i](t / 10000 ** (i // 2 * 2 / D)) for i in range(D)] for t in at])

    assert_close(step_values(result, "positioned_embeddings"), x + code(fields["positions"]))
    assert_close(step_values(result, "k"), y + code(fields["k_positions"]))


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


@pytest.mark.parametrize("text", ROPES)
def test_rope_turns_pairs(text: str) -> None:
    layout, r, omega = ROPES[text]
    q, k, _ = heads_of(20)
    result = compute({"q": q, "k": k, "positions": Q_POS, "k_positions": K_POS}, position=text)
    assert len(omega) == r // 2

    q_turned, k_turned = rotated(q, Q_POS, omega, layout), rotated(k, K_POS, omega, layout)
    assert_close(step_values(result, "positioned_q"), q_turned, rtol=1e-11, atol=1e-13)
    assert_close(step_values(result, "positioned_k"), k_turned, rtol=1e-11, atol=1e-13)
    assert_identical(step_values(result, "positioned_q")[..., r:], q[..., r:])
    assert_close(step_values(result, "scores"), q_turned @ k_turned.swapaxes(-1, -2), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("scaling", "text"), [("none", "rope"), ("linear", "rope:scaling=linear,factor=3")])
def test_rope_scores_know_distances_alone(scaling: str, text: str) -> None:
    q, k = draw_normal(22, N, D), draw_normal(23, N, D)
    near = compute({"q": q, "k": k, "positions": [0, 1, 2, 3]}, position=text)
    far = compute({"q": q, "k": k, "positions": [100, 101, 102, 103]}, position=text)

    assert not np.allclose(step_values(near, "positioned_q"), step_values(far, "positioned_q"), atol=1e-2), scaling
    assert_close(step_values(near, "scores"), step_values(far, "scores"), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("r", [D, 6])
def test_permuting_columns_turns_one_layout_into_the_other(r: int) -> None:
    """semantics 2.10: the same scores iff the turned columns are permuted to 0, 2, 4, …, 1, 3, 5, …"""
    q, k, _ = heads_of(24)
    order = [*range(0, r, 2), *range(1, r, 2), *range(r, D)]
    fields = {"positions": Q_POS, "k_positions": K_POS}
    pairs = compute({"q": q, "k": k, **fields}, position=f"rope:layout=interleaved,dims={r}")
    halves = compute({"q": q[..., order], "k": k[..., order], **fields}, position=f"rope:layout=half,dims={r}")
    unpermuted = compute({"q": q, "k": k, **fields}, position=f"rope:layout=half,dims={r}")

    assert_close(step_values(halves, "positioned_q"), step_values(pairs, "positioned_q")[..., order])
    assert_close(step_values(halves, "scores"), step_values(pairs, "scores"), rtol=1e-11, atol=1e-13)
    assert not np.allclose(step_values(unpermuted, "scores"), step_values(pairs, "scores"), atol=1e-2)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_rope_turns_the_last_columns_as_it_turns_the_first(layout: str) -> None:
    """DeepSeek's MLA holds [nope | rope]."""
    q, k = draw_normal(70, 3, 5, 10), draw_normal(71, 3, 5, 10)
    rolled = {"q": np.roll(q, 4, -1), "k": np.roll(k, 4, -1), "layout": "htd"}  # the last four come first

    last = compute({"q": q, "k": k, "layout": "htd"}, position=f"rope:layout={layout},dims=4,columns=last")
    first = compute(rolled, position=f"rope:layout={layout},dims=4")

    assert_close(step_values(last, "positioned_q"), np.roll(step_values(first, "positioned_q"), -4, -1))
    assert_close(step_values(last, "scores"), step_values(first, "scores"))
    assert_identical(step_values(last, "positioned_k")[..., :6], k[..., :6])


def test_rope_positions_of_each_batch_item() -> None:
    """Left padding: the item that starts two tokens later has the scores of its tokens alone."""
    x, pad = draw_normal(25, 3, D), draw_normal(26, 2, D)
    positions = [[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]]
    q = np.stack([np.concatenate([x, pad]), np.concatenate([pad, x])])
    mask = np.ones((2, 1, 5, 5), bool)
    mask[1, ..., :2] = False
    result = compute({"q": q, "k": q, "v": q, "positions": positions, "mask": mask}, position="rope", mask="causal")

    for b in range(2):
        assert_close(step_values(result, "positioned_q")[b], rotated(q[b], positions[b], omegas(D)), rtol=1e-11)
    assert_close(step_values(result, "weights")[1, 2:, 2:], step_values(result, "weights")[0, :3, :3])
    assert_close(step_values(result, "context")[1, 2:], step_values(result, "context")[0, :3])


def slopes_of(result: attncli.Attention) -> np.ndarray:
    """What a distance of 1 takes from each head's scores."""
    return (step_values(result, "scores") - step_values(result, "positioned_scores"))[0, :, 0, 1]


@pytest.mark.parametrize("heads", range(1, 18))
def test_alibi_slopes_are_the_papers_for_every_number_of_heads(heads: int) -> None:
    q = np.zeros((1, heads, 2, 3))
    assert_close(slopes_of(compute({"q": q, "k": q}, position="alibi")), paper_slopes(heads), rtol=1e-14)


@pytest.mark.parametrize("heads", [1, 2, 5, 8, 11, 12, 16, 17])
def test_alibi_slopes_are_those_of_bloom_and_mpt(heads: int) -> None:
    """transformers' own, in float32."""
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    mpt = importlib.import_module("transformers.models.mpt.modeling_mpt")
    q = np.zeros((1, heads, 2, 3))
    own = slopes_of(compute({"q": q, "k": q}, position="alibi"))

    assert_close(bloom.build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1], own, rtol=1e-6)
    assert_close(mpt.build_mpt_alibi_tensor(heads, 3)[:, 0, 1], -own, rtol=1e-6)
    six = slopes_of(compute({"q": q, "k": q}, position="alibi:max=6"))
    assert_close(mpt.build_mpt_alibi_tensor(heads, 3, alibi_bias_max=6)[:, 0, 1], -six, rtol=1e-6)


def test_alibi_is_minus_the_slope_times_the_distance_both_ways() -> None:
    q, k, _ = heads_of(30)
    result = compute({"q": q, "k": k, "positions": Q_POS, "k_positions": K_POS}, position="alibi")
    distance = np.abs(np.subtract.outer(Q_POS, K_POS))
    expected = q @ k.swapaxes(-1, -2) / math.sqrt(D) - np.array(paper_slopes(H))[:, None, None] * distance

    assert_close(step_values(result, "positioned_scores"), expected)
    assert_close(step_values(result, "weights"), softmax(expected))
    assert step_names(result).index("scaled_scores") < step_names(result).index("positioned_scores")


def t5_buckets(buckets: int, max_distance: int, bidirectional: bool, queries: list[int], keys: list[int]) -> np.ndarray:
    """The bucket our bias is read from: a table whose row r holds r."""
    q, k = np.zeros((len(queries), 2)), np.zeros((len(keys), 2))
    table = np.arange(float(buckets))[:, None]
    text = f"t5:buckets={buckets},max-distance={max_distance},bidirectional={'yes' if bidirectional else 'no'}"
    fields = {"q": q, "k": k, "positions": queries, "k_positions": keys, "parameters": {"bias_table": table}}
    result = attncli.attend(attncli.Problem(**fields), attncli.Variant(position=text), keep={"positioned_scores"})
    return step_values(result, "positioned_scores")


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

    assert_identical(got, expected.double())
    assert len(np.unique(got)) > buckets // 2 - 1


def test_t5_buckets_of_the_paper() -> None:
    """Raffel et al. 2020, §2.1: all offsets of 128 and more share a bucket; the near ones have one each."""
    got = t5_buckets(32, 128, True, [200], list(range(401)))[0]

    assert_identical(got[200 - 7 : 201], np.arange(7, -1, -1))
    assert_identical(got[201:208], 16 + np.arange(1, 8))
    assert set(got[: 200 - 127]) == {15}
    assert set(got[200 + 128 :]) == {31}
    assert_identical(t5_buckets(32, 128, False, [200], list(range(185, 206)))[0], [*range(15, -1, -1), 0, 0, 0, 0, 0])


def test_t5_bias_of_heads_and_batch_is_unscaled() -> None:
    q, k, _ = heads_of(31)
    positions, k_positions = np.array([[0, 5, 40, 9], [3, 2, 1, 0]]), np.array([[0, 1, 2, 30, 4], [9, 1, 8, 2, 7]])
    table = draw_normal(32, 8, H)
    fields = {"q": q, "k": k, "positions": positions, "k_positions": k_positions, "parameters": {"bias_table": table}}
    result = compute(fields, position="t5:buckets=8,max-distance=20,bidirectional=no")

    def bucket(back: int) -> int:  # 4 exact, then 4 that widen up to 20
        back = max(back, 0)
        return back if back < 4 else min(4 + int(math.log(back / 4) / math.log(20 / 4) * 4), 7)

    bias = np.array(
        [[[table[bucket(i - j)] for j in ks] for i in qs] for qs, ks in zip(positions, k_positions, strict=True)]
    )
    assert_close(
        step_values(result, "positioned_scores"), q @ k.swapaxes(-1, -2) / math.sqrt(D) + bias.transpose(0, 3, 1, 2)
    )


@pytest.mark.parametrize("most", [0, 1, 3, 40])
def test_relative_bias_is_clipped(most: int) -> None:
    """Shaw et al. 2018, eq. 4: clip(j − i, −k, k)."""
    q, k, _ = heads_of(33)
    table = draw_normal(34, 2 * most + 1, H)
    fields = {"q": q, "k": k, "positions": Q_POS, "k_positions": K_POS, "parameters": {"bias_table": table}}
    result = compute(fields, position=f"relative:max-distance={most}", scale="none")
    bias = np.array([[table[max(-most, min(most, j - i)) + most] for j in K_POS] for i in Q_POS])

    assert_close(step_values(result, "positioned_scores"), q @ k.swapaxes(-1, -2) + bias.transpose(2, 0, 1))


@pytest.mark.parametrize("option", ["factor=2", "original=64"])
def test_an_option_of_a_scaling_needs_one(option: str) -> None:
    with pytest.raises(OptionError, match=f"{option.partition('=')[0]} needs a scaling"):
        Variant(position=f"rope:{option}")
