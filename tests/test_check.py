"""Figures held against the reference: right ones are called right, wrong ones wrong, and classic faults by their names.

Every fault here is made by a few lines of numpy that know nothing of the program.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import attncli
from attncli.check import check
from attncli.check.figures import of_arrays, of_expected, read_figures
from tests.conftest import GOLDEN, SAMPLES

pytestmark = pytest.mark.usefixtures("one_thread")


# ── attention in numpy, with its faults ──────────────────────────────────────────────────────────
def softmax(s, axis=-1):
    s = s - np.max(s, axis=axis, keepdims=True, initial=-1e30)
    e = np.exp(s)
    total = e.sum(axis, keepdims=True)
    return e / np.where(total == 0, 1, total)


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
        return check(problem, variant, of_arrays(claims), **options)


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


TRIALS = [(name, i % 3) for i, name in enumerate(FAULTS)]


@pytest.mark.parametrize(("name", "seed"), TRIALS)
def test_a_fault_is_named_first(name, seed):
    case, function = case_of(name, seed)

    said = case.verdict(function(case))

    assert said.verdict == "wrong"
    assert said.identified, [(s.names[0], s.max_abs) for s in said.nearest]
    assert set(FAULTS[name][1]) & set(said.identified[0].names), [s.names for s in said.identified]


@pytest.mark.parametrize(("rest", "says"), [(0.9, "divided by 1 − p, p = 0.1;"), (1, "and not rescaled:")])
def test_dropout_that_was_left_on_is_told_as_it_was(rest, says):
    case = Case(1, tokens=11)
    s, v = case.scores()
    kept = np.random.default_rng(5).random(s.shape) < 0.9

    [found] = case.verdict(steps(softmax(s) * kept / rest, v)).identified

    assert found.names == ("dropout left on",)
    assert says in found.says


def test_two_changes_are_found_together():
    case = Case(3, mask="causal", position="rope")
    q, k, v = case.qkv(q=case.w["q"].T)
    s = rope(q, "half") @ swap(rope(k, "half"))
    fault_and_choice = steps(softmax(masked(s, triangle(case.n))), v)
    q, k, v = case.qkv()
    s = rope(q, "interleaved") @ swap(rope(k, "interleaved"))
    two_choices = {"context": merge(softmax(masked(s, triangle(case.n))) @ v)}

    assert case.verdict(fault_and_choice).identified[0].names == ("no scale and W_q transposed",)
    assert "no scale and --position rope:layout=interleaved" in case.verdict(two_choices).identified[0].names


@pytest.mark.parametrize("pair", ["two matrices", "mask and scale"])
def test_two_faults_are_found_together(pair):
    case = Case(2, mask="causal")
    if pair == "two matrices":
        s, v = case.scores(q=case.w["q"].T, k=case.w["k"].T)
        name, seen = {"W_q transposed", "W_k transposed"}, triangle(case.n)
    else:
        s, v = case.scores()
        s, name, seen = s / math.sqrt(case.d), {"diagonal hidden", "scale 1/d_k"}, triangle(case.n, k=-1)

    [found] = case.verdict({"context": merge(softmax(masked(s, seen)) @ v)}).identified

    assert set(found.names[0].split(" and ")) == name


def test_what_gives_the_same_figures_is_named_together():
    case = Case(1, tokens=6, width=16, heads=4)  # d_k is 4, so that 1/d_k is 1/√d_model
    q, k, v = case.qkv()

    [found] = case.verdict(steps(softmax(q @ swap(k) / 4), v)).identified

    assert {"scale 1/d_k", "scale 1/√d_model", "scale applied twice"} <= set(found.names)


def test_the_sentence_says_the_numbers_and_the_way_out():
    case = Case(0)

    [found] = case.verdict(no_scale(case)).identified

    said = "your weights, context and output are the reference without 1/√d_k (d_k = 4): divide the scores by 2 before the softmax"
    assert found.says == said


# ── what is right is called right ────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_no_result_of_pytorchs_kernels_is_called_wrong(dtype):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    r = torch.Generator().manual_seed(11)
    for trial in range(50):
        b, h, n, m, d = (
            int(torch.randint(low, high, (1,), generator=r))
            for low, high in ((1, 3), (1, 4), (2, 20), (2, 20), (2, 33))
        )
        q, k, v = (torch.randn(b, h, t, d, generator=r).to(getattr(torch, dtype)) for t in (n, m, m))
        how = trial % 3
        mask = torch.rand(b, 1, n, m, generator=r) < 0.7 if how == 1 else None
        if mask is not None:
            mask[..., 0] = True
        with sdpa_kernel(SDPBackend.MATH if trial % 2 else SDPBackend.FLASH_ATTENTION):
            mine = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=how == 2)
        problem = attncli.Problem(q=q, k=k, v=v, mask=mask)
        variant = attncli.Variant(**({"mask": "causal", "align": "top-left"} if how == 2 else {}))

        said = check(problem, variant, of_arrays({"head_context": mine}), layout="bhtd", identify=False)

        assert said.first_wrong is None, (trial, said.steps)
        assert said.steps[0].rule.name == ("flash" if dtype.endswith("16") else "close")


@pytest.mark.parametrize(
    "name", ["wide_window", "empty_rows_nan", "tiled", "rope_half", "cap_leaks", "no_sink", "no_bias"]
)
def test_a_right_result_is_given_no_fault(name):
    case, function = case_of(name, 0)
    claimed = [step for step in function(case) if step != "q"]
    problem, variant = attncli.Problem(**case.fields), attncli.Variant(**case.choices)
    right = attncli.attend(problem, variant, keep=claimed)

    said = case.verdict({step: right[step].values for step in claimed}, identify=True)

    assert (said.verdict, said.identified, said.nearest) == ("right", (), ())


def test_identify_says_which_choices_these_figures_cannot_tell():
    case = Case(0, heads=3)  # as many kv heads as heads: how they are shared makes no difference
    s, v = case.scores()

    alike = case.verdict(steps(softmax(s), v), identify=True).alike

    assert "--kv-map tile" in alike
    assert "--scale none" not in alike


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_never_right_nor_a_fault(seed):
    r = np.random.default_rng(seed)
    case = Case(seed, tokens=5, width=8, **[{"heads": 2}, {"heads": 1, "mask": "causal"}, {"heads": 2}][seed])
    noise = [
        {"weights": softmax(r.standard_normal((2, 5, 5)))},
        {"context": r.standard_normal((5, 8)), "output": r.standard_normal((5, 8))},
        {"weights": r.random((2, 5, 5)).round(1)},
    ][seed % 3]

    said = case.verdict(noise)

    assert (said.verdict, said.identified) == ("wrong", ())


def test_a_few_short_figures_are_given_no_fault_by_chance():
    """Among so many computations some give any two digits; that is no evidence."""
    for mine in (0.05, 0.35, 0.95):
        problem = attncli.read(SAMPLES / "cat_sat.json")
        figures = of_expected(
            {"weights": {"values": np.array([[mine]]), "rows": [1], "columns": [2], "decimals": 2}}, "mine"
        )

        assert check(problem, None, figures).identified == ()


def test_the_published_context_of_hello_shiny_sun_is_wrong_without_a_fault():
    problem = attncli.read(SAMPLES / "hello_shiny_sun.json")
    figures = of_expected(
        {"context": {"values": np.array([[0.3992, 0.3858, 0.8610]]), "rows": [1], "decimals": 4}}, "mine"
    )

    said = check(problem, None, figures)

    assert (said.verdict, said.identified) == ("wrong", ())
    assert said.steps[0].max_abs == pytest.approx(0.0004, abs=5e-5)
    assert (said.steps[0].at, said.steps[0].where) == ({"query": 1, "dim": 1}, "shiny, dim 1")
    assert said.steps[0].wrong == 2


@pytest.mark.parametrize(
    "case", json.loads((GOLDEN / "known_wrong.json").read_text())["figures"], ids=lambda c: c["id"]
)
def test_published_figures_that_are_wrong_are_called_wrong(case):
    problem = attncli.Problem(**case["problem"])
    figures = of_expected(
        {s: {"values": np.array(x), "decimals": case["decimals"]} for s, x in case["printed"].items()}, "mine"
    )

    assert check(problem, None, figures, identify=False).verdict == "wrong"


# ── rules ────────────────────────────────────────────────────────────────────────────────────────
ONE = {"q": [[1.0]], "k": [[0.0]], "v": [[0.25]]}  # one key: the context is v


def one_context(text, tmp_path, value=0.25, **options):
    (tmp_path / "mine.json").write_text(f'{{"context": [[{text}]]}}')
    problem = attncli.Problem(**{**ONE, "v": [[value]]})
    return check(problem, None, read_figures(str(tmp_path / "mine.json")), identify=False, **options).steps[0]


@pytest.mark.parametrize(
    ("value", "text", "right"),
    [
        (0.23849, "0.238", True),
        (0.23851, "0.239", True),  # rounded
        (0.23851, "0.238", True),  # cut off
        (0.23849, "0.239", False),  # neither
        (0.23849, "0.237", False),
        (0.25, "0.2", True),  # a tie goes either way
        (0.25, "0.3", True),
        (0.25, "0.25", True),
        (0.3, "0.2", False),  # one unit off is not cut off
        (-0.23851, "-0.238", True),
        (-0.23851, "-0.239", True),
        (-0.23851, "0.239", False),
        (-0.00004, "0.0000", True),
        (-0.00004, "-0.0000", True),
        (0.00006, "0.0000", True),
        (0.5, "0.50", True),
        (0.504, "0.50", True),
        (0.504, "0.5", True),
        (0.514, "0.50", False),
        (0.514, "0.5", True),
        (1234.4, "1234", True),
        (1234.4, "1.2e3", True),
        (1234.4, "1.3e3", False),
        (0.00123, "1.2e-3", True),
    ],
)
def test_digits(value, text, right, tmp_path):
    found = one_context(text, tmp_path, value)

    assert found.rule.name == "digits"
    assert found.right is right


def test_arrays_that_were_rounded_are_judged_by_their_digits():
    case = Case(0)
    w = softmax(case.scores()[0])
    found = case.verdict({"weights": w.round(4)}).steps[0]
    off = case.verdict({"weights": (w + 2e-4).round(4)}, identify=False).steps[0]

    assert (found.rule.name, found.right, found.digits) == ("digits", True, 4)
    assert (off.rule.name, off.right) == ("digits", False)
    assert case.verdict({"weights": w.astype(np.float32).astype(float)}).steps[0].rule.dtype == "float32"


def test_short_numbers_beside_long_ones_are_a_programs(tmp_path):
    (tmp_path / "mine.json").write_text('{"scores": [[2.0]], "context": [[0.123456789012345]]}')
    problem = attncli.Problem(q=[[1.0]], k=[[2.04]], v=[[0.123456789012345]])

    said = check(problem, None, read_figures(str(tmp_path / "mine.json")), identify=False)

    assert [(f.rule.name, f.right) for f in said.steps] == [("close", False), ("close", True)]


@pytest.mark.parametrize(("dtype", "near", "far"), [(np.float64, 5e-10, 5e-9), (np.float32, 5e-6, 1e-4)])
def test_close(dtype, near, far):
    case = Case(0)
    w = softmax(case.scores()[0])

    assert case.verdict({"weights": (w * (1 + near)).astype(dtype)}).verdict == "right"
    assert case.verdict({"weights": (w * (1 + far)).astype(dtype)}, identify=False).verdict == "wrong"


def test_tolerances_of_expected_and_of_the_command_line_are_numpys():
    problem = attncli.Problem(**{**ONE, "v": [[2.0]]})

    def right(mine, **said):
        return (
            check(problem, None, of_expected({"context": {"values": np.array([[mine]]), **said}}, "mine"))
            .steps[0]
            .right
        )

    assert right(2.019, rtol=0.01)
    assert not right(2.021, rtol=0.01)
    assert right(2.021, rtol=0.01, atol=0.002)
    assert not right(2.0000001, rtol=0.0, atol=0.0)


def test_flash_allows_twice_the_error_of_plain_half_precision():
    import torch

    case = Case(2, tokens=9, width=12, heads=2)
    s, v = case.scores()
    right = merge(softmax(s) @ v)

    def verdict(off):
        return case.verdict({"context": torch.as_tensor(right + off).half()}, identify=False).steps[0]

    bound = verdict(0).rule.bound
    assert verdict(0).rule.plain < bound < 0.02
    assert verdict(0).right
    assert not verdict(1.6 * bound).right
    assert verdict(0).ulp <= 0.5


def test_what_is_not_finite_must_be_the_same():
    case = Case(0, mask="causal")
    s, _ = case.scores()
    mine = masked(s, triangle(case.n))
    finite, nan = (np.where(np.isinf(mine), fill, mine) for fill in (-1e9, np.nan))

    assert case.verdict({"masked_scores": mine}).verdict == "right"
    assert case.verdict({"masked_scores": finite}, identify=False).steps[0].max_abs == np.inf
    assert case.verdict({"masked_scores": nan}, identify=False).verdict == "wrong"
    assert "fill −1e9 instead of −∞" in case.verdict({"masked_scores": finite}).identified[0].names


def test_booleans_integers_and_ties():
    problem = attncli.Problem(q=[[1.0]], k=[[3.0], [1.0], [3.0], [0.0]], v=[[1.0], [2.0], [3.0], [4.0]])

    def right(step, values):
        return check(problem, None, of_arrays({step: np.array(values)}), identify=False).verdict == "right"

    assert right("top_keys", [[0, 2]])
    assert right("top_keys", [[2, 0]])  # equal weights: either first
    assert not right("top_keys", [[0, 1]])
    assert not right("top_keys", [[0, 0]])
    assert right("visible_keys", [4])
    assert not right("visible_keys", [3])


def test_the_first_wrong_step_is_the_cause_of_those_that_follow_from_it():
    case = Case(0)
    s, v = case.scores()
    s = s * 1.5
    follows = {"scaled_scores": s, "weights": softmax(s), "context": merge(softmax(s) @ v)}
    own = {**follows, "context": follows["context"] + 0.1}

    causes = [f.cause for f in case.verdict(follows, identify=False).steps]
    assert causes == ["first", "follows from your scaled_scores", "follows from your weights"]
    assert case.verdict(own, identify=False).steps[2].cause == "wrong by itself, even from your weights"
    assert case.verdict(own, identify=False).first_wrong == "scaled_scores"


# ── power ────────────────────────────────────────────────────────────────────────────────────────
def told(verdict):
    return {p.name: p.caught for p in verdict.power}


def test_a_tolerance_that_lets_wrong_figures_pass_is_too_loose():
    case = Case(0)
    s, v = case.scores()
    right = merge(softmax(s) @ v)

    strict, loose = case.verdict({"context": right}), case.verdict({"context": right}, atol=50.0)

    assert strict.verdict == "right"
    assert set(told(strict).values()) == {True}
    assert set(told(strict)) == {"uniform weights", "shuffled values", "no scale", "another head's figures"}
    assert loose.verdict == "too-loose"
    assert set(told(loose).values()) == {False}


def test_what_cannot_be_told_here_is_no_fault_of_the_tolerance():
    one_key = check(attncli.Problem(**ONE), None, of_arrays({"context": np.array([[0.25]])}))
    equal = attncli.Problem(q=[[1.0, 2.0]], k=[[1.0, 0.5], [0.0, 1.0]], v=[[3.0], [3.0]])
    same_values = check(equal, None, of_arrays({"context": np.array([[3.0]])}))
    scores = check(equal, None, of_arrays({"scores": np.array([[2.0, 2.0]])}))

    assert one_key.verdict == same_values.verdict == scores.verdict == "right"
    assert {p.why for p in one_key.power} == {"there is only one key"}
    assert told(same_values)["shuffled values"] is None
    assert [p.why for p in scores.power] == ["scores comes before it"] * 3


# ── figures, from every format ───────────────────────────────────────────────────────────────────
CAT_SAT = SAMPLES / "cat_sat.json"


def claimed(case, attn, tmp_path, *words):
    """A result as the program writes it, and the problem it is of."""
    arrays = {name: np.asarray(x) for name, x in case.fields.items() if name != "parameters"}
    np.savez(tmp_path / "p.npz", **arrays, **{f"parameters.{k}": x for k, x in case.fields["parameters"].items()})
    choices = [w for k, x in case.choices.items() for w in ("--" + k.replace("_", "-"), x)]
    return ["p.npz", *choices]


@pytest.mark.parametrize("file", ["r.json", "r.npz", "r.safetensors", "r.csv", "r.tsv"])
@pytest.mark.parametrize("only", ["all", "weights", "q,k,head_context"])
def test_what_attn_writes_is_right(attn, tmp_path, file, only):
    problem = claimed(Case(0, mask="causal"), attn, tmp_path)
    assert attn("compute", *problem, "--only", only, "-o", file).status == 0

    run = attn("check", *problem, "--figures", file, "--json")

    assert (run.status, run.json["verdict"]) == (0, "right"), run.err
    assert len(run.json["steps"]) == {"all": 15, "weights": 1, "q,k,head_context": 3}[only]


@pytest.mark.parametrize("file", ["r.json", "r.csv"])
def test_a_part_of_a_result_is_checked_where_it_is(attn, tmp_path, file):
    problem = claimed(Case(0), attn, tmp_path)
    attn("compute", *problem, "--only", "weights,context", "--at", "query=2:4", "--at", "head=1", "-o", file)

    run = attn("check", *problem, "--figures", file, "--json")
    other = attn("check", *problem, "--mask", "causal", "--figures", file, "--json", "--no-identify")

    assert (run.status, run.json["verdict"]) == (0, "right"), run.err
    assert other.status == 1
    assert other.json["steps"][0]["at"]["query"] in (2, 3)
    assert other.json["steps"][0]["at"]["head"] == 1


def test_csv_matrices_need_their_step(attn, tmp_path):
    for selected in ([], ["--at", "query=sat"]):
        attn("compute", CAT_SAT, "--only", "weights", *selected, "-o", "w.csv", "--force")

        assert attn("check", CAT_SAT, "--figures", "w.csv", "--step", "weights").status == 0
        run = attn("check", CAT_SAT, "--figures", "w.csv")
        assert (run.status, "error[missing-option]" in run.err) == (2, True)
    (tmp_path / "bare.csv").write_text("0.38,0.23,0.38\n0.06,0.77,0.17\n0.10,0.16,0.74\n")
    assert attn("check", CAT_SAT, "--figures", "bare.csv", "--step", "weights").status == 0
    (tmp_path / "bare.csv").write_text("0.38;0,23;0,38\n0,06;0,77;0,17\n0,10;0,16;0,75\n")
    assert attn("check", CAT_SAT, "--figures", "bare.csv", "--step", "weights").status == 1


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ('{"weights": [[0.38, 0.23, 0.38], [0.06, 0.77, 0.17], [0.10, 0.16, 0.74]]}', 0),
        ('{"weights": {"values": [[0.06, 0.77, 0.17]], "rows": [1]}}', 0),
        ('{"weights": {"values": [[0.06], [0.10]], "rows": [1, 2], "columns": [0]}}', 0),
        ('{"weights": {"values": [[0.06, 0.77, 0.18]], "rows": [1]}}', 1),
        ('{"weights": {"values": [[0.06, 0.77, 0.18]], "rows": [1], "atol": 0.02}}', 0),
        ('{"weights": {"values": [[0.06, 0.77, 0.17]]}}', 3),
        ('{"weigths": [[0.06, 0.77, 0.17]]}', 3),
        ('{"output": [[0.06, 0.77, 0.17]]}', 3),
        ('{"weights": [[0.06, "a", 0.17]]}', 3),
        ('{"weights": [[0.06, 0.17], [1]]}', 3),
        ('{"weights": {"values": [[0.06, 0.77, 0.17]], "rows": [7]}}', 3),
        ("[[0.38, 0.23, 0.38], [0.06, 0.77, 0.17], [0.10, 0.16, 0.74]]", 2),
        ("{", 3),
        ("7", 3),
    ],
)
def test_json_figures(attn, tmp_path, text, status):
    (tmp_path / "mine.json").write_text(text)

    run = attn("check", CAT_SAT, "--figures", "mine.json", "--no-identify")

    assert run.status == status, run.err
    assert "Traceback" not in run.err


def test_a_problem_is_checked_by_what_another_expects(attn, tmp_path):
    (tmp_path / "mine.json").write_text(
        '{"embeddings": [[1]], "expected": {"weights": {"values": [[0.1, 0.16, 0.74]], "rows": [2]}}}'
    )

    assert attn("check", CAT_SAT, "--figures", "mine.json").status == 0


@pytest.mark.parametrize(
    ("shape", "layout", "code"),
    [
        ((1, 4, 5, 2), None, ""),  # (B, H, T, d)
        ((4, 5, 2), None, ""),
        ((1, 5, 4, 2), None, ""),  # (B, T, H, d)
        ((1, 5, 8), None, ""),  # (B, T, H·d)
        ((5, 8), None, ""),
        ((1, 5, 4, 2), "bthd", ""),
        ((1, 5, 4, 2), "bhtd", "wrong-shape"),
        ((1, 8, 5), None, "wrong-shape"),
    ],
)
def test_layouts(attn, tmp_path, shape, layout, code):
    problem = claimed(Case(0, tokens=5, width=8, heads=4), attn, tmp_path)
    attn("compute", *problem, "--only", "q", "-o", "q.npz")
    q = np.load(tmp_path / "q.npz")["q"]  # (h, t, d)
    rows = q.transpose(1, 0, 2) if shape[-1] == 8 or (shape[1:2] == (5,) and len(shape) == 4) else q
    np.save(tmp_path / "mine.npy", rows.reshape(shape))

    run = attn("check", *problem, "--figures", "mine.npy", "--step", "q", *(["--layout", layout] if layout else []))

    assert run.status == (3 if code else 0), run.err + run.out
    assert code in run.err


def test_a_layout_that_may_be_two_is_asked_for(attn, tmp_path):
    problem = claimed(Case(0, tokens=4, width=8, heads=4), attn, tmp_path)
    attn("compute", *problem, "--only", "q", "-o", "q.npz")
    q = np.load(tmp_path / "q.npz")["q"]
    np.savez(tmp_path / "mine.npz", q=q.swapaxes(0, 1)[None])

    def run(*layout):
        return attn("check", *problem, "--figures", "mine.npz", "--no-identify", *layout)

    assert (run().status, "error[ambiguous-layout]" in run().err) == (3, True)
    assert (run("--layout", "bthd").status, run("--layout", "bhtd").status) == (0, 1)


def test_the_context_of_a_kernel_comes_in_heads(attn, tmp_path):
    problem = claimed(Case(0, tokens=5, width=12, heads=3), attn, tmp_path)
    attn("compute", *problem, "--only", "head_context", "-o", "c.npz")
    np.save(tmp_path / "mine.npy", np.load(tmp_path / "c.npz")["head_context"][None])

    assert attn("check", *problem, "--figures", "mine.npy", "--step", "context").status == 0


# ── the command ──────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["p.csv"], 3, "no-figures"),
        (["p.csv", "--figures", "none.json"], 3, "no-such-file"),
        (["p.csv", "--figures", "mine.tex"], 2, "unknown-format"),
        (["p.csv", "--figures", "-"], 2, "bad-option"),
        (["p.csv", "--figures", "mine.txt"], 3, "no-figures"),
        (["p.csv", "--figures", "mine.json", "--step", "weigths"], 2, "unknown-step"),
        (["p.csv", "--figures", "mine.json", "--step", "context"], 3, "absent-step"),
        (["p.csv", "--figures", "mine.json", "--rtol", "-1"], 2, "bad-option"),
        (["p.csv", "--figures", "mine.json", "--rule", "digits", "--atol", "1"], 2, "bad-option"),
        (["p.csv", "--figures", "mine.json", "--rule", "nearly"], 2, "usage"),
        (["p.csv", "--figures", "mine.json", "--format", "csv"], 2, "unknown-format"),
        (["p.csv", "--figures", "mine.json", "--heads", "5"], 3, "heads-mismatch"),
        (["empty"], 3, "no-figures"),
        (["nodir"], 3, "no-such-file"),
        (["p.csv", "--figures", "mine.json", "--step", "all"], 2, "bad-option"),
        (["p.csv", "--figures", "mine.json", "--step", ""], 2, "bad-option"),
        ([".", "--figures", "mine.json"], 2, "bad-option"),
    ],
)  # fmt: skip
def test_refusals(attn, tmp_path, words, status, code):
    (tmp_path / "p.csv").write_text("token,a,b\nx,1,0\ny,0,1\n")
    (tmp_path / "mine.json").write_text('{"weights": [[0.67, 0.33], [0.33, 0.67]]}')
    (tmp_path / "mine.txt").write_text("nothing is asked here")
    (tmp_path / "empty").mkdir()

    run = attn("check", *words)

    assert (run.status, run.out) == (status, "")
    assert f"error[{code}]" in run.err


def test_what_is_refused_is_refused_without_torch(tmp_path):
    from tests.test_doors import without_torch

    (tmp_path / "mine.json").write_text('{"weights": [[0.67, 0.33], [0.33, 0.67]]}')
    (tmp_path / "w.md").write_text("⟨1⟩____\n\n⟨1⟩: weights[7][0]\n")
    commands = [
        ["check", str(CAT_SAT), "--figures", str(tmp_path / name)] for name in ("mine.json", "w.md", "none.csv")
    ]

    assert [(status, asked) for status, asked, _, _ in without_torch(commands)] == [(3, False)] * 3


def test_the_record_of_a_verdict(attn, tmp_path):
    (tmp_path / "mine.json").write_text('{"context": {"values": [[0.3992, 0.3858, 0.8610]], "rows": [1]}}')

    run = attn("check", SAMPLES / "hello_shiny_sun.json", "--figures", "mine.json", "--json")

    assert run.status == 1
    assert run.json["schema"] == "attn.check/1"
    assert (run.json["verdict"], run.json["first_wrong"], run.json["identified"]) == ("wrong", "context", [])
    [step] = run.json["steps"]
    assert (step["step"], step["shape"], step["rule"]["name"]) == ("context", [1, 3], "digits")
    assert (step["mine"], step["reference"]) == (0.3858, pytest.approx(0.385424, abs=1e-6))
    assert (step["right"], step["wrong"], step["of"], step["cause"]) == (False, 2, 3, "first")
    assert run.json["variant"]["name"] == "simplified"
    assert {p["wrong"]: p["caught"] for p in run.json["power"]} == {"uniform weights": True, "shuffled values": True}
    assert run.json["nearest"][0]["max_abs"] < step["max_abs"]


@pytest.mark.parametrize("format", ["table", "plain", "markdown", "json"])
def test_every_form_says_the_verdict(attn, tmp_path, format):
    (tmp_path / "mine.json").write_text('{"weights": [[0.42, 0.16, 0.42], [0.01, 0.95, 0.05], [0.02, 0.05, 0.94]]}')

    run = attn("check", CAT_SAT, "--figures", "mine.json", "--format", format)

    assert run.status == 1
    assert "wrong" in run.out
    assert "the reference without 1/" in run.out.replace("\\", "")


def test_tokens_and_names_are_printed_safely(attn, tmp_path):
    tokens = ["\x1b[31mred", "[/bold]"]
    mine = {"weights": [[0.5, 0.5], [0.5, 0.5]]}
    (tmp_path / "p.json").write_text(json.dumps({"tokens": tokens, "embeddings": [[2, 1], [0, 1]], "expected": mine}))

    for format in ("table", "plain", "markdown"):
        run = attn("check", "p.json", "--format", format, "--no-identify")
        assert run.status == 1
        assert "\x1b" not in run.out
        assert "[/bold]" in run.out.replace("\\", "") or "␛" in run.out


def test_records_keep_their_schema(attn, tmp_path):
    import jsonschema

    (tmp_path / "mine.json").write_text('{"masked_scores": [[0.5, 1, "NaN"], [1, 1, 1], [1, 1, 1]]}')
    (tmp_path / "sheet.md").write_text("⟨1⟩0.5 ⟨2⟩____\n\n⟨1⟩ to ⟨2⟩: weights[0][0:2]\n", encoding="utf-8")
    validator = jsonschema.Draft202012Validator(attn("schema", "check").json)

    for words in (
        [CAT_SAT],
        [CAT_SAT, "--causal", "--figures", "mine.json"],
        [CAT_SAT, "--figures", "sheet.md", "--no-identify"],
        [CAT_SAT, "--rule", "close", "--no-identify"],
        [SAMPLES],
    ):
        validator.validate(attn("check", *words, "--json").json)
    assert not validator.is_valid({**attn("check", CAT_SAT, "--json").json, "verdict": "perhaps"})


def test_golden_problems_are_right(attn):
    import jsonschema

    run = attn("check", GOLDEN, "--json")

    jsonschema.validate(run.json, attn("schema", "check").json)
    wrong = [p["input"] for p in run.json["problems"] if p["verdict"] != "right"]
    assert wrong == ["known_wrong.json"]  # no problem: its figures are known not to come out
    assert (run.status, run.json["right"], run.json["of"]) == (1, 99, 100)


def test_a_folder_is_a_matrix(attn, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "right.json").write_text(CAT_SAT.read_text())
    (tmp_path / "silent.json").write_text('{"embeddings": [[1]]}')
    assert attn("check", ".").status == 0

    (tmp_path / "wrong.json").write_text(
        '{"embeddings": [[2, 1], [0, 1]], "expected": {"weights": [[0.5, 0.5], [0.5, 0.5]]}}'
    )
    (tmp_path / "broken.json").write_text('{"embeddings": [[1], ')
    run = attn("check", ".", "--json")
    table = attn("check", ".").out

    assert run.status == 1
    assert [(p["verdict"], p["input"].rpartition("/")[2]) for p in run.json["problems"]] == [
        ("error", "broken.json"),
        ("right", "right.json"),
        ("wrong", "wrong.json"),
    ]
    assert [line.split()[:2] for line in table.splitlines()[2:5]] == [
        ["broken.json", "error"],
        ["deep/right.json", "right"],
        ["wrong.json", "wrong"],
    ]
    assert "broken.json: bad-json" in table


# ── worksheets ───────────────────────────────────────────────────────────────────────────────────
SHEET = """\
# Where does cat look?

scores: 2·0 + … = {0}, {1} and {2}; divided by 2

weights | {3} | {4} | {5} |
context = {3} × 1 + {4} × 0 + ⟨6⟩ × 2 = {6}

⟨1⟩ to ⟨3⟩: scaled_scores[1][0:3]
⟨4⟩ to ⟨6⟩: weights[1][0:3]
`⟨7⟩: context[1][0]`
"""
BLANK = [f"⟨{n}⟩____" for n in range(1, 8)]
RIGHT = ["⟨1⟩0.5", "⟨2⟩ 3.00", "⟨3⟩__1.5__", "⟨4⟩0.0629", "⟨5⟩0,7662", "⟨6⟩ 0.17", "⟨7⟩_0.405_"]


def marked(attn, tmp_path, gaps, name="sheet.md", escape=lambda text: text):
    (tmp_path / name).write_text(escape(SHEET.format(*gaps)), encoding="utf-8")
    run = attn("check", SAMPLES / "tokens.csv", "--figures", name, "--json", "--no-identify", "-q")
    assert run.out, run.err
    return run.status, run.json["verdict"], [a["right"] for a in run.json["answers"]]


def test_a_worksheet_is_marked(attn, tmp_path):
    some = [*RIGHT[:4], *BLANK[4:]]
    off = ["⟨1⟩0.6", *RIGHT[1:6], "⟨7⟩0.406"]

    assert marked(attn, tmp_path, RIGHT) == (0, "right", [True] * 7)
    assert marked(attn, tmp_path, BLANK) == (1, "unanswered", [None] * 7)
    assert marked(attn, tmp_path, some) == (1, "unanswered", [True] * 4 + [None] * 3)
    assert marked(attn, tmp_path, off) == (1, "wrong", [False, *[True] * 5, False])


def test_a_worksheet_in_ascii_and_as_markdown_escapes_it(attn, tmp_path):
    def ascii(text):
        return text.replace("⟨", "<").replace("⟩", ">").replace("×", "x").replace("·", ".").replace("…", "...")

    def markdown(text):
        return ascii(text).replace("_", "\\_").replace("<", "&lt;").replace(">", "&gt;")

    assert marked(attn, tmp_path, RIGHT, "sheet.txt", ascii) == (0, "right", [True] * 7)
    assert marked(attn, tmp_path, RIGHT, "sheet.md", markdown) == (0, "right", [True] * 7)
    assert marked(attn, tmp_path, BLANK, "sheet.md", markdown) == (1, "unanswered", [None] * 7)


def test_each_answer_is_right_by_its_own_digits(attn, tmp_path):
    exact = [0.5, 3.0, 1.5, 0.0628900132, 0.7661572066, 0.1709527802, 0.4047955737]
    for digits in range(1, 7):
        rounded = [f"⟨{n}⟩{x:.{digits}f}" for n, x in enumerate(exact, 1)]
        off = [f"⟨{n}⟩{x + 2 * 10**-digits:.{digits}f}" for n, x in enumerate(exact, 1)]

        assert marked(attn, tmp_path, rounded)[2] == [True] * 7
        assert marked(attn, tmp_path, off)[2] == [False] * 7


def test_a_sheet_shows_what_was_written_and_what_is_right(attn, tmp_path):
    (tmp_path / "sheet.md").write_text(SHEET.format("⟨1⟩0.6", *RIGHT[1:4], *BLANK[4:]), encoding="utf-8")

    run = attn("check", SAMPLES / "tokens.csv", "--figures", "sheet.md", "--no-identify", "-q")

    rows = [line.split() for line in run.out.splitlines() if line.startswith("⟨")]
    assert rows[0] == ["⟨1⟩", "scaled_scores,", "cat", "→", "the", "0.6", "0.50", "✗"]
    assert rows[1][-2:] == ["3.00", "✓"]
    assert rows[4][-3:] == ["____", "0.7662", "–"]
    assert run.out.splitlines()[-1] == "wrong: 4 of 7 answered, 3 right, 3 left open"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("⟨1⟩0.5\n", "no-figures"),
        ("⟨1⟩0.5\n⟨1⟩: nothing[0][0]\n", "absent-step"),
        ("⟨1⟩0.5\n⟨1⟩: weights[0]\n", "wrong-place"),
        ("⟨1⟩0.5\n⟨1⟩: weights[0][9]\n", "out-of-range"),
        ("⟨1⟩0.5\n⟨1⟩ to ⟨3⟩: weights[0][0:2]\n", "bad-gap"),
        ("⟨1⟩0.5\n⟨1⟩: weights[0:1][0]\n", "bad-gap"),
        ("⟨1⟩__many__\n⟨1⟩: weights[0][0]\n", "not-a-number"),
        ("⟨1⟩0.5 ⟨1⟩0.6\n⟨1⟩: weights[0][0]\n", "two-answers"),
        ("⟨2⟩0.5\n⟨1⟩: weights[0][0]\n", "unknown-gap"),
    ],
)
def test_sheets_that_are_refused(attn, tmp_path, text, code):
    (tmp_path / "sheet.md").write_text(text, encoding="utf-8")

    run = attn("check", CAT_SAT, "--figures", "sheet.md")

    assert (run.status, run.out) == (3, "")
    assert f"error[{code}]" in run.err


@pytest.mark.parametrize("format", ["markdown", "plain"])
def test_a_worksheet_of_explain_is_marked(attn, tmp_path, format):
    """Written by attn, filled in by a script: right digits are right, wrong ones wrong, open gaps open."""
    problem = [SAMPLES / "journey_two_heads.json", "--causal"]
    sheet = attn("explain", problem[0], "2", "--causal", "--blank", "weights,context", "--format", format).out
    (tmp_path / "open.md").write_text(sheet, encoding="utf-8")
    words = [*problem, "--json", "-q", "--no-identify", "--figures"]
    answers = attn("check", *words, "open.md").json["answers"]
    assert len(answers) >= 4
    assert {a["right"] for a in answers} == {None}

    filled = sheet
    for a in answers:
        value = a["reference"] + (0.02 if a["gap"] == 2 else 0)
        assert f"⟨{a['gap']}⟩____" in filled
        filled = filled.replace(f"⟨{a['gap']}⟩____", f"⟨{a['gap']}⟩{value:.4f}", 1) if a["gap"] != 3 else filled
    (tmp_path / "filled.md").write_text(filled, encoding="utf-8")
    marked = attn("check", *words, "filled.md")

    assert marked.status == 1
    assert {a["gap"]: a["right"] for a in marked.json["answers"] if a["right"] is not True} == {2: False, 3: None}


def test_a_verdict_goes_to_a_file(attn, tmp_path):
    assert attn("check", CAT_SAT, "-o", "verdict.json").out == ""
    assert json.loads((tmp_path / "verdict.json").read_text())["verdict"] == "right"
    assert "error[output-exists]" in attn("check", CAT_SAT, "-o", "verdict.json").err
    assert attn("check", CAT_SAT, "-o", "verdict.md").status == 0
    assert "**right" in (tmp_path / "verdict.md").read_text(encoding="utf-8")


# ── what little can be said of figures that are alike, or strange ────────────────────────────────
EMPTY = {
    "q": [[1, 0.5], [0.3, 0.2], [0.7, 0.9]],
    "k": [[1, 0.1], [0.4, 0.8], [0.6, 0.2]],
    "v": [[1, 2], [3, 1], [2, 2]],
    "mask": [[True, False, True], [False, False, False], [True, True, False]],
}


@pytest.mark.parametrize("fill", ["nan", "uniform"])
def test_what_an_empty_row_holds_is_named_on_a_small_problem_too(fill):
    q, k, v, seen = (np.array(EMPTY[x], bool if x == "mask" else float) for x in ("q", "k", "v", "mask"))
    w = softmax(masked(q @ k.T / math.sqrt(2), seen))
    w[1] = np.nan if fill == "nan" else 1 / 3

    said = check(attncli.Problem(**EMPTY), None, of_arrays({"weights": w, "context": w @ v}))

    assert said.identified
    assert f"--empty-rows {fill}" in said.identified[0].names


def test_a_fit_that_may_be_chance_is_said_to_fit(attn, tmp_path):
    (tmp_path / "mine.json").write_text('{"weights": {"values": [[0.33]], "rows": [0], "columns": [1]}}')

    out = attn("check", CAT_SAT, "--figures", "mine.json").out

    assert "fits, but so few figures cannot tell it from chance" in out
    assert "nothing that was tried" not in out


@pytest.mark.parametrize(
    ("value", "said", "names"), [(0.0, "0", ()), (np.nan, "NaN", ()), (1 / 3, "0.333333", "uniform")]
)
def test_figures_that_are_all_alike_are_said_to_be(value, said, names):
    found = check(attncli.read(CAT_SAT), None, of_arrays({"weights": np.full((3, 3), value)}))

    assert found.plain == (f"all of your weights are {said}",)
    assert found.nearest == ()
    assert [s.names[0] for s in found.identified] == (["uniform weights"] if names else [])


@pytest.mark.parametrize(("over", "name"), [("seen", "uniform weights"), ("all", "uniform weights over all keys")])
def test_a_mean_is_no_attention(over, name):
    case = Case(0, mask="causal")
    w = (
        triangle(case.n) / triangle(case.n).sum(-1, keepdims=True)
        if over == "seen"
        else np.full((case.n,) * 2, 1 / case.n)
    )

    [found] = case.verdict({"context": merge(w @ case.qkv()[2])}).identified

    assert found.names[0] == name


def test_the_plainest_of_what_few_digits_cannot_tell_apart_stands_first():
    case = Case(0, mask="causal")
    s, _ = case.scores()

    found = case.verdict({"weights": softmax(masked(s, triangle(case.n), 0)).round(5)}).identified

    assert found[0].names[0] == "fill 0 instead of −∞"
    assert "fill 1e-9 instead of −∞" in found[0].names[1:]


def test_the_second_of_two_softmaxes_may_not_mask():
    case = Case(1, mask="causal")
    s, v = case.scores()

    found = case.verdict(steps(softmax(softmax(masked(s, triangle(case.n)))), v)).identified

    assert found[0].names[0] == "softmax applied twice, the second unmasked"


# ── figures as people write them ─────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("text", ["−∞", "-∞", "-inf", "−inf", "-Infinity", "_-∞_"])
def test_a_gap_may_hold_minus_infinity(attn, tmp_path, text):
    (tmp_path / "sheet.md").write_text(f"⟨1⟩{text} ⟨2⟩∞ ⟨3⟩NaN ⟨4⟩____\n\n⟨1⟩ to ⟨2⟩: masked_scores[0][1:3]\n"
                                       "⟨3⟩ to ⟨4⟩: masked_scores[1][1:3]\n", encoding="utf-8")  # fmt: skip

    words = ["check", CAT_SAT, "--causal", "--figures", "sheet.md", "--no-identify"]
    run, table = attn(*words, "--json"), attn(*words).out

    assert [a["right"] for a in run.json["answers"]] == [True, False, False, None]
    assert run.json["answers"][3]["reference"] == "-Infinity"
    assert table.count("−∞") >= 2


@pytest.mark.parametrize(
    "text", ["0.5x", "1/2", "sqrt(2)", "√2", "__0.5x__", "__1/2__", "-√2", "50%", "____√2", "infinite"]
)
def test_what_is_no_number_in_a_gap_is_refused(attn, tmp_path, text):
    (tmp_path / "sheet.md").write_text(f"a ⟨1⟩{text} b\n\n⟨1⟩: weights[0][0]\n", encoding="utf-8")

    run = attn("check", CAT_SAT, "--figures", "sheet.md")

    assert (run.status, "error[not-a-number]: gap 1 holds" in run.err) == (3, True), run.err


@pytest.mark.parametrize("text", ["0,38;0,23;0,38\n0,06;0,77;0,17\n0,10;0,16;0,74\n", "token;a;b;c\nthe;0,38;0,23;0,38\ncat;0,06;0,77;0,17\nsat;0,10;0,16;0,74\n"])  # fmt: skip
def test_tables_with_decimal_commas(attn, tmp_path, text):
    (tmp_path / "mine.csv").write_text(text)

    assert attn("check", CAT_SAT, "--figures", "mine.csv", "--step", "weights").status == 0


@pytest.mark.parametrize(
    ("name", "text", "status", "said"),
    [
        ("r.ndjson", '{"weights": [[0.38, 0.23, 0.38], [0.06, 0.77, 0.17], [0.10, 0.16, 0.74]]}\n', 0, "right"),
        ("r.ndjson", '{"weights": [[1]]}\n{"weights": [[1]]}\n', 3, "there are 2 results in it"),
        ("r.xlsx", "PK", 2, "unknown-format"),
        ("r.yaml", "weights: 1", 2, "unknown-format"),
        ("r.rst", "⟨1⟩0.38\n\n⟨1⟩: weights[0][0]\n", 0, "right"),
        ("r.csv", "0.38,0.2x,0.38\n0.06,0.77,0.17\n0.10,0.16,0.74\n", 3, "r.csv:1:2"),
        ("r.csv", "the,0.38,0.2x,0.38\ncat,0.06,0.77,0.17\nsat,0.10,0.16,0.74\n", 3, "r.csv:1:3"),
        ("r.json", '{"weights": [[0.06, "a", 0.17]]}', 3, "$.weights[0][1]"),
        ("r.json", '{"weights": {"values": [[0.06, "a", 0.17]], "rows": [1]}}', 3, "$.weights.values[0][1]"),
        ("r.json", '{"weights": {"values": [[0.06, 0.77, 0.17]], "rows": [7]}}', 3, "3 queries"),
    ],
)  # fmt: skip
def test_files_of_figures(attn, tmp_path, name, text, status, said):
    (tmp_path / name).write_text(text, encoding="utf-8")

    run = attn(
        "check", CAT_SAT, "--figures", name, *(["--step", "weights"] if name == "r.csv" else []), "--no-identify"
    )

    assert (run.status, said in run.out + run.err) == (status, True), run.out + run.err


def test_one_result_of_a_stream_is_read(attn, tmp_path):
    attn("compute", CAT_SAT, "--only", "weights", "-o", "r.json")
    (tmp_path / "r.ndjson").write_text(json.dumps(json.loads((tmp_path / "r.json").read_text())) + "\n")

    assert attn("check", CAT_SAT, "--figures", "r.ndjson").status == 0
