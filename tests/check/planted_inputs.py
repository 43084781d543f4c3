"""Wrong kernels in plain NumPy, second part: slices, caches, rotations, norms, sinks, biases and dropout."""

from __future__ import annotations

import math

import numpy as np

from tests.check.planted import draw, plant, scores_of, side_by_side, softmax_rows

INF = np.inf


def kernel(q, k, v, *, add=0.0, hide=None, scale=None, sinks=None, weigh=lambda w: w):
    """(b, h, n, d), (b, g, m, d), (b, g, m, c) → (b, n, h·c)"""
    times = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, times, 1), np.repeat(v, times, 1)
    s = q @ k.swapaxes(-1, -2) * (scale or 1 / math.sqrt(q.shape[-1])) + add
    s = s if hide is None else np.where(hide, -INF, s)
    if sinks is not None:
        column = np.broadcast_to(np.asarray(sinks)[:, None, None], (*s.shape[:-1], 1))
        s = np.concatenate([s, column], -1)
    w = softmax_rows(s)[..., : k.shape[-2]]
    return side_by_side(weigh(w) @ v)


def future(n, m=None):
    m = m or n
    return ~np.tril(np.ones((n, m), bool), m - n)


def given(name, *says, fields, wrong, choices=None, sizes=None):
    """Plant: fields(r, q, k, v) → further fields; wrong(q, k, v, fields) → context."""

    @plant(name, *says)
    def make(r):
        q, k, v = draw(r, **{"b": 2, "h": 4, "n": 9, "d": 6} | (sizes or {}))
        more = fields(r, q, k, v)
        return {"q": q, "k": k, "v": v, **more}, choices or {}, {"context": wrong(q, k, v, more)}


CAUSAL = {"mask": "causal"}
none = lambda r, q, k, v: {}  # noqa: E731

# ── slices ───────────────────────────────────────────────────────────────────────────────────────
given("heads shifted", "of the next head", fields=none, choices=CAUSAL,
      wrong=lambda q, k, v, f: side_by_side(np.roll(kernel(q, k, v, hide=future(9)).reshape(2, 9, 4, 6).transpose(0, 2, 1, 3), -1, 1)))  # fmt: skip
given("heads swapped in pairs", "its neighbour, in pairs", fields=none,
      wrong=lambda q, k, v, f: side_by_side(kernel(q, k, v).reshape(2, 9, 4, 6).transpose(0, 2, 1, 3)[:, [1, 0, 3, 2]]))  # fmt: skip
given("v of the next head", "v of the next head", fields=none, wrong=lambda q, k, v, f: kernel(q, k, np.roll(v, -1, 1)))
given(
    "k of the previous head",
    "k of the previous head",
    fields=none,
    wrong=lambda q, k, v, f: kernel(q, np.roll(k, 1, 1), v),
)
given("v of head 0", "v of the first head", fields=none, wrong=lambda q, k, v, f: kernel(q, k, v[:, [0] * 4]))
given("k of head 0", "k of the first head", fields=none, wrong=lambda q, k, v, f: kernel(q, k[:, [0] * 4], v))
given(
    "q of the last head",
    "q of the last head",
    fields=none,
    wrong=lambda q, k, v, f: kernel(np.repeat(q[:, 3:], 4, 1), k, v),
)
given(
    "last head zero",
    "0 for head 3",
    fields=none,
    wrong=lambda q, k, v, f: kernel(q, k, v * np.array([1, 1, 1, 0])[:, None, None]),
)
given("items swapped", "item", fields=none, wrong=lambda q, k, v, f: kernel(q, k, v)[::-1])
given(
    "k and v of the first item",
    "k and v of the first item",
    fields=none,
    wrong=lambda q, k, v, f: kernel(q, k[:1].repeat(2, 0), v[:1].repeat(2, 0)),
)
given("v of the other item", "v of the", fields=none, wrong=lambda q, k, v, f: kernel(q, k, v[::-1]), sizes={"b": 3})
given("rows shifted", "of the query before", fields=none, wrong=lambda q, k, v, f: np.roll(kernel(q, k, v), 1, 1))
given(
    "values one row off", "v of the token before", fields=none, wrong=lambda q, k, v, f: kernel(q, k, np.roll(v, 1, 2))
)
given("keys one row off", "k of the token after", fields=none, wrong=lambda q, k, v, f: kernel(q, np.roll(k, -1, 2), v))
given("dims reversed", "in reverse order", fields=none, wrong=lambda q, k, v, f: kernel(q, k, v[..., ::-1]))
given("k tiled, v interleaved", "k alone tiled", fields=none, sizes={"g": 2},
      wrong=lambda q, k, v, f: kernel(q, np.tile(k, (1, 2, 1, 1)), np.repeat(v, 2, 1)))  # fmt: skip
given("v tiled, k interleaved", "v alone tiled", fields=none, sizes={"g": 2},
      wrong=lambda q, k, v, f: kernel(q, np.repeat(k, 2, 1), np.tile(v, (1, 2, 1, 1))))  # fmt: skip


def lengths(r, q, k, v):
    return {"lengths": np.array([5, 7, 9])}


for _name, _order, _says in (
    ("of the first item", [0, 0, 0], "lengths of the first item"),
    ("of the next item", [1, 2, 0], "lengths of the next item"),
    ("of the last item", [2, 2, 2], ("lengths of the last item", "lengths")),
):
    given(f"lengths {_name}", *([_says] if isinstance(_says, str) else _says), fields=lengths, sizes={"b": 3},
          wrong=lambda q, k, v, f, o=_order: kernel(q, k, v, hide=np.arange(9) >= f["lengths"][o][:, None, None, None]))  # fmt: skip


def mask_of_items(r, q, k, v):
    mask = r.random((q.shape[0], 1, q.shape[2], k.shape[2])) < 0.6
    mask[..., 0] = True
    return {"mask": mask}


def mask_of_heads(r, q, k, v):
    mask = r.random((q.shape[0], q.shape[1], q.shape[2], k.shape[2])) < 0.6
    mask[..., 0] = True
    return {"mask": mask}


def bias_of_heads(r, q, k, v):
    return {"bias": r.standard_normal((q.shape[1], q.shape[2], k.shape[2]))}


def bias_of_items(r, q, k, v):
    return {"bias": r.standard_normal((q.shape[0], 1, q.shape[2], k.shape[2]))}


given(
    "mask of item 0",
    "mask of the first item",
    fields=mask_of_items,
    wrong=lambda q, k, v, f: kernel(q, k, v, hide=~f["mask"][:1]),
)
given(
    "mask of the other item",
    "mask of the next item",
    fields=mask_of_items,
    wrong=lambda q, k, v, f: kernel(q, k, v, hide=~f["mask"][::-1]),
)
given(
    "mask of head 0",
    "mask of the first head",
    fields=mask_of_heads,
    wrong=lambda q, k, v, f: kernel(q, k, v, hide=~f["mask"][:, :1]),
)
given(
    "bias of head 0",
    "bias of the first head",
    fields=bias_of_heads,
    wrong=lambda q, k, v, f: kernel(q, k, v, add=f["bias"][:1]),
)
given(
    "bias of the next head",
    "bias of the next head",
    fields=bias_of_heads,
    wrong=lambda q, k, v, f: kernel(q, k, v, add=np.roll(f["bias"], -1, 0)),
)
given(
    "bias of item 0",
    "bias of the first item",
    fields=bias_of_items,
    wrong=lambda q, k, v, f: kernel(q, k, v, add=f["bias"][:1]),
)
given(
    "bias transposed",
    "with the bias transposed",
    fields=bias_of_heads,
    wrong=lambda q, k, v, f: kernel(q, k, v, add=f["bias"].swapaxes(-1, -2)),
)
given(
    "bias twice",
    "with the bias added twice",
    fields=bias_of_heads,
    wrong=lambda q, k, v, f: kernel(q, k, v, add=2 * f["bias"]),
)
given(
    "bias scaled",
    "the bias multiplied by the scale",
    fields=bias_of_heads,
    wrong=lambda q, k, v, f: kernel(q, k, v, add=f["bias"] / math.sqrt(6)),
)
given("bias multiplied", "multiplied by the bias", fields=bias_of_heads,
      wrong=lambda q, k, v, f: side_by_side(softmax_rows(scores_of(q, k, False) * f["bias"]) @ v))  # fmt: skip

# ── ALiBi ────────────────────────────────────────────────────────────────────────────────────────
SLOPES = np.array([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8])
DISTANCE = np.abs(np.arange(9)[:, None] - np.arange(9))
for _name, _order, _says in (
    ("reversed", [3, 2, 1, 0], "in reverse order"), ("of the first head", [0] * 4, "slope of the first head"),
    ("of the next head", [1, 2, 3, 0], "slope of the next head"),
):  # fmt: skip
    given(f"slopes {_name}", _says, fields=none, choices={"position": "alibi"},
          wrong=lambda q, k, v, f, o=_order: kernel(q, k, v, add=-SLOPES[o][:, None, None] * DISTANCE))  # fmt: skip


# ── sinks ────────────────────────────────────────────────────────────────────────────────────────
def sinks(r, q, k, v):
    return {"parameters": {"sinks": r.standard_normal(q.shape[1])}}


def with_sinks(name, says, change, **options):
    given(f"sinks {name}", says, fields=sinks, choices={"sink": "given"}, **options,
          wrong=lambda q, k, v, f: kernel(q, k, v, sinks=change(f["parameters"]["sinks"])))  # fmt: skip


with_sinks("× log2 e", "log₂ e", lambda c: c * math.log2(math.e))
with_sinks("× ln 2", "ln 2", lambda c: c * math.log(2))
with_sinks("of the wrong sign", "wrong sign", lambda c: -c)
with_sinks("twice", "counted twice", lambda c: c + math.log(2))
with_sinks("of the next head", "sinks of the next head", lambda c: np.roll(c, -1))
with_sinks("of the first head", "sinks of the first head", lambda c: c[:1].repeat(4))
with_sinks("in reverse", "in reverse order", lambda c: c[::-1])
given("sink as a value", "mean of all values", fields=sinks, choices={"sink": "given"},
      wrong=lambda q, k, v, f: kernel(q, k, v, sinks=f["parameters"]["sinks"], weigh=lambda w: w + (1 - w.sum(-1, keepdims=True)) / 9))  # fmt: skip


def _wrong_column(q, k, v, f):
    s = scores_of(q, k, False)
    first = np.broadcast_to(f["parameters"]["sinks"][:, None, None], (*s.shape[:-1], 1))
    return side_by_side(softmax_rows(np.concatenate([first, s], -1))[..., :-1] @ v)


given("sink's column first", "last column dropped", fields=sinks, choices={"sink": "given"}, wrong=_wrong_column)


# ── rotations ────────────────────────────────────────────────────────────────────────────────────
def turn(x, at, *, dims=None, theta=1e4, exponent=2.0, width=None, last=False, sign=1, mixed=False, layout="half"):
    """(…, t, d) at positions (t,)."""
    r = dims or x.shape[-1]
    frequencies = theta ** (-exponent * np.arange(r // 2) / (width or r))
    angle = np.multiply.outer(np.asarray(at, float), frequencies)
    x = x.copy()
    part = x[..., -r:] if last else x[..., :r]
    if mixed:
        angles = np.repeat(angle, 2, -1)
        half = np.concatenate([-part[..., r // 2 :], part[..., : r // 2]], -1)
        turned = part * np.cos(angles) + half * np.sin(angles)
    else:
        a, b = (
            (part[..., ::2], part[..., 1::2]) if layout == "interleaved" else (part[..., : r // 2], part[..., r // 2 :])
        )
        y, z = a * np.cos(angle) - sign * b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)
        turned = np.stack([y, z], -1).reshape(part.shape) if layout == "interleaved" else np.concatenate([y, z], -1)
    if last:
        x[..., -r:] = turned
    else:
        x[..., :r] = turned
    return x


AT = np.arange(9)
for _name, _says, _choice, _options in (
    ("mixed pairs", "angles laid out for", "rope", {"mixed": True}),
    ("sign missing", "adds y sin", "rope", {"sign": -1}),
    ("exponent i/d", "theta^(−i/d)", "rope", {"exponent": 1.0}),
    ("exponent positive", "the exponent is negative", "rope:theta=100", {"exponent": -2.0, "theta": 100}),
    ("over the width", "over the width of a head", "rope:dims=6", {"dims": 6, "width": 8}),
    ("last columns", ("last columns", "columns=last"), "rope:dims=4", {"dims": 4, "last": True}),
    ("all columns", ("without dims", "rope "), "rope:dims=4", {}),
    ("scaling forgotten", ("without scaling", "rope "), "rope:scaling=linear,factor=4", {}),
):
    given(f"rope: {_name}", *([_says] if isinstance(_says, str) else _says), fields=none, sizes={"d": 8},
          choices={"mask": "causal", "position": _choice},
          wrong=lambda q, k, v, f, o=_options: kernel(turn(q, AT, **o), turn(k, AT, **o), v, hide=future(9)))  # fmt: skip
for _name, _says, _q, _k in (
    ("queries one later", "positions of queries off by +1", 1, 0),
    ("keys one later", "positions off by", 0, 1),
):
    given(f"rope: {_name}", _says, fields=none, sizes={"d": 8}, choices={"mask": "causal", "position": "rope"},
          wrong=lambda q, k, v, f, a=_q, c=_k: kernel(turn(q, AT + a), turn(k, AT + c), v, hide=future(9)))  # fmt: skip


def _along_heads(q, k, v, f):
    q, k = (turn(x.swapaxes(1, 2), np.arange(4)).swapaxes(1, 2) for x in (q, k))
    return kernel(q, k, v, hide=future(9))


given(
    "rope: along the heads",
    "index of the head",
    fields=none,
    sizes={"d": 8},
    choices={"mask": "causal", "position": "rope"},
    wrong=_along_heads,
)


# ── caches ───────────────────────────────────────────────────────────────────────────────────────
def past(r, q, k, v):
    shape = (q.shape[0], k.shape[1], 6, q.shape[-1])
    return {"past": {"k": r.standard_normal(shape), "v": r.standard_normal(shape)}}


def cached(name, says, wrong, *, rotates=False):
    choices = {"mask": "causal", **({"position": "rope"} if rotates else {})}
    given(f"cache: {name}", says, fields=past, choices=choices, wrong=wrong, sizes={"n": 4, "d": 8})


def _appended(f, k, v):
    return np.concatenate([f["past"]["k"], k], 2), np.concatenate([f["past"]["v"], v], 2)


HIDE = future(4, 10)
NEW, OLD = np.arange(6, 10), np.arange(6)


def _rotated(q, k, v, f, *, past_at=None, q_at=NEW, k_at=NEW):
    old = f["past"]["k"] if past_at is None else turn(f["past"]["k"], past_at)
    return kernel(turn(q, q_at), np.concatenate([old, turn(k, k_at)], 2), _appended(f, k, v)[1], hide=HIDE)


cached("rotated again", "once more", lambda q, k, v, f: _rotated(q, k, v, f, past_at=OLD), rotates=True)
cached(
    "restarted",
    "counted from 0 again",
    lambda q, k, v, f: _rotated(q, k, v, f, q_at=NEW - 6, k_at=NEW - 6),
    rotates=True,
)
cached(
    "queries restarted",
    "queries alone counted from 0",
    lambda q, k, v, f: _rotated(q, k, v, f, q_at=NEW - 6),
    rotates=True,
)
cached("zero", "zeros for the past", lambda q, k, v, f: kernel(q, *(np.concatenate([0 * p, x], 2) for p, x in zip(f["past"].values(), (k, v), strict=True)), hide=HIDE))  # fmt: skip
cached("new first", "before the past", lambda q, k, v, f: kernel(q, *(np.concatenate([x, p], 2) for p, x in zip(f["past"].values(), (k, v), strict=True)), hide=HIDE))  # fmt: skip
cached("other item's", "item", lambda q, k, v, f: kernel(q, *(np.concatenate([p[::-1], x], 2) for p, x in zip(f["past"].values(), (k, v), strict=True)), hide=HIDE))  # fmt: skip
cached("v a slot later", "past v one slot later", lambda q, k, v, f: kernel(q, np.concatenate([f["past"]["k"], k], 2), np.concatenate([np.roll(f["past"]["v"], 1, 2), v], 2), hide=HIDE))  # fmt: skip
cached("a slot early", "one slot too early", lambda q, k, v, f: kernel(q, *(np.concatenate([p[:, :, :5], x, 0 * x[:, :, :1]], 2) for p, x in zip(f["past"].values(), (k, v), strict=True)), hide=HIDE))  # fmt: skip


# ── dropout ──────────────────────────────────────────────────────────────────────────────────────
def kept(r, q, k, v):
    return {"dropout_mask": r.random((q.shape[0], q.shape[1], q.shape[2], k.shape[2])) < 0.7}


def dropping(name, says, weigh):
    given(f"dropout {name}", says, fields=kept, choices={"dropout": "dropout:p=0.3"},
          wrong=lambda q, k, v, f: kernel(q, k, v, weigh=lambda w: weigh(w, f["dropout_mask"])))  # fmt: skip


def _rows_to_one(w):
    return w / w.sum(-1, keepdims=True)


dropping("inverted", "that should be kept", lambda w, m: w * ~m / 0.7)
dropping("by p", "divided by p", lambda w, m: w * m / 0.3)
dropping("multiplied", "multiplied by 1 − p", lambda w, m: w * m * 0.7)
dropping("renormalised", "brought to sum 1", lambda w, m: _rows_to_one(w * m))
dropping("of one head", "of the first head for all", lambda w, m: w * m[:, :1] / 0.7)
dropping("of one item", "of the first item for the whole", lambda w, m: w * m[:1] / 0.7)
given("dropout of scores", "dropout of the scores", fields=kept, choices={"dropout": "dropout:p=0.3"},
      wrong=lambda q, k, v, f: side_by_side(softmax_rows(scores_of(q, k, False) * f["dropout_mask"] / 0.7) @ v))  # fmt: skip


# ── the norm of q and k ──────────────────────────────────────────────────────────────────────────
def gains(r, q, k, v):
    return {"parameters": {f"{x}_norm": 1 + 0.5 * r.standard_normal(q.shape[-1]) for x in "qk"}}


def unit(x):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


for _name, _says, _q, _k in (
    ("gain forgotten", "without the gain", lambda x, g: unit(x), lambda x, g: unit(x)),
    ("gain of k forgotten", "without the gain of the norm (k_norm)", lambda x, g: unit(x) * g, lambda x, g: unit(x)),
    ("1 + gain", "1 added to the gain", lambda x, g: unit(x) * (1 + g), lambda x, g: unit(x) * (1 + g)),
    ("q alone", "without the norm on k", lambda x, g: unit(x) * g, lambda x, g: x),
    ("k alone", "without the norm on q", lambda x, g: x, lambda x, g: unit(x) * g),
):
    given(f"qk-norm: {_name}", _says, fields=gains, choices={"qk_norm": "rms"},
          wrong=lambda q, k, v, f, a=_q, c=_k: kernel(a(q, f["parameters"]["q_norm"]), c(k, f["parameters"]["k_norm"]), v))  # fmt: skip

# ── numbers ──────────────────────────────────────────────────────────────────────────────────────
for _name, _says, _scale in (
    ("1/√2d", "1/√(2 d_k)", 12**-0.5), ("1/√(d/2)", "1/√(d_k/2)", 3**-0.5), ("1/√8", "0.3535", 8**-0.5), ("× 2", "× 2", 2 * 6**-0.5),
    ("negative", "−1", -(6**-0.5)), ("× log2 e", "log₂ e", math.log2(math.e) * 6**-0.5), ("d^−1/4", "d_k^(−1/4)", 6**-0.25),
    ("1/√64", "1/√64", 0.125), ("odd", "0.2917", 0.2917), ("odd, large", "1.37", 1.37), ("1/√H", "scaled by 1/√(H)", 0.5),
):  # fmt: skip
    given(f"scale {_name}", _says, "scaled by" if _name == "1/√H" else _says, fields=none, choices=CAUSAL,
          wrong=lambda q, k, v, f, c=_scale: kernel(q, k, v, scale=c, hide=future(9)))  # fmt: skip
for _cap in (1.7, 3.3, 8.25):
    given(f"softcap {_cap}", f"softcap of {_cap}", fields=none, choices={"softcap": 5.0},
          wrong=lambda q, k, v, f, c=_cap: side_by_side(softmax_rows(c * np.tanh(scores_of(q, k, False) / c)) @ v))  # fmt: skip
for _theta in (77.0, 2500.0, 123456.0):
    given(f"theta {_theta:g}", f"theta {_theta:.6g}"[:9], fields=none, sizes={"d": 8}, choices={"mask": "causal", "position": "rope"},
          wrong=lambda q, k, v, f, t=_theta: kernel(turn(q, AT, theta=t), turn(k, AT, theta=t), v, hide=future(9)))  # fmt: skip
for _factor in (0.5, 1.3, -2.2):
    given(f"slopes × {_factor}", f"alibi × {_factor}", fields=none, choices={"position": "alibi"},
          wrong=lambda q, k, v, f, c=_factor: kernel(q, k, v, add=-c * SLOPES[:, None, None] * DISTANCE))  # fmt: skip
    given(f"bias × {_factor}", f"the bias × {_factor}", fields=bias_of_heads,
          wrong=lambda q, k, v, f, c=_factor: kernel(q, k, v, add=c * f["bias"]))  # fmt: skip
    with_sinks(f"× {_factor}", f"the sinks × {_factor}", lambda c, x=_factor: c * x)
    with_sinks(f"+ {_factor}", f"{_factor} added to the sinks", lambda c, x=_factor: c + x)
    given(
        f"context × {_factor}",
        f"the context × {_factor}",
        fields=none,
        wrong=lambda q, k, v, f, c=_factor: c * kernel(q, k, v),
    )
for _fill in (-3.5, -10.0):
    given(f"fill {_fill}", f"set to {_fill:g}".replace("-", "-"), fields=none, choices=CAUSAL,
          wrong=lambda q, k, v, f, c=_fill: side_by_side(softmax_rows(np.where(future(9), c, scores_of(q, k, False))) @ v))  # fmt: skip
for _added in (1e-3, 0.01, 0.37):

    def _with_epsilon(q, k, v, f, c=_added):
        s = scores_of(q, k, False)
        e = np.exp(s - s.max(-1, keepdims=True))
        return side_by_side(e / (e.sum(-1, keepdims=True) + c) @ v)

    given(f"epsilon {_added}", f"with {_added:g} added to the sum", fields=none, wrong=_with_epsilon)
