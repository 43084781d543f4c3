"""Attention in NumPy, and the faults that check must find in it."""

from __future__ import annotations

import math

import numpy as np

import attncli
from attncli.check import check
from attncli.check.figures import figures_from_arrays
from tests.helpers import softmax


def masked(s, seen, fill=-np.inf):
    return np.where(seen, s, fill)


def triangle(n, m=None, k=0):
    return np.tril(np.ones((n, m or n), bool), k)


def split(x, h):
    """(t, h·d) → (h, t, d)"""
    return x.reshape(len(x), h, -1).transpose(1, 0, 2)


def merge(z):
    """(h, t, d) → (t, h·d)"""
    return z.transpose(1, 0, 2).reshape(z.shape[1], -1)


def swap(x):
    return np.swapaxes(x, -1, -2)


def steps(w, v, w_o=None):
    """Weights and values of heads → what is claimed."""
    out = {"weights": w, "context": merge(w @ v)}
    return out if w_o is None else {**out, "output": out["context"] @ w_o}


class Case:
    """A problem of random numbers, and the same in numpy."""

    def __init__(self, seed, *, tokens=7, width=12, heads=3, kv_heads=None, keys=None, **choices):
        r = np.random.default_rng(seed)
        self.h, self.g, self.n = heads, kv_heads or heads, tokens
        d = self.d = width // heads
        self.m = keys or tokens
        self.x = r.standard_normal((tokens, width))
        self.memory = r.standard_normal((keys, width)) if keys else self.x
        self.w = {c: r.standard_normal((width, width if c in "qo" else self.g * d)) / math.sqrt(width) for c in "qkvo"}
        self.b = {c: r.standard_normal(width if c == "q" else self.g * d) for c in "qkv"}
        self.bias = r.standard_normal((tokens, self.m))
        self.sinks = r.standard_normal(heads)
        self.fields = {"embeddings": self.x, "parameters": {f"w_{c}": w for c, w in self.w.items()}}
        if keys:
            self.fields["memory"] = {"embeddings": self.memory}
        self.choices = {"heads": heads, **({"kv_heads": kv_heads} if kv_heads else {}), **choices}

    def qkv(self, **w):
        w = {**self.w, **w}
        q, k, v = self.x @ w["q"], self.memory @ w["k"], self.memory @ w["v"]
        times = self.h // self.g
        return split(q, self.h), np.repeat(split(k, self.g), times, 0), np.repeat(split(v, self.g), times, 0)

    def scores(self, **w):
        q, k, v = self.qkv(**w)
        return q @ swap(k) / math.sqrt(self.d), v

    def verdict(self, claims, **options):
        problem, variant = attncli.Problem(**self.fields), attncli.Variant(**self.choices)
        return check(problem, variant, figures_from_arrays(claims), **options)


def rope(x, layout, sign=1):
    """(h, t, d) turned by position."""
    d = x.shape[-1]
    angle = sign * np.arange(x.shape[1])[:, None] * 10000.0 ** (-2 * np.arange(d // 2) / d)
    c, s = np.cos(angle), np.sin(angle)
    if layout == "half":
        a, b = x[..., : d // 2], x[..., d // 2 :]
        return np.concatenate([a * c - b * s, a * s + b * c], -1)
    a, b = x[..., ::2], x[..., 1::2]
    return np.stack([a * c - b * s, a * s + b * c], -1).reshape(x.shape)


FAULTS = {}


def fault(name, *names, **case):
    """Register a wrong implementation: what it must be called, on which problems."""

    def register(function):
        FAULTS[function.__name__] = (function, (name, *names), case)
        return function

    return register


@fault("no scale")
def no_scale(c):
    q, k, v = c.qkv()
    return steps(softmax(q @ swap(k)), v, c.w["o"])


@fault("scale 1/d_k")
def one_over_d(c):
    q, k, v = c.qkv()
    return steps(softmax(q @ swap(k) / c.d), v)


@fault("scale 1/√d_model")
def root_of_d_model(c):
    q, k, v = c.qkv()
    return steps(softmax(q @ swap(k) / math.sqrt(c.d * c.h)), v)


@fault("softmax over the queries")
def wrong_axis(c):
    s, v = c.scores()
    return steps(softmax(s, -2), v)


@fault("softmax over the heads")
def over_heads(c):
    s, v = c.scores()
    return steps(softmax(s, 0), v)


@fault("softmax base 2")
def base_two(c):
    s, v = c.scores()
    e = 2.0**s
    return steps(e / e.sum(-1, keepdims=True), v)


@fault("softmax applied twice")
def softmax_twice(c):
    s, v = c.scores()
    return steps(softmax(softmax(s)), v)


@fault("mask after softmax, not renormalised", mask="causal")
def mask_after_softmax(c):
    s, v = c.scores()
    return steps(softmax(s) * triangle(c.n), v)


@fault("mask forgotten", mask="causal")
def no_mask(c):
    s, v = c.scores()
    return steps(softmax(s), v)


@fault("top-left for bottom-right", mask="causal", keys=10, align="bottom-right")
def top_left(c):
    s, v = c.scores()
    return steps(softmax(masked(s, triangle(c.n, c.m))), v)


@fault("diagonal hidden", mask="causal")
def no_diagonal(c):
    s, v = c.scores()
    w = softmax(masked(s, triangle(c.n, k=-1)))
    return steps(w, v)


@fault("window one too wide", mask="causal and window:left=2")
def wide_window(c):
    s, v = c.scores()
    return steps(softmax(masked(s, triangle(c.n) & ~triangle(c.n, k=-4))), v)


@fault("window one too narrow", mask="causal and window:left=2")
def narrow_window(c):
    s, v = c.scores()
    return steps(softmax(masked(s, triangle(c.n) & ~triangle(c.n, k=-2))), v)


@fault("mask inverted", mask="causal")
def inverted(c):
    s, v = c.scores()
    return steps(softmax(masked(s, ~triangle(c.n))), v)


@fault("0/1 mask added", mask="causal")
def mask_added(c):
    s, v = c.scores()
    return steps(softmax(s + triangle(c.n)), v)


@fault("fill −1e4 instead of −∞", "fill −1e9 instead of −∞", mask="not causal")
def filled(c):
    s, v = c.scores()
    return steps(softmax(masked(s, ~triangle(c.n), -1e9)), v)


@fault("−1e4 added instead of −∞", mask="not causal")
def lowered(c):
    s, v = c.scores()
    return steps(softmax(s - 1e4 * triangle(c.n)), v)


@fault("--empty-rows nan", mask="not causal")
def empty_rows_nan(c):
    s, v = c.scores()
    w = softmax(masked(s, ~triangle(c.n)))
    w[:, -1] = np.nan
    return steps(w, v)


@fault("kv heads tiled instead of interleaved", heads=6, kv_heads=3)
def tiled(c):
    q = split(c.x @ c.w["q"], c.h)
    k, v = (np.tile(split(c.x @ c.w[x], c.g), (c.h // c.g, 1, 1)) for x in "kv")
    return steps(softmax(q @ swap(k) / math.sqrt(c.d)), v)


@fault("--position rope:layout=half", position="rope:layout=interleaved")
def rope_half(c):
    q, k, v = c.qkv()
    return steps(softmax(rope(q, "half") @ swap(rope(k, "half")) / math.sqrt(c.d)), v)


@fault("--position rope:layout=interleaved", position="rope")
def rope_interleaved(c):
    q, k, v = c.qkv()
    return steps(softmax(rope(q, "interleaved") @ swap(rope(k, "interleaved")) / math.sqrt(c.d)), v)


@fault("heads split by stride", "heads split and merged by stride")
def stride(c):
    q, k, v = (np.stack([(c.x @ c.w[x])[:, i :: c.h] for i in range(c.h)]) for x in "qkv")
    return steps(softmax(q @ swap(k) / math.sqrt(c.d)), v)


@fault("heads split without a transpose")
def no_transpose(c):
    q, k, v = ((c.x @ c.w[x]).reshape(c.h, c.n, c.d) for x in "qkv")
    return steps(softmax(q @ swap(k) / math.sqrt(c.d)), v)


@fault("heads merged without a transpose")
def merged_flat(c):
    s, v = c.scores()
    return {"weights": softmax(s), "context": (softmax(s) @ v).reshape(c.n, -1)}


@fault("W_q transposed")
def q_transposed(c):
    s, v = c.scores(q=c.w["q"].T)
    return steps(softmax(s), v)


@fault("W_q, W_k, W_v, W_o transposed")
def all_transposed(c):
    s, v = c.scores(**{x: c.w[x].T for x in "qkv"})
    return steps(softmax(s), v, c.w["o"].T)


@fault("W_o transposed")
def o_transposed(c):
    s, v = c.scores()
    return steps(softmax(s), v, c.w["o"].T)


@fault("W_o forgotten")
def no_output(c):
    s, v = c.scores()
    out = steps(softmax(s), v)
    return {**out, "output": out["context"]}


@fault("q and k swapped")
def swapped(c):
    q, k, v = c.qkv()
    return {"q": k, **steps(softmax(k @ swap(q) / math.sqrt(c.d)), v)}


@fault("scores transposed", "q and k swapped")
def scores_transposed(c):
    s, v = c.scores()
    return steps(softmax(swap(s)), v)


@fault("softcap after the mask", mask="causal", softcap=1.5)
def cap_leaks(c):
    s, v = c.scores()
    return steps(softmax(1.5 * np.tanh(masked(s, triangle(c.n)) / 1.5)), v)


@fault("--softcap none", softcap=1.5)
def no_cap(c):
    s, v = c.scores()
    return steps(softmax(s), v)


@fault("log_sum_exp in base 2")
def log_two(c):
    s, v = c.scores()
    return {**steps(softmax(s), v), "log_sum_exp": np.log2(np.exp(s).sum(-1))}


@fault("dropout left on", tokens=11)
def dropped(c):
    s, v = c.scores()
    kept = np.random.default_rng(5).random(s.shape) < 0.9
    return steps(softmax(s) * kept / 0.9, v)


@fault("v not projected")
def v_as_it_is(c):
    s, v = c.scores(v=np.eye(c.d * c.h))
    return steps(softmax(s), v)


@fault("triu(ones) * -inf", mask="causal")
def nan_bias(c):
    s, v = c.scores()
    with np.errstate(invalid="ignore"):
        w = softmax(s + np.triu(np.ones((c.n, c.n)), 1) * -np.inf)
    return steps(w, v)


@fault("values weighted by scores")
def no_weights(c):
    s, v = c.scores()
    return {"weights": softmax(s), "context": merge(s @ v)}


@fault("weights transposed")
def weights_transposed(c):
    s, v = c.scores()
    return {"weights": softmax(s), "context": merge(swap(softmax(s)) @ v)}


@fault("the weights rounded to 2 digits")
def rounded_weights(c):
    s, v = c.scores()
    return {"context": merge(softmax(s).round(2) @ v)}


@fault("the scores and weights rounded to 3 digits", "the scores rounded to 3 digits")
def rounded_all(c):
    q, k, v = c.qkv()
    s = ((q @ swap(k)).round(3) / math.sqrt(c.d)).round(3)
    return {"context": merge(softmax(s).round(3) @ v)}


@fault("float16 q, k, v, scores and weights", tokens=13)
def half_precision(c):
    q, k, v = (x.astype(np.float16) for x in c.qkv())
    s = (q.astype(np.float32) @ swap(k).astype(np.float32)).astype(np.float16) * np.float16(1 / math.sqrt(c.d))
    w = softmax(s.astype(np.float32)).astype(np.float16)
    return {"context": merge(w.astype(np.float64) @ v.astype(np.float64))}


@fault("float16 the sum of each score", "float16 scores", tokens=13)
def half_sums(c):
    q, k, v = c.qkv()
    s = np.zeros((c.h, c.n, c.n), np.float16)
    for i in range(c.d):
        s += q[:, :, None, i].astype(np.float16) * k[:, None, :, i].astype(np.float16)
    return {"context": merge(softmax(s.astype(float) / math.sqrt(c.d)) @ v)}


@fault("--sink none", sink="given")
def no_sink(c):
    s, v = c.scores()
    return steps(softmax(s), v)


@fault("bias forgotten")
def no_bias(c):
    s, v = c.scores()
    return steps(softmax(s), v)


@fault("biases forgotten")
def no_offsets(c):
    s, v = c.scores()
    return steps(softmax(s), v)


@fault("heads averaged")
def heads_mean(c):
    s, v = c.scores()
    z = (softmax(s) @ v).mean(0, keepdims=True).repeat(c.h, 0)
    return {"weights": softmax(s), "context": merge(z)}


@fault("residual added")
def residual(c):
    s, v = c.scores()
    out = steps(softmax(s), v, c.w["o"])
    return {**out, "output": out["output"] + c.x}


@fault("rope applied to v too", position="rope", mask="causal")
def rope_on_values(c):
    q, k, v = (rope(x, "half") for x in c.qkv())
    return steps(softmax(masked(q @ swap(k) / math.sqrt(c.d), triangle(c.n))), v)


@fault("log_sum_exp without the largest")
def no_largest(c):
    s, _ = c.scores()
    return {"log_sum_exp": np.log(np.exp(s - s.max(-1, keepdims=True)).sum(-1))}


@fault("q and v swapped")
def q_for_v(c):
    q, k, v = c.qkv()
    return {"context": merge(softmax(v @ swap(k) / math.sqrt(c.d)) @ q)}


@fault("residual added to the context")
def early_residual(c):
    s, v = c.scores()
    return {"output": (merge(softmax(s) @ v) + c.x) @ c.w["o"]}


@fault("rows divided by their length")
def length_one(c):
    s, v = c.scores()
    return steps(s / np.linalg.norm(s, axis=-1, keepdims=True), v)


@fault("q·k rounded to 3 digits")
def rounded_products(c):
    q, k, v = c.qkv()
    return {"context": merge(softmax((q @ swap(k)).round(3) / math.sqrt(c.d)) @ v)}


@fault("the scaled scores rounded to 2 digits")
def rounded_scaled(c):
    s, v = c.scores()
    return {"context": merge(softmax(s.round(2)) @ v)}


@fault("q, k and v cut to 2 digits")
def cut_projections(c):
    q, k, v = (np.trunc(x * 100) / 100 for x in c.qkv())
    return {"context": merge(softmax(q @ swap(k) / math.sqrt(c.d)) @ v)}


@fault("everything rounded to 2 digits", mask="causal")
def by_hand(c):
    q, k, v = (x.round(2) for x in c.qkv())
    s = masked(((q @ swap(k)).round(2) / math.sqrt(c.d)).round(2), triangle(c.n))
    e = np.exp(s).round(2)
    w = (e / e.sum(-1, keepdims=True).round(2)).round(2)
    return {"context": merge((w @ v).round(2))}


def case_of(name, seed):
    function, _, options = FAULTS[name]
    sizes = [{}, {"tokens": 6, "width": 16, "heads": 4}, {"tokens": 9, "width": 12, "heads": 2}][seed % 3]
    c = Case(seed, **{**sizes, **options} if "heads" not in options else options)
    if name == "no_sink":
        c.fields["parameters"] = {**c.fields["parameters"], "sinks": c.sinks}
    if name == "no_bias":
        c.fields["bias"] = c.bias
    if name == "no_offsets":
        c.fields["parameters"] = {**c.fields["parameters"], **{f"b_{x}": b for x, b in c.b.items()}}
    return c, function
