"""Wrong kernels in plain NumPy, third part: figures of another step, axes taken for others, masks, directions and sinks."""

from __future__ import annotations

import numpy as np

from tests.check.planted import draw, plant, scores_of, side_by_side, softmax_rows
from tests.check.planted_inputs import AT, CAUSAL, future, given, kernel, lengths, none, turn


def parts(q, k, v, *, causal=False, weigh=softmax_rows):
    """Scores, weights and context of heads: (b, h, n, m), (b, h, n, m), (b, h, n, c)"""
    s = scores_of(q, k, causal)
    w = weigh(s)
    return s, w, w @ v


# ── other steps, and figures on their side ───────────────────────────────────────────────────────
def claiming(name, *says, figures, choices=None, sizes=None):
    """Plant: figures(q, k, v) → claims."""

    @plant(name, *says)
    def make(r):
        q, k, v = draw(r, **{"h": 1, "n": 7, "d": 7} | (sizes or {}))
        return {"q": q, "k": k, "v": v}, choices or {}, figures(q, k, v)


claiming("weights for scores", "the one called weights", figures=lambda q, k, v: {"scores": parts(q, k, v)[1]})
claiming(
    "scaled scores for weights", "the one called scaled_scores", figures=lambda q, k, v: {"weights": parts(q, k, v)[0]}
)
claiming("v for context", "the one called v", figures=lambda q, k, v: {"context": side_by_side(v)})
claiming("weights in percent", "in percent", figures=lambda q, k, v: {"weights": 100 * parts(q, k, v)[1]})
claiming("weights × 0.83", "with weights × 0.83", figures=lambda q, k, v: {"weights": 0.83 * parts(q, k, v)[1]})
claiming("context on its side", "query and dim exchanged",
         figures=lambda q, k, v: {"context": side_by_side(parts(q, k, v)[2]).swapaxes(1, 2)})  # fmt: skip
claiming("heads for queries", "head and query exchanged", sizes={"h": 6, "n": 6},
         figures=lambda q, k, v: {"weights": parts(q, k, v)[1].swapaxes(1, 2)})  # fmt: skip

# ── axes taken for others ────────────────────────────────────────────────────────────────────────
claiming("q @ k", "q k for q kᵀ", figures=lambda q, k, v: {"context": side_by_side(softmax_rows(q @ k / 7**0.5) @ v)})
claiming("softmax over one cell", "over an axis of length 1", sizes={"n": 5},
         figures=lambda q, k, v: {"context": side_by_side(np.ones_like(q[..., :1]) * v.sum(2, keepdims=True))})  # fmt: skip


def over_heads(q, k, v):
    """(b, h, t, d) → (b, t, h, d)"""
    return parts(*(x.swapaxes(1, 2) for x in (q, k, v)))[2]


given("heads for tokens", "heads taken for tokens", fields=none,
      wrong=lambda q, k, v, f: side_by_side(over_heads(q, k, v).swapaxes(1, 2)))  # fmt: skip
given("heads for tokens, transposed after", "heads taken for tokens", fields=none,
      wrong=lambda q, k, v, f: over_heads(q, k, v).swapaxes(1, 2).reshape(2, 9, 24))  # fmt: skip
given("items for tokens", "items of the batch taken for tokens", fields=none, sizes={"b": 3},
      wrong=lambda q, k, v, f: side_by_side(parts(*(x.transpose(2, 1, 0, 3) for x in (q, k, v)))[2].transpose(2, 1, 0, 3)))  # fmt: skip


def embedded(name, says, figures):
    @plant(name, says)
    def make(r):
        x = r.standard_normal((6, 6))
        return {"embeddings": x}, {}, {"context": figures(x)}


def of_embeddings(x):
    return parts(*(x[None, None] for _ in "qkv"))[2][0, 0]


embedded("embeddings transposed", "rows and columns of the embeddings", lambda x: of_embeddings(x.T))
embedded("tokens as columns", "tokens as columns", lambda x: of_embeddings(x.T).T)

# ── masks, directions, sinks ─────────────────────────────────────────────────────────────────────
given("padding on the left", "taken to be on the left", fields=lengths, sizes={"b": 3},
      wrong=lambda q, k, v, f: kernel(q, k, v, hide=9 - f["lengths"][:, None, None, None] > AT))  # fmt: skip


def _queries_masked(q, k, v, f):
    is_padding = AT[:, None] >= f["lengths"][:, None, None, None]
    return side_by_side(softmax_rows(np.where(is_padding, -6e4, scores_of(q, k, False))) @ v)


given("padded queries masked", "masked instead of the padded keys, whose rows are then uniform", fields=lengths,
      sizes={"b": 3}, wrong=_queries_masked)  # fmt: skip
for _reach in (2, 3):
    given(f"window of {_reach} on both sides", "keys on both sides", fields=none, choices={"mask": "causal and window:left=2"},
          wrong=lambda q, k, v, f, r=_reach: kernel(q, k, v, hide=abs(AT - AT[:, None]) > r))  # fmt: skip


def segments(r, q, k, v):
    return {"segments": np.array([0, 1, 1, 2, 3, 3, 3, 4, 5])}


given("segments as one", "as one segment", fields=segments, choices={"mask": "causal or document"},
      wrong=lambda q, k, v, f: kernel(q, k, v, hide=future(9) & ~np.isin(f["segments"], [1, 3]) | (future(9) & ~np.isin(f["segments"], [1, 3])[:, None])))  # fmt: skip


def table(r, q, k, v):
    return {"parameters": {"bias_table": r.standard_normal((5, q.shape[1]))}}


given("distance the other way round", "by i − j instead of j − i", fields=table, choices={"position": "relative:max-distance=2"},
      wrong=lambda q, k, v, f: kernel(q, k, v, add=f["parameters"]["bias_table"][np.clip(AT[:, None] - AT, -2, 2) + 2].transpose(2, 0, 1)))  # fmt: skip


def _with_shifted_sink(sign):
    def wrong(q, k, v, f):
        s = scores_of(q, k, False)
        top = s.max(-1, keepdims=True)
        extra = np.exp(f["parameters"]["sinks"][:, None, None] + (sign - 1) * top)  # beside e^(s − max)
        e = np.exp(s - top)
        return side_by_side(e / (e.sum(-1, keepdims=True) + extra) @ v)

    return wrong


def _sinks(r, q, k, v):
    return {"parameters": {"sinks": r.standard_normal(q.shape[1])}}


given(
    "sink not shifted", "but not from the sink", fields=_sinks, choices={"sink": "given"}, wrong=_with_shifted_sink(1)
)
given(
    "sink shifted twice", "from the sink twice", fields=_sinks, choices={"sink": "given"}, wrong=_with_shifted_sink(-1)
)


def _turn_as_moved(x):
    moved = np.concatenate([x[..., 4:], x[..., :4]], -1)  # rest and turned, as they are in the model
    return turn(moved, AT, dims=4)


given("rope: first columns of rest and turned", "and was moved to the front", fields=none, sizes={"d": 7},
      choices={**CAUSAL, "position": "rope:dims=4"},
      wrong=lambda q, k, v, f: kernel(_turn_as_moved(q), _turn_as_moved(k), v, hide=future(9)))  # fmt: skip


@plant("sum over chunks", "newest chunk of 4")
def sum_over_chunks(r):
    q, k, v = draw(r, h=1, n=11)
    phi = lambda x: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))  # noqa: E731
    s = np.tril(phi(q) @ phi(k).swapaxes(-1, -2))
    chunk = np.arange(11) // 4
    own = (s * (chunk == chunk[:, None])).sum(-1, keepdims=True)
    return {"q": q, "k": k, "v": v}, {"name": "linear", "mask": "causal"}, {"context": side_by_side(s / own @ v)}
