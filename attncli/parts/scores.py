"""How alike a query and a key are: (q: b h n d, k: b h m e, parameters) → b h n m. The scale is a link of the chain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from attncli.derivation import Cell, Expr, Line, Num, Vec, Work, finer, per_key, scaled
from attncli.parts.traits import ScoreTraits
from attncli.registry import Family, Parameter
from attncli.types import Tensor

score = Family("score", "how alike a query and a key are", ScoreTraits)

Learned = Mapping[str, Tensor]
_LAWS = ("prefix", "decode", "permutation")
_HIDDEN = (
    Parameter("score_w_q", ("d", "a"), "the queries' half of W; the identity where absent"),
    Parameter("score_w_k", ("d_k", "a"), "the keys' half of W; the identity where absent"),
    Parameter("score_v", ("a",), "weighs the hidden units; ones where absent"),
)
_HALVES = ("score_w_q", "score_w_k")  # the identity where absent


def _products(w: Work, c: Cell) -> Sequence[Expr]:
    """q₁·k₁ + q₂·k₂ + …"""
    return (w.products(w.q, c.k),)


def _back_dot(w: Work) -> Iterator[Line]:
    """dq = Σ dsⱼ kⱼ"""
    for c in w.seen:
        yield Line(c.label, ([c("ds"), " × ", c.k], [scaled(c("ds"), c.k)]))


def one_over_root(d: int) -> float:
    """1/√d: keeps the scores' variance at 1 when q and k have unit variance (Vaswani et al. 2017, §3.2.1)."""
    return float(1 / d**0.5)


@score(
    "dot",
    "q·k",
    source="Luong et al. 2015, §3.1; Vaswani et al. 2017, §3.2.1",
    laws=_LAWS,
    auto_scale=one_over_root,
    has_equal_widths=True,
    is_fused=True,
    derivation=per_key(_products),
    gradient_derivation=_back_dot,
)
def dot(q: Tensor, k: Tensor, parameters: Learned) -> Tensor:
    """How far two vectors point the same way, times their lengths."""
    return q @ k.mT  # (b, h, n, m)


def _work_general(w: Work) -> Iterator[Line]:
    """q W first, then its products with each key."""
    yield Line("q W", ([w("q W")],))
    yield from w.each(lambda c: (w.products(w("q W"), c.k),))


@score(
    "general",
    "q W kᵀ",
    source="Luong et al. 2015, §3.1",
    laws=_LAWS,
    parameters=(Parameter("score_w_q", ("d", "d_k"), "the bilinear form W", required=True),),
    derivation=_work_general,
)
def general(q: Tensor, k: Tensor, parameters: Learned) -> Tensor:
    """A bilinear form between query and key, which may differ in width."""
    q = finer("q W", q @ parameters["score_w_q"], "bhne")  # (b, h, n, e)
    return q @ k.mT  # (b, h, n, m)


def _work_hidden(w: Work) -> Iterator[Line]:
    """Each hidden unit: tanh of the two halves' sum, weighed by v."""
    yield Line("q W_q", ([w("q W_q")],))
    for c in w.seen:
        yield Line(f"{c.label}: k W_k", ([c("k W_k")],))
        units = [[v, "·tanh(", a, " + ", b, ")"] for v, a, b in zip(w("v"), w("q W_q"), c("k W_k"), strict=True)]
        yield Line(
            c.label, (w.sum(units, [v.value * x.value for v, x in zip(w("v"), c("hidden"), strict=True)]), [c.after])
        )


@score(
    "additive",
    "v · tanh(q W_q + k W_k)",
    source="Bahdanau et al. 2015, App. A.1.2",
    laws=_LAWS,
    parameters=_HIDDEN,
    identity_parameters=_HALVES,
    has_vector_per_score=True,
    derivation=_work_hidden,
)
def additive(q: Tensor, k: Tensor, parameters: Learned) -> Tensor:
    """A layer of hidden units over query and key."""
    q = q @ parameters["score_w_q"] if "score_w_q" in parameters else q  # (b, h, n, a)
    k = k @ parameters["score_w_k"] if "score_w_k" in parameters else k  # (b, h, m, a)
    q, k = finer("q W_q", q, "bhna"), finer("k W_k", k, "bhma")
    hidden = finer("hidden", (q.unsqueeze(-2) + k.unsqueeze(-3)).tanh(), "bhnma")  # (b, h, n, m, a)
    v = finer("v", parameters.get("score_v", q.new_ones(q.shape[-1])), "a", given=True)  # (a,)
    return hidden @ v  # (b, h, n, m)


@score(
    "concat",
    "v · tanh(W [q; k])",
    source="Luong et al. 2015, §3.1",
    laws=_LAWS,
    parameters=_HIDDEN,
    identity_parameters=_HALVES,
    has_vector_per_score=True,
    derivation=_work_hidden,
)
def concat(q: Tensor, k: Tensor, parameters: Learned) -> Tensor:
    """The same as additive: the two matrices are the halves of W."""
    return additive(q, k, parameters)  # (b, h, n, m)


def _length(w: Work, label: str, x: Vec, length: Num) -> Line:
    """A vector's length; 1 stands in for that of a zero vector."""
    if not any(a.value for a in x):
        return Line(label, ([length],), "instead of the 0 of a zero vector")
    return Line(label, (["√(", *w.products(x, x), ")"], [length]))


def _work_cosine(w: Work) -> Iterator[Line]:
    """Both lengths, then the products over them."""
    yield _length(w, "|q|", w.q, w("|q|"))
    for c in w.seen:
        yield _length(w, f"{c.label}: |k|", c.k, c("|k|"))
    for c in w.seen:
        yield Line(c.label, (["(", *w.products(w.q, c.k), ") / (", w("|q|"), "·", c("|k|"), ")"], [c.after]))


@score(
    "cosine",
    "q·k / (|q| |k|), 0 for a zero vector",
    source="Graves et al. 2014, §3.3.1",
    laws=_LAWS,
    has_equal_widths=True,
    derivation=_work_cosine,
)
def cosine(q: Tensor, k: Tensor, parameters: Learned) -> Tensor:
    """How far two vectors point the same way, whatever their lengths."""
    a, b = (x.norm(dim=-1, keepdim=True).masked_fill((x == 0).all(-1, keepdim=True), 1) for x in (q, k))
    q, k = q / finer("|q|", a, "bhn1"), k / finer("|k|", b, "bhm1")  # (b, h, n, d), (b, h, m, d)
    return q @ k.mT  # (b, h, n, m)


def _squares(w: Work, c: Cell) -> Sequence[Expr]:
    """−((q₁ − k₁)² + …)"""
    pairs = list(zip(w.q, c.k, strict=True))
    return (
        [
            "−(",
            *w.sum(
                [["(", a, " − ", b, ")²"] for a, b in pairs],
                [(a.value - b.value) * (a.value - b.value) for a, b in pairs],
            ),
            ")",
        ],
    )


@score(
    "euclidean",
    "−|q − k|²",
    source="Kim et al. 2021, §3.2 (L2 attention)",
    laws=_LAWS,
    has_equal_widths=True,
    has_vector_per_score=True,
    derivation=per_key(_squares),
)
def euclidean(q: Tensor, k: Tensor, parameters: Learned) -> Tensor:
    """How near two vectors are: minus the squared distance."""
    return -(q.unsqueeze(-2) - k.unsqueeze(-3)).square().sum(-1)  # (b, h, n, m)


def _work_features(w: Work) -> Iterator[Line]:
    """Features of both, then their products."""
    yield Line("φ(q)", ([w("φ(q)")],))
    for c in w.seen:
        yield Line(f"{c.label}: φ(k)", ([c("φ(k)")],))
    yield from w.each(lambda c: (w.products(w("φ(q)"), c("φ(k)")),))


@score(
    "kernel",
    "φ(q)·φ(k), φ(x) = elu(x) + 1, max(x, 0) or e^x",
    source="Katharopoulos et al. 2020, §3.2; with --normalizer sum it is linear attention",
    laws=_LAWS,
    has_equal_widths=True,
    derivation=_work_features,
)
def kernel(q: Tensor, k: Tensor, parameters: Learned, *, phi: Literal["elu", "relu", "exp"] = "elu") -> Tensor:
    """A dot product of features that are never negative."""

    def features(x: Tensor) -> Tensor:
        if phi == "elu":
            return (x + 1).where(x > 0, x.clamp(max=0).exp())  # elu(x) + 1, to the last digit of a small e^x
        return x.clamp(min=0) if phi == "relu" else x.exp()

    q, k = finer("φ(q)", features(q), "bhnd"), finer("φ(k)", features(k), "bhmd")
    return q @ k.mT  # (b, h, n, m)
