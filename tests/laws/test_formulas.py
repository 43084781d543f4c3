"""Of every step, the formula is the one that was computed.

In a formula q, k, s, w and x are what they are when the step is made: the latest step of queries, keys, scores, weights and
embeddings before it. `RETYPED` says once more, in NumPy, what each printed formula says.
"""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
import torch

import attncli
from attncli.variant import Variant
from tests.helpers import draw_normal, softmax
from tests.laws.problems import ONE_CHOICE, D, H, N, problem_for
from tests.parts.position_formulas import paper_slopes

pytestmark = pytest.mark.uncounted


class Steps:
    """What a formula may name: the steps before it, the arrays of the problem, and the options of the part."""

    def __init__(self, problem, variant, result) -> None:
        self.problem, self.variant, self.result = problem, variant, result
        self.latest = {"x": problem.embeddings}
        self.heads = variant["heads"] or 1
        self.visible = result["mask"].values if "mask" in result else np.True_
        self.drawn = dict(result.parameters)

    def __getattr__(self, letter):
        return self.latest[letter]

    def parameter(self, name):
        return np.asarray(self.problem.parameters.get(name, self.drawn.get(name)))

    def option(self, choice, name):
        return self.variant[choice].option_value(name)

    @property
    def seen(self):
        """Scores that the normaliser takes: −∞ where hidden."""
        return np.where(self.visible, self.s, -np.inf)

    @property
    def sink(self):
        """e^sink less the largest score, beside e^(s − max s)."""
        logits = self.parameter("sinks") if self.variant["sink"].name == "given" else np.zeros(self.heads)
        return logits.reshape(-1, 1) if self.s.ndim == 3 else logits

    def distances(self):
        return np.arange(N) - np.arange(N)[:, None]  # j − i


def as_heads(steps, x):
    """Cut columns into as many heads as the step has: (t, h·d) → (h, t, d)."""
    shape = steps.step.values.shape
    return x if len(shape) == 2 else x.reshape(len(x), shape[0], -1).swapaxes(0, 1)


def project(steps, match):
    letter = match[1]
    x = steps.x @ steps.parameter(f"w_{letter}")
    return as_heads(steps, x + (steps.parameter(f"b_{letter}") if match[2] else 0))


def project_context(steps, match):
    b = steps.parameter("b_o") if match[1] else 0
    return steps.result["context"].values @ steps.parameter("w_o") + b


def pairwise(function):
    return lambda steps, match: function(steps.q[..., :, None, :], steps.k[..., None, :, :], steps)


def additive(q, k, steps):
    hidden = np.tanh(q @ steps.parameter("score_w_q") + k @ steps.parameter("score_w_k"))
    return hidden @ steps.parameter("score_v")


def cosine(q, k, steps):
    return (q * k).sum(-1) / np.linalg.norm(q, axis=-1) / np.linalg.norm(k, axis=-1)


def kernel(q, k, steps):
    phi = {"elu": lambda x: np.where(x > 0, x + 1, np.exp(x)), "relu": lambda x: np.maximum(x, 0), "exp": np.exp}[
        steps.option("score", "phi")
    ]
    return (phi(q) * phi(k)).sum(-1)


def norm(function):
    def normalize(steps, match, letter):
        x = steps.latest[letter]
        full = steps.option("qk_norm", "scope") == "full" and x.ndim == 3
        rows = np.concatenate([*x], -1) if full else x
        rows = function(rows, steps.option("qk_norm", "eps"))
        gain = steps.parameter(f"{letter}_norm") if match[1] else 1
        return as_heads(steps, rows * gain) if full else rows * gain

    return normalize


def mean(x):
    return x.mean(-1, keepdims=True)


def waves(steps, match):
    angles = np.arange(N)[:, None] * float(steps.option("position", "theta")) ** (-np.arange(0, D, 2) / D)
    if steps.option("position", "layout") == "halves":
        return steps.x + np.hstack([np.sin(angles), np.cos(angles)])
    return steps.x + np.stack([np.sin(angles), np.cos(angles)], -1).reshape(N, D)


def rotate(steps, match, letter):
    x = steps.latest[letter]
    part = steps.variant["position"]
    width = x.shape[-1]
    turned = part.option_value("dims") or int(width * (part.option_value("fraction") or 1))
    start = width - turned if part.option_value("columns") == "last" else 0
    out = x.copy()
    for i in range(turned // 2):
        first, second = (2 * i, 2 * i + 1) if part.option_value("layout") == "interleaved" else (i, i + turned // 2)
        angle = np.arange(N) * float(part.option_value("theta")) ** (-2 * i / turned)
        a, b = x[..., start + first], x[..., start + second]
        out[..., start + first] = a * np.cos(angle) - b * np.sin(angle)
        out[..., start + second] = a * np.sin(angle) + b * np.cos(angle)
    return out


def alibi(steps, match):
    slopes = np.array(paper_slopes(steps.heads)) ** (float(steps.option("position", "max")) / 8)
    return steps.s - (slopes.reshape(-1, 1, 1) * np.abs(steps.distances())).reshape(steps.s.shape)


def relative(steps, match):
    m = steps.option("position", "max-distance")
    rows = steps.parameter("bias_table")[np.clip(steps.distances(), -m, m) + m]  # (n, n, h)
    return steps.s + np.moveaxis(rows, -1, 0).reshape(steps.s.shape)


def dropped(steps, match):
    p = steps.option("dropout", "p")
    seed = steps.option("dropout", "seed")
    generator = torch.Generator().manual_seed(steps.variant["seed"] if seed is None else seed)
    kept = (torch.rand(steps.w.shape, dtype=torch.float64, generator=generator) < 1 - p).numpy()
    if steps.problem.dropout_mask is not None:
        kept = np.asarray(steps.problem.dropout_mask)
    return np.where(kept, steps.w / (1 - p), 0)


def entropy(steps, match):
    w = steps.result["weights"].values
    w = w / w.sum(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return -(w * np.log2(np.where(w == 0, 1, w))).sum(-1)


def threshold(power, stretch):
    """Weights whose sum is 1 by bisection: max(stretch · s − τ, 0)^power."""

    def normalize(steps, match):
        alpha = float(steps.variant["normalizer"].option_value("alpha")) if power is None else 1 + 1 / power
        if alpha == 1:
            return softmax(steps.seen)
        exponent, s = 1 / (alpha - 1), (alpha - 1) * steps.seen
        low, high = s.max(-1, keepdims=True) - 1, s.max(-1, keepdims=True)
        for _ in range(100):
            tau = (low + high) / 2
            above = (np.maximum(s - tau, 0) ** exponent).sum(-1, keepdims=True) > 1
            low, high = np.where(above, tau, low), np.where(above, high, tau)
        return np.maximum(s - tau, 0) ** exponent

    return normalize


def largest(steps, count):
    order = np.argsort(-steps.seen, axis=-1, kind="stable")[..., :count]
    chosen = np.zeros(steps.s.shape, bool)
    np.put_along_axis(chosen, order, True, -1)
    return chosen & np.isfinite(steps.seen)


def top_softmax(steps, match):
    return softmax(np.where(largest(steps, steps.option("normalizer", "k")), steps.seen, -np.inf))


def soft(steps, match):
    if not match[1]:
        return softmax(steps.seen)
    return np.exp(steps.seen) / (np.exp(steps.seen).sum(-1, keepdims=True) + np.exp(steps.sink)[..., None])


def share(steps, match):
    s = np.where(steps.visible, steps.s, 0)
    return s / s.sum(-1, keepdims=True)


def sigmoid(steps, match):
    bias = steps.option("normalizer", "bias")
    return np.where(steps.visible, 1 / (1 + np.exp(-(steps.s + (-math.log(N) if bias == "auto" else float(bias))))), 0)


def sink_share(steps, match):
    return np.exp(steps.sink) / (np.exp(steps.sink) + np.exp(steps.seen).sum(-1))


def log_sum(steps, match):
    return np.log(np.exp(steps.seen).sum(-1) + (np.exp(steps.sink) if match[1] else 0))


def subtract_pairs(steps, match):
    names, part = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"), steps.variant["head_mixing"]
    q1, k1, q2, k2 = map(steps.parameter, names)
    lam = np.exp(q1 @ k1) - np.exp(q2 @ k2) + 0.8 - 0.6 * np.exp(-0.3 * part.option_value("depth"))
    a, b = (steps.w[::2], steps.w[1::2]) if part.option_value("pairing") == "adjacent" else np.split(steps.w, 2)
    return a - lam * b


def sub_norm(steps, match):
    z = steps.result["head_context"].values
    gain = steps.parameter("sub_norm")
    start = 0.8 - 0.6 * np.exp(-0.3 * steps.option("head_mixing", "depth"))
    return z / np.sqrt(mean(z**2) + 1e-5) * gain * (1 - start)


def weighted_sum(steps, match):
    values = steps.result[match[1]].values
    return values @ steps.result["v"].values


def merged(steps, match):
    per_head = steps.result[match[1]].values if match[2] is None else weighted_sum(steps, match)
    return np.concatenate([*per_head], -1)


def mix(steps, letter, match):
    table = steps.parameter("talking_pre" if letter == "s" else "talking_post")
    return np.einsum("gnm,gh->hnm", steps.latest[letter], table)


NUMBER = r"([\d.e+-]+)"
RETYPED = {
    r"x W_([qkv])( \+ b_\1)?": project,
    r"x": lambda t, m: as_heads(t, t.x),
    r"context W_o( \+ b_o)?": project_context,
    r"q·k": pairwise(lambda q, k, t: (q * k).sum(-1)),
    r"q W kᵀ": lambda t, m: t.q @ t.parameter("score_w_q") @ t.k.swapaxes(-1, -2),
    r"v · tanh\((q W_q \+ k W_k|W \[q; k\])\)": pairwise(additive),
    r"q·k / \(\|q\| \|k\|\), 0 for a zero vector": pairwise(cosine),
    r"−\|q − k\|²": pairwise(lambda q, k, t: -((q - k) ** 2).sum(-1)),
    r"φ\(q\)·φ\(k\), φ\(x\) = elu\(x\) \+ 1, max\(x, 0\) or e\^x": pairwise(kernel),
    rf"s × {NUMBER}": lambda t, m: t.s * float(m[1]),
    rf"s × {NUMBER} = s / √d_k, d_k = (\d+)": lambda t, m: t.s / math.sqrt(int(m[2])),
    rf"{NUMBER} · tanh\(s / {NUMBER}\)": lambda t, m: float(m[1]) * np.tanh(t.s / float(m[2])),
    rf"s / {NUMBER}": lambda t, m: t.s / float(m[1]),
    rf"s × max\(1, ln n / ln {NUMBER}\)": lambda t, m: t.s * max(1, math.log(N) / math.log(float(m[1]))),
    r"s \+ bias": lambda t, m: t.s + t.problem.bias,
    r"s where visible, else −∞": lambda t, m: np.where(t.visible, t.s, -np.inf),
    r"s − m_h \|i − j\|": alibi,
    r"s \+ table\[clip\(j − i, −m, m\) \+ m, h\]": relative,
    r"x \+ \[sin\(p ω\), cos\(p ω\)\], ω_i = theta\^\(−2i/d\)": waves,
    r"\(x, y\) → \(x cos pω − y sin pω, x sin pω \+ y cos pω\), ω_i = theta\^\(−2i/dims\)": rotate,
    r"x / max\(\|x\|, eps\)( × gain)?": norm(lambda x, eps: x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), eps)),
    r"x / √\(mean x² \+ eps\)( × gain)?": norm(lambda x, eps: x / np.sqrt(mean(x**2) + eps)),
    r"\(x − mean x\) / √\(var x \+ eps\)( × gain)?": norm(lambda x, eps: (x - mean(x)) / np.sqrt(x.var(-1, keepdims=True) + eps)),
    r"e\^\(s − max s\) / Σ e\^\(s − max s\)(, Σ with the sink)?": soft,
    r"1 / \(1 \+ e\^−\(s \+ bias\)\)": sigmoid,
    r"max\(s − τ, 0\) with τ such that Σ = 1": threshold(1, 1),
    r"max\(s/2 − τ, 0\)² with τ such that Σ = 1": threshold(2, 0.5),
    r"max\(\(α − 1\) s − τ, 0\)\^\(1/\(α − 1\)\) with τ such that Σ = 1": threshold(None, None),
    r"max\(s, 0\)": lambda t, m: np.where(t.visible, np.maximum(t.s, 0), 0),
    r"softmax over the k largest scores": top_softmax,
    r"1 for the largest score, else 0": lambda t, m: largest(t, 1) * 1.0,
    r"s / Σ s, 0 where Σ s = 0": share,
    r"s": lambda t, m: np.where(t.visible, t.s, 0),
    r"(e\^sink|1) / \((e\^sink|1) \+ Σ e\^s\)": sink_share,
    r"w / \(1 − p\) where kept, else 0": dropped,
    r"out_h = Σ_g x_g P\[g, h\], of scores and of weights": mix,
    r"w_a − λ w_b, λ = e\^\(λ_q1·λ_k1\) − e\^\(λ_q2·λ_k2\) \+ 0\.8 − 0\.6 e\^\(−0\.3 depth\)": subtract_pairs,
    r"z / √\(mean z² \+ 1e-5\) × gain × \(1 − λ_init\)": sub_norm,
    r"(\w+) · v": weighted_sum,
    r"(\w+)( · v)?, heads side by side": merged,
    r"max s": lambda t, m: t.seen.max(-1),
    r"ln Σ e\^s(, Σ with the sink)?": log_sum,
    r"number of visible keys": lambda t, m: np.broadcast_to(t.visible, t.s.shape).sum(-1),
    r"−Σ w log₂ w": entropy,
    r"the largest weights": lambda t, m: -np.sort(-t.w)[..., :4],
    r"keys of the largest weights": lambda t, m: np.argsort(-t.w, axis=-1, kind="stable")[..., :4],
}  # fmt: skip
NOT_RETYPED = {
    "may attend": "masks have formulas of their own: tests/parts/test_mask_formulas.py",
    "s + table[bucket(j − i), h]": "the buckets are those of the paper's code: tests/parts/test_positions.py",
    **dict.fromkeys(("W ~", "W, b ~", "W_o as linear"), "draws are PyTorch's own: tests/parts/test_projections.py"),
    "ω of scaling": "the frequencies are those of the models: tests/oracles/test_transformers_rope.py",
}
LETTERS = {"scores": "s", "weights": "w", "embeddings": "x", "q": "q", "k": "k"}
SEVERAL = [
    {"mask": "causal", "sink": "zero"},
    {"mask": "causal", "sink": "given", "softcap": 2},
    {"mask": "causal", "position": "alibi", "normalizer": "sigmoid"},
    {"position": "rope", "qk_norm": "rms:at=after"},
    {"position": "sinusoidal", "projection": "torch-mha", "seed": 3, "dropout": "dropout:p=0.4,seed=5"},
    {"head_mixing": "talking-heads", "dropout": 0.4, "seed": 3, "heads": 2},
]


@pytest.mark.parametrize("heads", [None, H], ids=["one", "heads"])
@pytest.mark.parametrize("choices", [*ONE_CHOICE, *SEVERAL], ids=str)
def test_the_formula_of_every_step_is_what_was_computed(choices, heads):
    variant = Variant(**{"heads": heads} | choices)
    problem = problem_for(str(choices.get("mask")), variant=variant)
    keep = None if "head_mixing" in choices else "all"

    result = attncli.attend(problem, variant, *([] if keep is None else [keep]), top=4)
    steps = Steps(problem, variant, result)

    for step in result:
        steps.step = step
        for letter in ("s", "w") if step.formula.startswith("out_h") else ("",):
            if letter and (letter == "s") != step.name.endswith("scores"):
                continue
            expected = evaluate(steps, step, letter)
            if expected is not None:
                np.testing.assert_allclose(
                    step.values, expected, rtol=1e-9, atol=1e-12, err_msg=f"{step.name}: {step.formula}"
                )
        name = step.name.rpartition("_")[2] if step.name != "sink_weights" else ""
        if name in LETTERS and step.name != "top_weights":
            steps.latest[LETTERS[name]] = step.values


def evaluate(steps, step, letter):
    """Return the values that a step's formula says; None where it is not retyped."""
    if any(text in step.formula for text in NOT_RETYPED):
        return None
    for pattern, function in RETYPED.items():
        match = re.fullmatch(pattern, step.formula)
        if match is None:
            continue
        if function is mix:
            return mix(steps, letter, match)
        of_qk = step.name in ("normed_q", "normed_k", "positioned_q", "positioned_k")
        return function(steps, match, step.name[-1]) if of_qk else function(steps, match)
    raise AssertionError(f"no one has retyped the formula of {step.name}: {step.formula}")


def test_weights_that_a_given_mask_keeps_are_what_their_formula_says():
    kept = draw_normal(5, N, N) > 0
    variant = Variant(dropout="dropout:p=0.25", seed=1)
    problem = attncli.Problem(embeddings=draw_normal(0, N, D), dropout_mask=kept)

    step = attncli.attend(problem, variant)["dropout_weights"]

    assert step.formula == "w / (1 − p) where kept, else 0"
    weights = attncli.attend(problem, variant)["weights"].values
    np.testing.assert_allclose(step.values, np.where(kept, weights / 0.75, 0))


def test_a_formula_that_was_not_computed_is_noticed():
    problem, variant = problem_for("full"), Variant(dropout="dropout:p=0.4,seed=5")
    result = attncli.attend(problem, variant)
    steps = Steps(problem, variant, result)
    planted = dataclasses.replace(result["context"], formula="weights · v")

    right, wrong = (evaluate(steps, step, "") for step in (result["context"], planted))

    np.testing.assert_allclose(right, planted.values, rtol=1e-12)
    assert not np.allclose(wrong, planted.values)
