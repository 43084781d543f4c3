"""Normalizers: their formulas, row by row, and the values and gradients of the entmax package."""

from __future__ import annotations

import importlib
import math
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
import torch

import attncli
from attncli.parts.normalizers import normalizer
from tests.helpers import assert_close, assert_identical, compute, draw_normal, rng, softmax, step_values

pytestmark = pytest.mark.usefixtures("own_stream")
INF = math.inf
B, H, G, N, M, D, E, C = 2, 6, 3, 4, 5, 8, 7, 9  # batch, heads, kv heads, queries, keys, width of q, of another k, of v


def normalized(s: np.ndarray, normalizer: str, visible: np.ndarray | None = None, **choices: Any) -> attncli.Attention:
    """Weights of scores (…, n, m) as they stand: they are the file's bias to q and k of zeros."""
    q = np.zeros((*s.shape[:-1], 2))
    k = np.zeros((*s.shape[:-2], s.shape[-1], 2))
    fields = {
        "q": q,
        "k": k,
        "v": np.broadcast_to(np.eye(s.shape[-1]), (*s.shape[:-2], s.shape[-1], s.shape[-1])),
        "bias": s,
    }
    return compute(fields | ({} if visible is None else {"mask": visible}), normalizer=normalizer, **choices)


def row_by_row(s: np.ndarray, visible: np.ndarray, function: Any) -> np.ndarray:
    """function(the visible scores of a row), put back among zeros."""
    out = np.zeros(s.shape)
    for where in np.ndindex(s.shape[:-1]):
        seen = visible[where]
        out[where][seen] = function(s[where][seen])
    return out


def sparsemax_of(z: np.ndarray) -> np.ndarray:
    """Martins and Astudillo 2016, Algorithm 1."""
    ordered = np.sort(z)[::-1]
    support = max(n for n in range(1, len(z) + 1) if 1 + n * ordered[n - 1] > ordered[:n].sum())
    return np.maximum(z - (ordered[:support].sum() - 1) / support, 0)


def entmax15_of(z: np.ndarray) -> np.ndarray:
    """Peters et al. 2019, Algorithm 2."""
    ordered = np.sort(z / 2)[::-1]
    tau = None
    for n in range(1, len(z) + 1):
        mean, spread = ordered[:n].mean(), n * ordered[:n].var()
        if spread <= 1 and mean - math.sqrt((1 - spread) / n) <= ordered[n - 1]:
            tau = mean - math.sqrt((1 - spread) / n)
    return np.maximum(z / 2 - tau, 0) ** 2


def among(z: np.ndarray, k: int) -> np.ndarray:
    """The k largest; of equal ones those of lower index."""
    return np.isin(np.arange(len(z)), sorted(range(len(z)), key=lambda j: (-z[j], j))[:k])


def topk_of(k: int) -> Any:
    return lambda z: np.where(among(z, k), softmax(np.where(among(z, k), z, -INF)), 0)


NORMALIZERS: dict[str, Any] = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "sigmoid:bias=-1.5": lambda z: 1 / (1 + np.exp(-z + 1.5)),
    "sigmoid:bias=auto": lambda z: (
        1 / (1 + np.exp(-z + math.log(8)))
    ),  # Ramapuram et al. 2024: b = −ln n, of all n = 8 keys
    "sparsemax": sparsemax_of,
    "entmax:alpha=2": sparsemax_of,
    "entmax15": entmax15_of,
    "entmax": entmax15_of,
    "entmax:alpha=1": softmax,
    "relu": lambda z: np.maximum(z, 0),
    "topk:k=3": topk_of(3),
    "topk:k=1": topk_of(1),
    "topk:k=100": softmax,
    "hardmax": lambda z: among(z, 1).astype(float),
    "sum": lambda z: z / z.sum(),
    "none": lambda z: z,
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalizers_are_their_formula(name: str, masked: bool) -> None:
    s = draw_normal(63, B, H, N, 8) * 1.7
    s[0, 0, 0] = [2, -1, 2, 2, 0, -1, 0.5, 2]  # ties
    s[0, 0, 1] = 0.25
    if name == "sum":
        s = np.abs(s)
    visible = rng(64).random(s.shape) < 0.6
    visible[..., 5] = True
    visible = visible if masked else np.ones(s.shape, bool)
    result = normalized(s, name, visible if masked else None)

    w = step_values(result, "weights")
    assert_close(w, row_by_row(s, visible, NORMALIZERS[name]), atol=1e-13)
    assert_identical(w[~visible], np.zeros((~visible).sum()))
    assert_close(step_values(result, "head_context"), w)  # values are unit vectors
    if name.partition(":")[0] in ("sparsemax", "entmax15", "entmax", "topk", "hardmax"):
        assert_close(w.sum(-1), np.ones(s.shape[:-1]))


@pytest.mark.parametrize("alpha", [1.01, 1.2, 1.5, 1.9, 2.0, 2.5, 4.0])
def test_entmax_solves_its_equation(alpha: float) -> None:
    """Peters et al. 2019, eq. 9: with p_i > 0, ((α − 1) z_i − p_i^(α − 1)) is one τ; below it p is 0; Σ p = 1."""
    s = draw_normal(65, 50, 7)
    w = step_values(normalized(s, f"entmax:alpha={alpha}"), "weights")
    assert_close(w.sum(-1), np.ones(50))
    for z, p in zip((alpha - 1) * s, w, strict=True):
        tau = (z - p ** (alpha - 1))[p > 1e-8]
        assert np.ptp(tau) < 1e-11
        assert (z[p == 0] <= tau.mean() + 1e-11).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)])
@pytest.mark.parametrize("alpha", [1.5, 3.0, 4.0, 20.0, 64.0])
def test_rows_of_entmax_sum_to_one(alpha: float, dtype: str, tolerance: float) -> None:
    """As entmax_bisect's do, by ensure_sum_one: the last bit of τ is worth ε^(1/(α − 1)) of a weight beside it."""
    w = step_values(normalized(draw_normal(65, 200, 7), f"entmax:alpha={alpha}", dtype=dtype), "weights")
    assert w.dtype == dtype
    assert_close(w.astype(np.float64).sum(-1), np.ones(200), rtol=tolerance)
    assert (w >= 0).all()


ENTMAX = [
    ("sparsemax", "sparsemax", {}, 1e-12),
    ("entmax15", "entmax15", {}, 1e-12),
    *(
        (f"entmax:alpha={a}", "entmax_bisect", {"alpha": a, "n_iter": 100}, 1e-9)
        for a in (1.2, 1.5, 1.75, 2.0, 2.5, 3.0)
    ),
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("ours", "theirs", "options", "tolerance"), ENTMAX)
def test_values_and_gradients_are_those_of_the_entmax_package(
    ours: str, theirs: str, options: dict[str, Any], tolerance: float, masked: bool
) -> None:
    entmax = pytest.importorskip("entmax")
    g = torch.Generator().manual_seed(66)
    q, k = (torch.randn(n, D, generator=g, dtype=torch.float64) for n in (9, 11))
    visible = torch.rand(9, 11, generator=g) < 0.6
    visible[:, 4] = True
    outer = torch.randn(9, 11, generator=g, dtype=torch.float64)

    x, y = q.clone().requires_grad_(), k.clone().requires_grad_()
    fields = {"q": x, "k": y} | ({"mask": visible} if masked else {})
    w = compute(fields, normalizer=ours)["weights"].values
    gradients = torch.autograd.grad(w, (x, y), outer)

    a, b = q.clone().requires_grad_(), k.clone().requires_grad_()
    s = a @ b.mT / math.sqrt(D)
    s = s.masked_fill(~visible, -INF) if masked else s
    p = getattr(entmax, theirs)(s, dim=-1, **options)
    assert_close(w, p, rtol=tolerance, atol=tolerance)
    for mine, other in zip(gradients, torch.autograd.grad(p, (a, b), outer), strict=True):
        assert_close(mine, other, rtol=1e-6, atol=1e-7 if "bisect" in theirs else 1e-12)


def test_the_example_of_entmax() -> None:
    """entmax's own README: x = [−2, 0, 0.5]."""
    s = np.array([[-2.0, 0, 0.5]])

    assert_close(step_values(normalized(s, "sparsemax"), "weights"), [[0, 0.25, 0.75]])
    assert_close(step_values(normalized(s, "entmax15"), "weights"), [[0, 0.3260, 0.6740]], atol=5e-5)
    assert_close(step_values(normalized(s, "softmax"), "weights"), [[0.0486, 0.3592, 0.5922]], atol=5e-5)


@pytest.mark.parametrize("name", ["sparsemax", "entmax15", "entmax:alpha=3", "topk:k=2", "hardmax"])
@pytest.mark.parametrize("shift", [1e6, -1e6])
def test_shares_do_not_see_a_shift(name: str, shift: float) -> None:
    s = np.round(draw_normal(67, N, 6), 3)
    assert_close(
        step_values(normalized(s + shift, name), "weights"),
        step_values(normalized(s, name), "weights"),
        rtol=1e-7,
        atol=1e-8,
    )


def test_of_many_equal_scores_the_first_stay() -> None:
    s = np.tile([1.0, 2.0, 2.0, 0.0], (N, 300))  # long enough for a sort that is not stable to mix them up

    assert_identical(np.nonzero(step_values(normalized(s, "topk:k=5"), "weights")[2])[0], [1, 2, 5, 6, 9])
    assert_identical(np.nonzero(step_values(normalized(s, "hardmax"), "weights")[2])[0], [1])


def test_hardmax_is_onnx_hardmax() -> None:
    """onnx.reference Hardmax: of equal ones the first."""
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Hardmax", ["s"], ["w"], axis=-1)
    s = np.round(draw_normal(68, N, 9))  # ties
    expected = importlib.import_module("onnx.reference").ReferenceEvaluator(node).run(None, {"s": s})[0]

    assert_identical(step_values(normalized(s, "hardmax"), "weights"), expected)


def test_negative_scores_under_sum_are_warned_of() -> None:
    s = np.array([[3.0, -1, 2], [1, 2, 1]])
    result = normalized(s, "sum")

    assert_close(step_values(result, "weights"), [[0.75, -0.25, 0.5], [0.25, 0.5, 0.25]])
    assert [w.partition(":")[0] for w in result.warnings] == ["negative-weights", "no-entropy"]
    assert not normalized(np.abs(s), "sum").warnings


def test_rows_that_sum_to_zero_are_zero_and_warned_of() -> None:
    s = np.array([[3.0, -1, -2], [1, 2, 1], [0, 0, 0]])
    result = normalized(s, "sum")

    assert_close(step_values(result, "weights"), [[0, 0, 0], [0.25, 0.5, 0.25], [0, 0, 0]])
    assert any(w.startswith("zero-sum: queries 0 and 2") for w in result.warnings)
    relu = compute({"q": [[-1.0, -2.0], [1, 2]], "k": [[3.0, 4.0]]}, score="kernel:phi=relu", normalizer="sum")
    assert_identical(step_values(relu, "weights"), [[0.0], [1.0]])
    assert [w.partition(" sum")[0] for w in relu.warnings] == ["zero-sum: query 0: scores"]


@pytest.mark.parametrize("name", [n for n in NORMALIZERS if n != "sum"])
def test_a_query_that_sees_nothing_weighs_nothing_under_any_normalizer(name: str) -> None:
    s, visible = draw_normal(69, N, 6), np.ones((N, 6), bool)
    visible[1] = False
    result = normalized(s, name, visible)

    assert_identical(step_values(result, "weights")[1], np.zeros(6))
    assert_identical(step_values(result, "context")[1], np.zeros(6))
    assert np.isfinite(step_values(result, "weights")).all()
    assert any(w.startswith("empty-rows: query 1 sees no key") for w in result.warnings)


@pytest.mark.parametrize("name", ["softmax", "sparsemax", "entmax15", "entmax:alpha=1.5", "entmax:alpha=3"])
def test_scores_that_are_all_minus_infinity_weigh_nothing_though_no_mask_says_so(name: str) -> None:
    scores = torch.tensor([[-INF] * 3, [0.0, 1.0, 2.0]], dtype=torch.float64)[None, None]

    w = normalizer.parse(name)(scores, None)[0, 0]

    assert_identical(w[0], np.zeros(3))
    assert_close(w[1].sum(), 1.0)


@pytest.mark.parametrize(("alpha", "scale"), [(40, 1e-18), (40, 1.0), (8, 1e-12)])
def test_entmax_finds_tau_however_close_to_the_largest_score_it_lies(alpha: int, scale: float) -> None:
    """Peters et al. 2019, Alg. 1, in 60 digits."""
    x = draw_normal(3, 1, 1, 1, 3) * scale
    with localcontext() as context:
        context.prec = 60
        s = [(Decimal(score) - Decimal(x.max())) * (alpha - 1) for score in x.ravel().tolist()]
        low, high = Decimal(-1), Decimal(0)
        for _ in range(190):
            tau = (low + high) / 2
            weights = [max(score - tau, Decimal(0)) ** (1 / Decimal(alpha - 1)) for score in s]
            low, high = (tau, high) if sum(weights) >= 1 else (low, tau)

    made = normalizer.parse(f"entmax:alpha={alpha}")(torch.tensor(x), None)

    assert made.ravel().tolist() == pytest.approx([float(w) for w in weights], rel=1e-12)


@pytest.mark.parametrize("alpha", [2.5, 8, 40])
def test_gradients_of_a_large_alpha_are_those_of_the_paper(alpha: float) -> None:
    """Peters et al. 2019, Prop. 2: diag g − g gᵀ / Σ g, g = w^(2 − α) where w > 0."""
    x = torch.tensor(draw_normal(4, 1, 1, 1, 6) * 0.3 / alpha)
    visible = torch.arange(6) < 5
    entmax = normalizer.parse(f"entmax:alpha={alpha}")
    w = entmax(x, visible)[0, 0, 0].numpy()
    g = np.where(w > 0, np.where(w > 0, w, 1) ** (2 - alpha), 0)

    jacobian = torch.autograd.functional.jacobian(lambda s: entmax(s, visible)[0, 0, 0], x)[:, 0, 0, 0].numpy()

    assert 1 < (w > 0).sum() < 6
    np.testing.assert_allclose(jacobian, np.diag(g) - np.outer(g, g) / g.sum(), rtol=1e-6, atol=1e-9 * g.max())
