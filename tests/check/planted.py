"""Wrong kernels in plain NumPy, and the words by which `attn check` must name each: tiles, slices, caches, rotations, constants.

Nothing here shares code with `attncli`; `planted_inputs` has the second part, and `planted_runs` tries them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Planted:
    """A wrong kernel: the problem, what is right about it, and what it gives."""

    name: str
    says: tuple[str, ...]  # one of these stands in what is named first
    make: Callable[[np.random.Generator], tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]]
    tags: tuple[str, ...] = field(default=())


PLANTED: dict[str, Planted] = {}


def plant(name: str, *says: str, tags: tuple[str, ...] = ()):
    """Register a function (random generator) → fields of the problem, choices, claims."""

    def register(function):
        assert name not in PLANTED, name
        PLANTED[name] = Planted(name, says, function, tags)
        return function

    return register


# ── attention, retyped ───────────────────────────────────────────────────────────────────────────
def softmax_rows(s):
    top = s.max(-1, keepdims=True)
    e = np.exp(s - np.where(np.isfinite(top), top, 0))
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total)


def side_by_side(z):
    """(b, h, n, c) → (b, n, h·c)"""
    return z.transpose(0, 2, 1, 3).reshape(z.shape[0], z.shape[2], -1)


def draw(r, b=1, h=2, n=24, d=8, m=None, g=None):
    """q, k, v: (b, h, n, d), (b, g, m, d), (b, g, m, d)"""
    m, g = m or n, g or h
    return r.standard_normal((b, h, n, d)) * 1.5, r.standard_normal((b, g, m, d)), r.standard_normal((b, g, m, d))


def scores_of(q, k, causal):
    s = q @ np.repeat(k, q.shape[1] // k.shape[1], 1).swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        n, m = s.shape[-2:]
        s = np.where(np.tril(np.ones((n, m), bool), m - n), s, -np.inf)
    return s


# ── tiles ────────────────────────────────────────────────────────────────────────────────────────
def online(s, v, block, *, acc="e", total="e", own_max=False, keep=(True, True), divide_each=False):
    """An online softmax, block by block of keys."""
    factors = {
        "e": np.exp, "1": np.ones_like, "inv": lambda x: np.exp(-x),
        "2e": lambda x: np.exp(2 * x), "2": np.exp2,
    }  # fmt: skip
    m = np.full((*s.shape[:-1], 1), -np.inf)
    l, o = np.zeros_like(m), np.zeros((*s.shape[:-1], v.shape[-1]))
    for start in range(0, s.shape[-1], block):
        part, v_part = s[..., start : start + block], v[..., start : start + block, :]
        highest = part.max(-1, keepdims=True)
        new = np.maximum(m, highest)
        finite = np.where(np.isfinite(new), new, 0)
        shift = np.where(np.isfinite(m), m - finite, 0)
        p = np.exp(part - (np.where(np.isfinite(highest), highest, 0) if own_max else finite))
        l = (l * factors[total](shift) if keep[1] else 0) + p.sum(-1, keepdims=True)
        o = (o * factors[acc](shift) if keep[0] else 0) + p @ v_part
        if divide_each:
            o = o / np.where(l == 0, 1, l)
        m = new
    with np.errstate(divide="ignore"):  # of a sum that is overwritten by nothing
        return (o if divide_each else o / np.where(l == 0, 1, l)), (m + np.log(l))[..., 0]


def tiles(name, says, function, *, n=44, causal=False, **sizes):
    """Plant a kernel: function(scores, values) → context of each head, and the log-sum-exp if it has one."""

    @plant(name, *([says] if isinstance(says, str) else says), tags=("tile",))
    def make(r):
        q, k, v = draw(r, n=n, **sizes)
        s = scores_of(q, k, causal)
        z = function(s, np.repeat(v, q.shape[1] // v.shape[1], 1))
        claims = {"context": side_by_side(z[0])} if isinstance(z, tuple) else {"context": side_by_side(z)}
        return {"q": q, "k": k, "v": v}, {"mask": "causal"} if causal else {}, claims


def without(s, start, stop):
    s = s.copy()
    s[..., start:stop] = -np.inf
    return s


def twice(s, start, stop, times=2):
    s = s.copy()
    s[..., start:stop] += math.log(times)
    return s


for _block, _n in ((8, 44), (16, 44), (32, 72)):
    _count = math.ceil(_n / _block)
    for _which, _t in (("first", 0), ("middle", _count // 2), ("last", _count - 1)):
        _a, _b = _t * _block, min(_n, (_t + 1) * _block)
        tiles(f"{_which} block of {_block} skipped", f"keys {_a} to {_b - 1} (block {_t} of {_block} keys",
              lambda s, v, a=_a, b=_b: softmax_rows(without(s, a, b)) @ v, n=_n)  # fmt: skip
        tiles(f"{_which} block of {_block} twice", "counted twice",
              lambda s, v, a=_a, b=_b: softmax_rows(twice(s, a, b)) @ v, n=_n)  # fmt: skip
        if _t:

            def _stale_v(s, v, a=_a, b=_b, block=_block):
                v = v.copy()
                v[..., a:b, :] = v[..., a - block : b - block, :]
                return softmax_rows(s) @ v

            def _stale_k(s, v, a=_a, b=_b, block=_block):
                s = s.copy()
                s[..., a:b] = s[..., a - block : b - block]
                return softmax_rows(s) @ v

            tiles(f"v of {_which} block of {_block} stale", "values of the block before", _stale_v, n=_n)
            tiles(f"k of {_which} block of {_block} stale", "keys of the block before", _stale_k, n=_n)
    _padding = -_n % _block

    def _padded(s, v, padding=_padding):
        zeros = np.zeros((*s.shape[:-1], padding))
        return softmax_rows(np.concatenate([s, zeros], -1))[..., : s.shape[-1]] @ v

    tiles(f"padding of blocks of {_block} counted", "of score 0, which count in the sum", _padded, n=_n)
    tiles(f"last key repeated in blocks of {_block}", "that repeat the last one",
          lambda s, v, p=_padding: softmax_rows(twice(s, s.shape[-1] - 1, s.shape[-1], 1 + p)) @ v, n=_n)  # fmt: skip
    for _causal in (False, True):
        _end = " causal" if _causal else ""
        for _key, _says, _options in (
            ("context not rescaled", "the context so far is not multiplied", {"acc": "1"}),
            ("sum not rescaled", "the sum so far is not multiplied", {"total": "1"}),
            ("nothing rescaled", "the sum and the context so far are not multiplied", {"acc": "1", "total": "1"}),
            ("context rescaled inversely", "the context so far is multiplied by e^(new maximum", {"acc": "inv"}),
            ("both rescaled inversely", "the inverse", {"acc": "inv", "total": "inv"}),
            ("context rescaled twice", "the context so far is multiplied by e^(old maximum − new maximum) twice", {"acc": "2e"}),
            ("sum rescaled in base 2", "the sum so far is multiplied by 2^", {"total": "2"}),
            ("both rescaled in base 2", "the sum and the context so far are multiplied by 2^", {"acc": "2", "total": "2"}),
            ("block maximum", ("relative to its own maximum", "merged by their sums of e^"), {"own_max": True, "acc": "1", "total": "1"}),
            ("block maximum, rescaled", "relative to its own maximum, not to the running one", {"own_max": True}),
            ("sum overwritten", "the sum is overwritten", {"keep": (True, False)}),
            ("context overwritten", "the context is overwritten", {"keep": (False, True)}),
            ("divided each", "divided by the sum after each block", {"divide_each": True}),
        ):  # fmt: skip
            tiles(f"{_key}, blocks of {_block}{_end}", _says,
                  lambda s, v, block=_block, o=_options: online(s, v, block, **o), n=_n, causal=_causal)  # fmt: skip


def merged(s, v, size, weigh, *, divide=True):
    """Parts of the keys by themselves, merged by weigh(maximum, sum, keys)."""
    parts = []
    for start in range(0, s.shape[-1], size):
        part = s[..., start : start + size]
        m = part.max(-1, keepdims=True)
        l = np.exp(part - np.where(np.isfinite(m), m, 0)).sum(-1, keepdims=True)
        parts.append((softmax_rows(part) @ v[..., start : start + size, :], weigh(m, l, part.shape[-1])))
    total = sum(w for _, w in parts) if divide else 1
    return sum(z * w for z, w in parts) / total


for _count, _n in ((2, 45), (3, 50), (4, 37)):
    _size = math.ceil(_n / _count)
    for _key, _says, _weigh, _divide in (
        ("mean", "merged by their mean", lambda m, l, c: np.ones_like(m), True),
        ("sum", "merged by their sum:", lambda m, l, c: np.ones_like(m), False),
        ("sums", "merged by their sums of e^", lambda m, l, c: l, True),
        ("maxima", "merged by e^maximum", lambda m, l, c: np.exp(m), True),
        ("lengths", "merged by how many keys", lambda m, l, c: np.full_like(m, c), True),
        ("base 2", "merged by 2^log-sum-exp", lambda m, l, c: np.exp2(m + np.log(l)), True),
        ("log-sum-exp", "merged by their log-sum-exp itself", lambda m, l, c: m + np.log(l), True),
    ):  # fmt: skip
        tiles(f"{_count} parts merged by {_key}", _says,
              lambda s, v, size=_size, w=_weigh, divide=_divide: merged(s, v, size, w, divide=divide), n=_n)  # fmt: skip


for _block in (4, 8, 16):

    def _tile_causal(r, block=_block):
        q, k, v = draw(r, n=27)
        i, j = np.arange(27)[:, None] // block, np.arange(27) // block
        w = softmax_rows(np.where(j <= i, scores_of(q, k, False), -np.inf))
        return {"q": q, "k": k, "v": v}, {"mask": "causal"}, {"context": side_by_side(w @ v)}

    plant(f"causal by tiles of {_block}", f"whole tiles of {_block}", tags=("tile",))(_tile_causal)

    def _rows_missing(r, block=_block):
        q, k, v = draw(r, n=27)
        z = side_by_side(softmax_rows(scores_of(q, k, True)) @ v)
        z[:, 27 - 27 % block :] = 0
        return {"q": q, "k": k, "v": v}, {"mask": "causal"}, {"context": z}

    plant(f"last rows of blocks of {_block} not written", "the last block of queries", tags=("tile",))(_rows_missing)

    def _rows_and_sums_missing(r, block=_block):
        q, k, v = draw(r, n=27)
        s = scores_of(q, k, True)
        z, log_sum_exp = softmax_rows(s) @ v, np.log(np.exp(s).sum(-1))
        z[:, :, 27 - 27 % block :] = log_sum_exp[..., 27 - 27 % block :] = 0
        claims = {"context": side_by_side(z), "log_sum_exp": log_sum_exp}
        return {"q": q, "k": k, "v": v}, {"mask": "causal"}, claims

    plant(f"last rows and log-sum-exp of blocks of {_block} not written", "the last block of queries", tags=("tile",))(
        _rows_and_sums_missing
    )
