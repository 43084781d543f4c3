"""Which steps a result has and in which order; decoding through the past is the full run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.helpers import assert_close, compute, draw_normal, softmax, step_names, step_values
from tests.parts.position_formulas import paper_slopes

pytestmark = pytest.mark.usefixtures("own_stream")
INF = math.inf
B, H, G, N, M, D, E, C = 2, 6, 3, 4, 5, 8, 7, 9  # batch, heads, kv heads, queries, keys, width of q, of another k, of v


def test_steps_stand_in_the_order_of_computation() -> None:
    q, v = draw_normal(120, B, H, M, D), draw_normal(121, B, H // 2, M, C)
    fields = {"q": q, "k": q, "v": v, "bias": draw_normal(122, M, M), "parameters": {}}
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
    assert step_names(result) == [
        *("q", "k", "v", "normed_q", "normed_k", "positioned_q", "positioned_k", "scores", "scaled_scores"),
        *("softcapped_scores", "tempered_scores", "length_scaled_scores", "biased_scores", "mask", "masked_scores"),
        *("max_score", "log_sum_exp", "entropy", "visible_keys", "sink_weights", "weights", "mixed_weights"),
        *("top_keys", "top_weights", "head_context", "normed_context", "context"),
    ]


def test_links_that_parts_act_at_stand_in_the_chain() -> None:
    q = draw_normal(123, B, H, M, D)
    parameters = {"talking_pre": np.eye(H), "talking_post": np.eye(H)}
    fields = {"q": q, "k": q, "parameters": parameters}
    chain = "position,scale,mix,mask,softcap,log-n"
    result = compute(
        fields, head_mixing="talking-heads", position="alibi", mask="causal", chain=chain, softcap=3, log_n=2
    )

    assert [n for n in step_names(result) if n.endswith("scores")] == [
        *("scores", "positioned_scores", "scaled_scores", "mixed_scores", "masked_scores"),
        *("softcapped_scores", "length_scaled_scores"),
    ]
    s = q @ q.swapaxes(-1, -2) - np.array(paper_slopes(H))[:, None, None] * abs(np.subtract.outer(range(M), range(M)))
    assert_close(step_values(result, "scaled_scores"), s / math.sqrt(D))
    s = 3 * np.tanh(s / math.sqrt(D) / 3) * np.maximum(1, np.log2(np.arange(1, M + 1)))[:, None]
    assert_close(step_values(result, "weights"), softmax(np.where(np.tri(M, dtype=bool), s, -INF)))


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
    x, parameters = (
        draw_normal(124, B, t, width),
        {"w_q": draw_normal(125, width, H * D), "w_k": draw_normal(126, width, G * D)},
    )
    parameters |= {"w_v": draw_normal(127, width, G * C), "q_norm": draw_normal(128, D), "k_norm": draw_normal(129, D)}
    if "full" in choices.get("qk_norm", ""):
        parameters |= {"q_norm": draw_normal(128, H * D), "k_norm": draw_normal(129, G * D)}
    if "qk_norm" not in choices:
        parameters = {k: p for k, p in parameters.items() if not k.endswith("norm")}
    rows = {"t5": 8, "relative": 7}.get(choices["position"].partition(":")[0])
    parameters |= {"bias_table": draw_normal(130, rows, H)} if rows else {}
    given = {"heads": H, "kv_heads": G, "mask": "causal", **choices}
    full = compute({"embeddings": x, "parameters": parameters}, **given)
    keys = next(n for n in ("positioned_k", "normed_k", "k") if n in step_names(full))
    keys = "normed_k" if "after" in choices.get("qk_norm", "") else keys

    past, start = None, 0
    for size in pieces:
        fields: dict[str, Any] = {"embeddings": x[:, start : start + size], "parameters": parameters}
        result = compute(fields | ({"past": past} if past else {}), **given) if past else compute(fields, **given)
        stop = start + size
        assert_close(step_values(result, "weights"), step_values(full, "weights")[:, :, start:stop, :stop], rtol=1e-10)
        assert_close(
            step_values(result, "context"), step_values(full, "context")[:, start:stop], rtol=1e-10, atol=1e-12
        )
        if past:  # what is kept is what was normed and rotated
            assert_close(step_values(result, "present_k"), step_values(full, keys)[:, :, :stop], atol=1e-13)
            assert_close(step_values(result, "present_v"), step_values(full, "v")[:, :, :stop])
            past = {"k": step_values(result, "present_k"), "v": step_values(result, "present_v")}
        else:
            past = {"k": step_values(result, keys), "v": step_values(result, "v")}
        start = stop
