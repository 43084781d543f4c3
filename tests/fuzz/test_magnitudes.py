"""A ladder of magnitudes: every part that computes with numbers, from 1e-300 to 1e300, against 60 digits of mpmath.

A figure may be wrong by `BOUND` units of roundoff of its conditioning: the sum of the magnitudes that it is made of, that
is what a change of each of them in its last digit may do to it.
"""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch

from attncli.core.statistics import entropy_in_bits, log_sum_exp
from attncli.parts.links import link
from attncli.parts.mixing import mixing, sub_norm
from attncli.parts.normalizers import normalizer
from attncli.parts.norms import norm
from attncli.parts.scores import score

pytestmark = [pytest.mark.slow, pytest.mark.uncounted]

mp = mpmath.mp.clone()
mp.dps = 60
BOUND = 8  # units of roundoff
EXPONENTS = [*range(-300, 301, 12), -161, -154, -19, 154, 155]
LARGEST = {torch.float64: 1.7976931348623157e308, torch.float32: 3.4028234663852886e38, torch.float16: 65504.0}
UNIT = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SMALLEST = {torch.float64: 5e-324, torch.float32: 1.4e-45, torch.float16: 6e-8, torch.bfloat16: 1e-40}
D = 5


def draw_rows(exponent: int, count: int, dtype=torch.float64) -> torch.Tensor:
    """Rows of about 10^exponent: ordinary ones, one of a few digits, one whose entries differ by 10^12, and zeros among them."""
    rng = np.random.default_rng(exponent + 1000)
    x = rng.normal(size=(count, D))
    x[1] *= 10.0 ** rng.uniform(-6, 6, size=D)
    x[2, 1] = 0
    return torch.tensor(x * 10.0**exponent, dtype=torch.float64).to(dtype)


def as_mp(x: torch.Tensor) -> list:
    return [as_mp(row) for row in x] if x.ndim else mp.mpf(float(x))


def mismatches(got: torch.Tensor, wanted: list, conditioning: list, bound: float) -> list:
    """The cells that are further from the reference than the bound allows, with what came out."""
    dtype = got.dtype
    out = []
    for i, (value, right, condition) in enumerate(
        zip(got.double().flatten().tolist(), flatten(wanted), flatten(conditioning), strict=True)
    ):
        if abs(right) > LARGEST.get(dtype, 3.38e38):
            is_right = math.isinf(value)
        else:
            allowed = bound * UNIT[dtype] * condition + 4 * D * SMALLEST[dtype]
            is_right = math.isfinite(value) and abs(mp.mpf(value) - right) <= allowed
        if not is_right:
            out.append((i, value, mp.nstr(right, 17), mp.nstr(condition, 3)))
    return out


def flatten(x: list) -> list:
    return [cell for row in x for cell in flatten(row)] if isinstance(x, list) else [x]


# ── norms ────────────────────────────────────────────────────────────────────────────────────────
def l2_exactly(x: list, eps) -> tuple[list, list]:
    length = max(mp.sqrt(sum(a * a for a in x)), eps)
    y = [a / length for a in x]
    return y, [abs(a) for a in y]


def rms_exactly(x: list, eps) -> tuple[list, list]:
    root = mp.sqrt(sum(a * a for a in x) / len(x) + eps)
    y = [a / root for a in x]
    return y, [abs(a) for a in y]


def layer_exactly(x: list, eps) -> tuple[list, list]:
    mean, mean_size = sum(x) / len(x), sum(map(abs, x)) / len(x)
    centred = [a - mean for a in x]
    root = mp.sqrt(sum(a * a for a in centred) / len(x) + eps)
    roundoff = [(abs(a) + mean_size) / root for a in x]
    return [a / root for a in centred], [
        error + abs(a) / root * max(roundoff) for a, error in zip(centred, roundoff, strict=True)
    ]


NORMS = {
    "l2": (l2_exactly, 1e-12),
    "rms": (rms_exactly, 1e-6),
    "layer": (layer_exactly, 1e-5),
    "l2:eps=1e-300": (l2_exactly, 1e-300),
    "rms:eps=1e-300": (rms_exactly, 1e-300),
    "layer:eps=1e-300": (layer_exactly, 1e-300),
}


def test_every_norm_stands_on_the_ladder():
    assert {name.partition(":")[0] for name in NORMS} == {member.name for member in norm} - {"none"}


@pytest.mark.parametrize("name", NORMS)
def test_norms_are_right_at_every_magnitude(name):
    exactly, eps = NORMS[name]
    for exponent in EXPONENTS:
        x = draw_rows(exponent, 4)
        pairs = [exactly(row, mp.mpf(eps)) for row in as_mp(x)]

        got = norm.parse(name)(x[None, None])

        wrong = mismatches(got, [y for y, _ in pairs], [condition for _, condition in pairs], BOUND)
        assert not wrong, (exponent, wrong)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", list(NORMS)[:3])
def test_norms_of_narrow_dtypes_are_rounded_once_or_twice(name, dtype):
    exactly, eps = NORMS[name]
    exponents = range(-6, 5) if dtype == torch.float16 else range(-36, 38)
    for exponent in exponents:
        x = draw_rows(exponent, 4, dtype).clamp(-LARGEST.get(dtype, 3e38), LARGEST.get(dtype, 3e38))
        pairs = [exactly(row, mp.mpf(eps)) for row in as_mp(x)]

        got = norm.parse(name)(x[None, None])

        assert got.dtype == dtype
        wrong = mismatches(got, [y for y, _ in pairs], [condition for _, condition in pairs], 4)
        assert not wrong, (exponent, wrong)


def test_the_norm_of_a_differential_pair_is_right_at_every_magnitude():
    part = mixing.parse("differential:depth=1")
    factor = mp.mpf(1) - (mp.mpf(0.8) - mp.mpf(0.6) * mp.exp(-mp.mpf(0.3)))
    for exponent in EXPONENTS:
        z = draw_rows(exponent, 4)
        pairs = [rms_exactly(row, mp.mpf(1e-5)) for row in as_mp(z)]

        got = sub_norm(z[None, None], {}, part)

        wanted = [[a * factor for a in y] for y, _ in pairs]
        assert not mismatches(got, wanted, [[abs(a) for a in row] for row in wanted], BOUND), exponent


# ── scores ───────────────────────────────────────────────────────────────────────────────────────
def dot_exactly(q, k):
    return sum(a * b for a, b in zip(q, k, strict=True)), sum(abs(a * b) for a, b in zip(q, k, strict=True))


def cosine_exactly(q, k):
    lengths = mp.sqrt(dot_exactly(q, q)[0]) * mp.sqrt(dot_exactly(k, k)[0])
    value, condition = dot_exactly(q, k)
    return (value / lengths, condition / lengths) if lengths else (mp.mpf(0), mp.mpf(0))


def euclidean_exactly(q, k):
    value = sum((a - b) ** 2 for a, b in zip(q, k, strict=True))
    return -value, value


def additive_exactly(q, k):
    units = [mp.tanh(a + b) for a, b in zip(q, k, strict=True)]
    return sum(units), sum(abs(t) + (1 - t * t) * abs(a + b) for t, a, b in zip(units, q, k, strict=True))


def kernel_exactly(q, k, phi):
    features = [(phi(a), phi(b), abs(a), abs(b)) for a, b in zip(q, k, strict=True)]
    return sum(a * b for a, b, *_ in features), sum(a * b for a, b, *_ in features)


def elu_plus_one(x):
    return x + 1 if x > 0 else mp.exp(x)


def relu(x):
    return max(x, mp.mpf(0))


SCORES = {
    "dot": dot_exactly,
    "general": dot_exactly,  # with the identity
    "cosine": cosine_exactly,
    "euclidean": euclidean_exactly,
    "additive": additive_exactly,
    "concat": additive_exactly,
    "kernel": lambda q, k: kernel_exactly(q, k, elu_plus_one),
    "kernel:phi=relu": lambda q, k: kernel_exactly(q, k, relu),
    "kernel:phi=exp": lambda q, k: kernel_exactly(q, k, mp.exp),
}


def test_every_score_stands_on_the_ladder():
    assert {name.partition(":")[0] for name in SCORES} == {member.name for member in score}


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_right_at_every_magnitude(name):
    parameters = {"score_w_q": torch.eye(D, dtype=torch.float64)} if name == "general" else {}
    for exponent in EXPONENTS:
        if name == "kernel:phi=exp" and exponent > 2:
            continue  # e^x itself has no figure there
        if abs(exponent) > 150 and name in ("dot", "general", "kernel", "kernel:phi=relu"):
            other_exponent = -exponent  # the products themselves have figures in float64 only then
        else:
            other_exponent = exponent
        q, k = draw_rows(exponent, 3), draw_rows(other_exponent, 4)
        if other_exponent == exponent:
            k[3] = q[0]  # a cosine of 1, a distance of 0
        pairs = [[SCORES[name](a, b) for b in as_mp(k)] for a in as_mp(q)]

        got = score.parse(name)(q[None, None], k[None, None], parameters)

        wanted = [[value for value, _ in row] for row in pairs]
        wrong = mismatches(got, wanted, [[condition for _, condition in row] for row in pairs], BOUND)
        assert not wrong, (exponent, wrong)
        if name == "cosine":
            assert got.abs().max() <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["cosine", "euclidean"])
def test_scores_of_narrow_dtypes_square_in_a_wider_one(name, dtype):
    exponents = range(-6, 5) if dtype == torch.float16 else range(-36, 38)
    for exponent in exponents:
        q, k = draw_rows(exponent, 3, dtype), draw_rows(exponent, 4, dtype)
        if not (q.isfinite().all() and k.isfinite().all()):
            continue
        pairs = [[SCORES[name](a, b) for b in as_mp(k)] for a in as_mp(q)]

        got = score.parse(name)(q[None, None], k[None, None], {})

        wanted = [[value for value, _ in row] for row in pairs]
        wrong = mismatches(got, wanted, [[condition for _, condition in row] for row in pairs], 4)
        assert not wrong, (exponent, wrong)


# ── normalisers ──────────────────────────────────────────────────────────────────────────────────
def softmax_exactly(s: list) -> tuple[list, list]:
    top = max(s)
    e = [mp.exp(a - top) for a in s]
    w = [a / sum(e) for a in e]
    slope = sum(weight * abs(a - top) for weight, a in zip(w, s, strict=True))
    return w, [weight * (1 + abs(a - top) + slope) for weight, a in zip(w, s, strict=True)]


def entmax_exactly(s: list, alpha) -> tuple[list, list]:
    top, power = max(s), 1 / (mp.mpf(alpha) - 1)
    z = [(a - top) * (mp.mpf(alpha) - 1) for a in s]
    low, high = mp.mpf(-1), mp.mpf(0)
    for _ in range(220):
        middle = (low + high) / 2
        total = sum(max(a - middle, 0) ** power for a in z if a > middle)
        low, high = (middle, high) if total >= 1 else (low, middle)
    w = [max(a - low, mp.mpf(0)) ** power if a > low else mp.mpf(0) for a in z]
    among = [a for a in z if a > low]
    if alpha > 2:  # a weight is far less steep than its own power, since the weights sum to 1
        g = [weight ** (2 - mp.mpf(alpha)) if weight else mp.mpf(0) for weight in w]
        share = [a / sum(g) for a in g]
        moves = [sum(abs(a * ((i == j) - share[j]) * z[j]) for j in range(len(z))) for i, a in enumerate(g)]
        return w, [weight + power * move for weight, move in zip(w, moves, strict=True)]
    slope = max((power * (a - low) ** (power - 1) for a in among), default=mp.mpf(0))
    size = 1 + max(abs(a) for a in among)
    return w, [weight + slope * size * len(among) for weight in w]


def topk_exactly(s: list, k: int) -> tuple[list, list]:
    among = sorted(range(len(s)), key=lambda j: -s[j])[:k]
    w, condition = softmax_exactly([s[j] for j in among])
    zeros = [mp.mpf(0)] * len(s)
    return tuple(
        [dict(zip(among, x, strict=True)).get(j, zero) for j, zero in enumerate(zeros)] for x in (w, condition)
    )


def sum_exactly(s: list) -> tuple[list, list]:
    total, size = sum(s), sum(map(abs, s))
    w = [a / total if total else mp.mpf(0) for a in s]
    # added with twice the digits: the sum is wrong by a unit of itself, and by a square of a unit of the terms
    return w, [abs(a) * (1 + size / abs(total) * mp.mpf(2) ** -52 if total else 1) for a in w]


NORMALIZERS = {
    "softmax": softmax_exactly,
    "sigmoid": lambda s: ([1 / (1 + mp.exp(-a)) for a in s], [(1 + abs(a)) / (1 + mp.exp(-a)) for a in s]),
    "sparsemax": lambda s: entmax_exactly(s, 2),
    "entmax15": lambda s: entmax_exactly(s, 1.5),
    "entmax:alpha=1.25": lambda s: entmax_exactly(s, 1.25),
    "entmax:alpha=8": lambda s: entmax_exactly(s, 8),
    "relu": lambda s: ([max(a, mp.mpf(0)) for a in s], [abs(a) for a in s]),
    "topk:k=2": lambda s: topk_exactly(s, 2),
    "hardmax": lambda s: ([mp.mpf(a == max(s)) for a in s], [mp.mpf(0)] * len(s)),
    "sum": sum_exactly,
    "none": lambda s: (s, [mp.mpf(0)] * len(s)),
}


def test_every_normalizer_stands_on_the_ladder():
    assert {name.partition(":")[0] for name in NORMALIZERS} == {member.name for member in normalizer}


@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalizers_are_right_at_every_magnitude(name):
    for exponent in EXPONENTS:
        s = draw_rows(exponent, 4)
        pairs = [NORMALIZERS[name](row) for row in as_mp(s)]

        got = normalizer.parse(name)(s[None, None], None)

        wrong = mismatches(got, [w for w, _ in pairs], [condition for _, condition in pairs], BOUND)
        assert not wrong, (exponent, wrong)


def test_a_sum_is_not_lost_between_large_terms():
    s = torch.tensor([[[[1e16, 1.0, -1e16], [1e300, 3.0, -1e300], [0.1, 0.2, -0.3]]]], dtype=torch.float64)

    w = normalizer.parse("sum")(s, None)

    assert w[0, 0, 0].tolist() == [1e16, 1.0, -1e16]
    assert w[0, 0, 1].tolist() == [1e300 / 3.0, 1.0, -1e300 / 3.0]
    total = float(mp.mpf(0.1) + mp.mpf(0.2) - mp.mpf(0.3))  # of the figures as they are stored: 2.8e-17
    np.testing.assert_allclose(w[0, 0, 2].numpy(), [0.1 / total, 0.2 / total, -0.3 / total], rtol=1e-15)


@pytest.mark.parametrize("name", NORMALIZERS)
def test_a_visible_nan_is_seen_and_touches_no_hidden_key(name):
    s = torch.tensor([[[[1.0, math.nan, 2.0, 0.5], [1.0, 0.25, 2.0, math.nan]]]], dtype=torch.float64)
    visible = torch.tensor([[[[True, True, True, False], [True, True, True, False]]]])

    w = normalizer.parse(name)(s, visible)

    assert w[0, 0, 0].isnan().any()
    assert w[0, 0, 0, 3] == 0
    assert w[0, 0, 1].isfinite().all()  # a hidden NaN is none
    assert w[0, 0, 1, 3] == 0


# ── links, and what is said about rows ───────────────────────────────────────────────────────────
LINKS = {
    "scale": ({"factor": 0.3}, lambda s: s * mp.mpf(0.3)),
    "softcap": ({"cap": 30.0}, lambda s: 30 * mp.tanh(s / 30)),
    "temperature": ({"t": 0.7}, lambda s: s / mp.mpf(0.7)),
}


@pytest.mark.parametrize("name", LINKS)
def test_links_are_right_at_every_magnitude(name):
    options, exactly = LINKS[name]
    for exponent in EXPONENTS:
        s = draw_rows(exponent, 4)
        wanted = [[exactly(a) for a in row] for row in as_mp(s)]

        got = link[name].function(s, None, **options)

        assert not mismatches(got, wanted, [[abs(a) for a in row] for row in wanted], BOUND), exponent


def test_log_sum_exp_and_entropy_are_right_at_every_magnitude():
    for exponent in EXPONENTS:
        s = draw_rows(exponent, 4)
        rows = as_mp(s)
        w = s.softmax(-1)
        sums = [max(row) + mp.log(sum(mp.exp(a - max(row)) for a in row)) for row in rows]
        entropies = [-sum(a * mp.log(a, 2) for a in row if a) for row in as_mp(w)]

        got = log_sum_exp(s.amax(-1), w), entropy_in_bits(w)

        assert not mismatches(got[0], sums, [1 + max(map(abs, row)) for row in rows], BOUND), exponent
        assert not mismatches(got[1], entropies, [mp.mpf(1) + e for e in entropies], BOUND), exponent
