"""What a fault computes is what the wrong implementation computes: figure by figure, without a search."""

from __future__ import annotations

import numpy as np
import pytest

from attncli.check.comparison import Comparison
from attncli.check.faults import fault_hypotheses
from attncli.check.figures import figures_from_arrays
from attncli.check.task import prepare
from attncli.plan import Plan
from attncli.types import Problem
from attncli.variant import Variant
from tests.check.faulty import FAULTS, Case, case_of, masked, merge, rope, split, steps, swap, triangle
from tests.helpers import assert_close, compute, draw_normal, softmax


def hypothesis_figures(case, claims, names):
    """The figures of hypotheses with one of these names; those that stay as the reference has them are left out."""
    task = prepare(Problem(**case.fields), Variant(**case.choices), figures_from_arrays(claims))
    trials = Comparison(task).trials
    for hypothesis in fault_hypotheses(trials):
        if hypothesis.name in names:
            computed = hypothesis.compute()
            assert computed is not None, hypothesis.name
            figures = trials.compute_steps(computed) if isinstance(computed, Plan) else computed
            yield hypothesis, {s: x for s, x in figures.items() if s not in hypothesis.unchanged_steps}


# What `check` calls each planted mistake; those that are another choice, spelled as an option, are no faults.
FAULT_NAMES = {name: names for name in FAULTS if (names := [n for n in FAULTS[name][1] if not n.startswith("--")])}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("name", "names"), FAULT_NAMES.items(), ids=FAULT_NAMES)
def test_a_fault_gives_the_figures_of_the_wrong_implementation(name, names, seed):
    case, function = case_of(name, seed)
    claims = function(case)

    tried = list(hypothesis_figures(case, claims, names))

    assert {hypothesis.name for hypothesis, _ in tried} == set(names)
    agrees = [
        all(np.allclose(x, claims[step], 1e-9, 1e-12, equal_nan=True) for step, x in figures.items() if step in claims)
        for hypothesis, figures in tried
        if not hypothesis.approximate and figures.keys() & claims.keys()
    ]
    # Where a fault has several names, one of them is the implementation that is planted.
    assert sum(agrees) >= min(len(agrees), 1)
    assert agrees or all(hypothesis.approximate for hypothesis, _ in tried)


# ── what a search has no case of ─────────────────────────────────────────────────────────────────
CAUSAL = {"mask": "causal"}
ROPE = {"position": "rope"}
CAP = {"softcap": 1.5}


def of_scores(change, **case):
    """Weights and context of scores (h, n, m) that a function changes before, or instead of, the softmax."""
    return case, lambda c: steps(change(c, c.scores()[0]), c.scores()[1])


def of_scale(factor):
    return of_scores(lambda c, s: softmax(s * np.sqrt(c.d) * factor(c)))


def of_exponentials(change):
    return of_scores(lambda c, s: change(np.exp(s)))


def of_seen(seen, **case):
    """A mask that shows other keys; where it shows none, the weights are 0."""
    return of_scores(lambda c, s: softmax(masked(s, seen(c))), **CAUSAL | case)


def of_hidden(change):
    """Scores that are changed where they should be hidden."""
    return of_scores(lambda c, s: softmax(change(s, triangle(c.n))), **CAUSAL)


def of_qkv(change, **case):
    """q, k and v (h, t, d) that a function changes."""

    def claims(c):
        q, k, v = change(c, *c.qkv())
        return steps(softmax(q @ swap(k) / np.sqrt(c.d)), v)

    return case, claims


def of_matrices(**letters):
    """Matrices that stand in each other's place."""
    return {}, lambda c: steps(*with_softmax(c.scores(**{x: c.w[y] for x, y in letters.items()})))


def of_transposed(letters):
    return {}, lambda c: steps(*with_softmax(c.scores(**{x: c.w[x].T for x in letters})))


def with_softmax(scores_and_values):
    return softmax(scores_and_values[0]), scores_and_values[1]


def of_context(change):
    """Heads (h, n, d) that are put together otherwise."""
    return {}, lambda c: {"context": change(softmax(c.scores()[0]) @ c.scores()[1])}


def of_offsets(*letters):
    """Projections with some of their biases."""

    def claims(c):
        q, k, v = (split(c.x @ c.w[x] + (c.b[x] if x in letters else 0), c.h) for x in "qkv")
        return steps(softmax(q @ swap(k) / np.sqrt(c.d)), v)

    return {"has": "offsets"}, claims


WRONG = {
    "scale 1/√(heads · d_k)": of_scale(lambda c: 1 / np.sqrt(c.h * c.d)),
    "scale 1/√d_k": of_scores(lambda c, s: softmax(s), scale=0.3),
    "scale √d_k": of_scale(lambda c: np.sqrt(c.d)),
    "scale d_k": of_scale(lambda c: c.d),
    "scale 1/√n": of_scale(lambda c: 1 / np.sqrt(c.n)),
    "scale 1/d_model": of_scale(lambda c: 1 / (c.h * c.d)),
    "scale applied twice": of_scale(lambda c: 1 / c.d),
    "softmax over all cells": of_exponentials(lambda e: e / e.sum((-1, -2), keepdims=True)),
    "softmax base 10": of_scores(lambda c, s: softmax(s * np.log(10))),
    "exponentials not divided": of_exponentials(lambda e: e),
    "exponentials not divided, max subtracted": of_exponentials(lambda e: e / e.max(-1, keepdims=True)),
    "divided by the norm": of_exponentials(lambda e: e / np.sqrt((e**2).sum(-1, keepdims=True))),
    "divided by the number of keys": of_exponentials(lambda e: e / e.shape[-1]),
    "log-softmax": of_exponentials(lambda e: np.log(e / e.sum(-1, keepdims=True))),
    "softmax1 with the 1 added after the largest was subtracted": of_exponentials(
        lambda e: e / (e.max(-1, keepdims=True) + e.sum(-1, keepdims=True))
    ),
    "uniform weights": of_scores(lambda c, s: softmax(masked(0 * s, triangle(c.n))), **CAUSAL),
    "uniform weights over all keys": of_scores(lambda c, s: softmax(0 * s), **CAUSAL),
    "softmax applied twice, the second unmasked": of_hidden(lambda s, seen: softmax(masked(s, seen))),
    "inverted 0/1 mask added": of_hidden(lambda s, seen: s + ~seen),
    "1 subtracted where hidden": of_hidden(lambda s, seen: s - ~seen),
    "fill 0 instead of −∞": of_hidden(lambda s, seen: masked(s, seen, 0)),
    "fill −1 instead of −∞": of_hidden(lambda s, seen: masked(s, seen, -1)),
    "fill 1e-9 instead of −∞": of_hidden(lambda s, seen: masked(s, seen, 1e-9)),
    "mask inverted, diagonal kept": of_seen(lambda c: triangle(c.n).T),
    "mask transposed": of_seen(lambda c: triangle(c.n).T),
    "mask off by one: one key too many": of_seen(lambda c: triangle(c.n, k=1)),
    "mask off by one: one key too few": of_seen(lambda c: triangle(c.n, k=-1)),
    "query positions off by +1": of_seen(lambda c: triangle(c.n, k=1)),
    "query positions off by -1": of_seen(lambda c: triangle(c.n, k=-1)),
    "heads of q split by stride": of_qkv(lambda c, q, k, v: (by_stride(merge(q), c.h), k, v)),
    "heads of k split by stride": of_qkv(lambda c, q, k, v: (q, by_stride(merge(k), c.h), v)),
    "heads of v split by stride": of_qkv(lambda c, q, k, v: (q, k, by_stride(merge(v), c.h))),
    "heads merged by stride": of_context(lambda z: z.transpose(1, 2, 0).reshape(z.shape[1], -1)),
    "heads merged in reverse": of_context(lambda z: merge(z[::-1])),
    "context of the query before, 0 at the end": of_context(lambda z: merge(by_one_query(z, 1, cleared=0))),
    "context of the query after, 0 at the end": of_context(lambda z: merge(by_one_query(z, -1, cleared=-1))),
    "W_q, W_k, W_v transposed": of_transposed("qkv"),
    "W_k transposed": of_transposed("k"),
    "W_v transposed": of_transposed("v"),
    "W_q and W_k exchanged": of_matrices(q="k", k="q"),
    "W_q and W_v exchanged": of_matrices(q="v", v="q"),
    "W_k and W_v exchanged": of_matrices(k="v", v="k"),
    "packed qkv cut by head": of_qkv(lambda c, q, k, v: cut_by_head(side_by_side(q, k, v), c.h), heads=6),
    "packed qkv cut in three": of_qkv(lambda c, q, k, v: cut_in_three(np.concatenate([q, k, v], -1), c.h), heads=6),
    "q not projected": of_qkv(lambda c, q, k, v: (split(c.x, c.h), k, v)),
    "k not projected": of_qkv(lambda c, q, k, v: (q, split(c.x, c.h), v)),
    "v not projected": of_qkv(lambda c, q, k, v: (q, k, split(c.x, c.h))),
    "keys for queries": of_qkv(lambda c, q, k, v: (k, k, v)),
    "queries for keys": of_qkv(lambda c, q, k, v: (q, q, v)),
    "keys for values": of_qkv(lambda c, q, k, v: (q, k, k)),
    "queries for values": of_qkv(lambda c, q, k, v: (q, k, q)),
    "k and v swapped": of_qkv(lambda c, q, k, v: (q, v, k)),
    "all heads on kv head 0": of_qkv(lambda c, q, k, v: (q, k[:1], v[:1]), heads=6, kv_heads=3),
    "rope: queries only": of_qkv(lambda c, q, k, v: (rope(q, "half"), k, v), **ROPE),
    "rope: keys only": of_qkv(lambda c, q, k, v: (q, rope(k, "half"), v), **ROPE),
    "rope: the other way round": of_qkv(lambda c, q, k, v: (rope(q, "half", -1), rope(k, "half", -1), v), **ROPE),
    "softcap without multiplying back": of_scores(lambda c, s: softmax(np.tanh(s / 1.5)), **CAP),
    "softcap by clipping": of_scores(lambda c, s: softmax(s.clip(-1.5, 1.5)), **CAP),
    "softcap without dividing": of_scores(lambda c, s: softmax(1.5 * np.tanh(s)), **CAP),
    "log_sum_exp in base 10": ({}, lambda c: {"log_sum_exp": np.log10(np.exp(c.scores()[0]).sum(-1))}),
    "sum of exponentials without the logarithm": ({}, lambda c: {"log_sum_exp": np.exp(c.scores()[0]).sum(-1)}),
    "bias subtracted": of_scores(lambda c, s: softmax(s - c.bias), has="bias"),
    "b_q forgotten": of_offsets("k", "v"),
    "b_k forgotten": of_offsets("q", "v"),
    "b_v forgotten": of_offsets("q", "k"),
    "sinks scaled": of_scores(
        lambda c, s: np.exp(s) / (np.exp(s).sum(-1, keepdims=True) + np.exp(c.sinks / np.sqrt(c.d))[:, None, None]),
        has="sinks",
    ),
    "sink renormalised away": of_scores(lambda c, s: softmax(s), has="sinks"),
}


def side_by_side(*heads):
    """Heads of q, k, v (h, t, d) → (t, 3·h·d), as [3, head, d]"""
    return np.concatenate([merge(x) for x in heads], -1)


def by_one_query(z, step, cleared):
    """(h, n, d), each query's row in the place of the next (1) or of the one before (−1), and 0 where there is none"""
    z = np.roll(z, step, 1)
    z[:, cleared] = 0
    return z


def cut_by_head(x, heads):
    """(t, 3·h·d) → q, k, v, (h, t, d) each, as if head by head there lay its query, its key and its value"""
    per_head = x.reshape(len(x), heads, 3, -1)
    return tuple(per_head[:, :, i].swapaxes(0, 1) for i in range(3))


def cut_in_three(x, heads):
    """(h, t, 3·d), of each head its query, its key and its value → q, k, v, (h, t, d) each, as if they were thirds"""
    return tuple(split(third, heads) for third in np.split(merge(x), 3, -1))


def by_stride(x, heads):
    """(t, h·d) → (h, t, d), head i of the columns i, i + h, …"""
    return np.stack([x[:, i::heads] for i in range(heads)])


@pytest.mark.parametrize("name", WRONG)
def test_what_is_less_common_gives_the_figures_that_its_name_says(name):
    options, function = WRONG[name]
    has = options.get("has")
    choices = {key: value for key, value in options.items() if key != "has"}
    case = Case(11, **{"sink": "given"} if has == "sinks" else {}, **choices)
    if has == "sinks":
        case.fields["parameters"] = {**case.fields["parameters"], "sinks": case.sinks}
    if has == "bias":
        case.fields["bias"] = case.bias
    if has == "offsets":
        case.fields["parameters"] = {**case.fields["parameters"], **{f"b_{x}": b for x, b in case.b.items()}}
    claims = function(case)

    [(_, figures)] = hypothesis_figures(case, claims, [name])

    assert figures.keys() & claims.keys()
    for step in figures.keys() & claims.keys():
        assert_close(figures[step], claims[step], rtol=1e-9, atol=1e-12)


ROUNDED = {
    "the weights": "w",
    "q·k": "p",
    "the scaled scores": "s",
    "the scores": "ps",
    "q, k and v": "x",
    "the exponentials": "e",
    "the exponentials and weights": "ew",
    "the scores and weights": "psw",
    "every intermediate": "psew",
    "everything": "xpsewz",
    "everything, the largest subtracted": "xpsmewz",
}


@pytest.mark.parametrize("verb", ["rounded to", "cut to"])
@pytest.mark.parametrize("what", ROUNDED)
def test_what_is_rounded_on_the_way_is_rounded_to_so_many_digits(what, verb):
    def rounding(x, letter):
        if letter not in ROUNDED[what]:
            return x
        return x.round(2) if verb == "rounded to" else np.trunc(x * 100 * (1 + 1e-13)) / 100

    case = Case(11)
    q, k, v = (rounding(x, "x") for x in case.qkv())
    s = rounding(rounding(q @ swap(k), "p") / np.sqrt(case.d), "s")
    e = rounding(np.exp(s - s.max(-1, keepdims=True) if "m" in ROUNDED[what] else s), "e")
    w = rounding(e / rounding(e.sum(-1, keepdims=True), "e"), "w")
    claims = {"weights": w, "context": merge(rounding(w @ v, "z"))}

    [(_, figures)] = hypothesis_figures(case, claims, [f"{what} {verb} 2 digits"])

    for step in claims:
        assert_close(figures[step], claims[step], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["score_w_q", "score_w_k"])
def test_a_matrix_of_the_score_may_be_transposed(name):
    case = Case(11, score="additive")
    parameters = {f"score_w_{x}": draw_normal(i, case.d, case.d) for i, x in enumerate("qk")}
    case.fields["parameters"] = {**case.fields["parameters"], **parameters}
    turned = {**case.fields, "parameters": {**case.fields["parameters"], name: parameters[name].T}}
    claims = {step: x.values for step in ("weights", "context") if (x := compute(turned, **case.choices)[step])}

    [(_, figures)] = hypothesis_figures(case, claims, [f"{name} transposed"])

    for step in claims:
        assert_close(figures[step], claims[step], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "scale", "says"),
    [
        ("scale 1/√d_model", "auto", "scaled by 1/√d_model = 1/√12 instead of 1/√4"),
        ("scale 1/d_model", "auto", "scaled by 1/d_model = 1/12 instead of 1/√4"),
        ("scale 1/d_k", 0.3, "scaled by 1/d_k = 1/4 instead of 0.3"),
        ("scale 1/√n", 0.3, "scaled by 1/√n = 1/√7 (n keys) instead of 0.3"),
        ("no scale", "auto", "without 1/√d_k (d_k = 4): divide the scores by 2 before the softmax"),
        ("no scale", 3.0, "without the scale 3: multiply the scores by 3 before the softmax"),
    ],
)
def test_a_scale_is_described_by_its_numbers(name, scale, says):
    q, k = draw_normal(1, 1, 3, 5, 4), draw_normal(2, 1, 3, 7, 4)  # (b, h, n, d), (b, h, m, d): d_model is 12
    task = prepare(Problem(q=q, k=k), Variant(scale=scale), figures_from_arrays({"scores": q @ swap(k)}))

    [description] = [h.description for h in fault_hypotheses(Comparison(task).trials) if h.name == name]

    assert says in description
