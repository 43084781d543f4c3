"""A backward kernel typed by hand, in NumPy, with the mistakes that such kernels have; it shares no code with the package."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Case:
    """A problem whose sizes differ pairwise, and what stands around its scores."""

    seed: int = 0
    batch: int = 2
    heads: int = 6
    kv_heads: int = 3
    queries: int = 11
    keys: int = 13
    dim: int = 8
    width: int = 8
    causal: int | None = None  # the offset of the diagonal: j ≤ i + causal
    cap: float | None = None
    drop: float | None = None
    sinks: bool = False
    bias: bool = False
    arrays: dict = field(default_factory=dict)

    def __post_init__(self):
        r = np.random.default_rng(self.seed)
        b, h, g, n, m, d, c = self.batch, self.heads, self.kv_heads, self.queries, self.keys, self.dim, self.width
        self.q, self.k, self.v = (r.normal(size=s) for s in ((b, h, n, d), (b, g, m, d), (b, g, m, c)))
        self.do = r.normal(size=(b, h, n, c))
        self.visible = np.ones((n, m), bool) if self.causal is None else np.tri(n, m, self.causal, dtype=bool)
        self.kept = r.random((b, h, n, m)) >= (self.drop or 0)
        self.sink = r.normal(size=h) if self.sinks else None
        self.added = r.normal(size=(h, n, m)) if self.bias else 0.0

    @property
    def scale(self):
        return 1 / math.sqrt(self.dim)

    def problem_fields(self):
        fields = {"q": self.q, "k": self.k, "v": self.v}
        if self.drop:
            fields["dropout_mask"] = self.kept
        if self.sinks:
            fields["parameters"] = {"sinks": self.sink}
        if self.bias:
            fields["bias"] = self.added
        return fields

    def choices(self):
        chosen = {}
        if self.causal is not None:
            chosen |= {"mask": "causal"}
            if self.queries != self.keys:
                chosen["align"] = "top-left" if self.causal == 0 else "bottom-right"
        if self.cap:
            chosen["softcap"] = self.cap
        if self.drop:
            chosen["dropout"] = self.drop
        if self.sinks:
            chosen["sink"] = "given"
        return chosen


def repeat(x, case):
    return np.repeat(x, case.heads // case.kv_heads, axis=1)


def forward(case, visible):
    k, v = repeat(case.k, case), repeat(case.v, case)
    raw = case.q @ k.swapaxes(-1, -2) * case.scale
    capped = case.cap * np.tanh(raw / case.cap) if case.cap else raw
    s = np.where(visible, capped + case.added, -np.inf)
    top = s.max(-1, keepdims=True)
    total = np.exp(s - top).sum(-1, keepdims=True)
    if case.sink is not None:
        total = total + np.exp(case.sink[:, None, None] - top)
    return capped, top + np.log(total), k, v


def backward(case, fault=""):
    """out, dq, dk, dv, dsinks and dbias, with one mistake in them."""
    capped, lse, k, v = forward(case, case.visible)
    p = np.where(case.visible, np.exp(capped + case.added - lse), 0)
    drop = case.kept / (1 - case.drop) if case.drop else np.ones(p.shape)
    out = (p * drop) @ v
    d = (case.do * out).sum(-1, keepdims=True)
    back, back_drop = recomputed_weights(case, fault, p, np.exp(capped + case.added - lse), drop)
    dp = (case.do @ v.swapaxes(-1, -2)) * back_drop
    ds = {"no row term": back * dp, "no P": dp - d, "softmax skipped": dp}.get(fault, back * (dp - d))
    bias_gradient = ds.sum(0) * (case.scale if fault == "dbias scaled" else 1)
    if case.cap and fault != "no cap":
        ds = ds * (1 - (capped / case.cap) ** 2)
    dq, dk, dv = multiply_back(case, fault, ds, back * back_drop, k)
    dk, dv = sum_groups(case, fault, dk, dv)
    if fault == "dk and dv exchanged":
        dk, dv = dv, dk
    found = {"out": out, "dout": case.do, "dq": dq, "dk": dk, "dv": dv}
    if case.sink is not None:
        sink_share = np.exp(case.sink[:, None, None] - lse)
        found["dsinks"] = -(sink_share * d).sum((0, 2, 3)) * (-1 if fault == "sink sign" else 1)
    if case.bias:
        found["dbias"] = bias_gradient
    return found


def recomputed_weights(case, fault, p, unmasked, drop):
    """The weights and the dropout of the way back."""
    if fault == "no mask":
        p = unmasked
    if fault == "top-left":
        p = np.where(np.tri(case.queries, case.keys, 0, dtype=bool), unmasked, 0)
    if fault == "no sink":
        p = p / p.sum(-1, keepdims=True)
    if fault == "no dropout":
        drop = np.ones(p.shape)
    if fault == "dropout not rescaled":
        drop = case.kept * 1.0
    return p, drop


def multiply_back(case, fault, ds, weights, k):
    """dq, and dk and dv of each query head."""
    keys, queries = slice(None), slice(None)
    if fault == "last block of keys":
        keys = slice((case.keys - 1) // 4 * 4, None)
    if fault == "first block of queries left out":
        queries = slice(4, None)
    in_dq = 1 if fault in ("no scale in dq", "no scale") else case.scale
    in_dk = 1 if fault in ("no scale in dk", "no scale") else case.scale
    dq = in_dq * ds[..., keys] @ k[..., keys, :]
    dk = in_dk * ds[..., queries, :].swapaxes(-1, -2) @ case.q[..., queries, :]
    dv = weights[..., queries, :].swapaxes(-1, -2) @ case.do[..., queries, :]
    return dq, dk, dv


def sum_groups(case, fault, dk, dv):
    """Add up what the query heads of each kv head send back."""
    size, g = case.heads // case.kv_heads, case.kv_heads
    dk, dv = (x.reshape(case.batch, g, size, case.keys, -1) for x in (dk, dv))
    if fault == "last of group":
        return dk[:, :, -1], dv[:, :, -1]
    if fault == "first of group in dk":
        return dk[:, :, 0], dv.sum(2)
    if fault == "mean of group":
        return dk.mean(2), dv.mean(2)
    if fault == "tiled groups":
        return tuple(x.reshape(case.batch, size, g, case.keys, -1).sum(1) for x in (dk, dv))
    return dk.sum(2), dv.sum(2)
