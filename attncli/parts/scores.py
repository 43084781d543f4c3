"""How alike a query and a key are: (q: b h n d, k: b h m e, parameters) → b h n m. The scale is a link of the chain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from attncli.derivation import (
    Equation,
    EquationSide,
    KeyCell,
    Number,
    RowDerivation,
    Vector,
    derive_per_key,
    record_intermediate,
    scale_vector,
)
from attncli.parts.magnitudes import scale_rows, widen_half
from attncli.parts.traits import ScoreTraits
from attncli.registry import Family, Parameter
from attncli.types import Tensor

score = Family("score", "how a query and a key are compared", ScoreTraits)

LearnedArrays = Mapping[str, Tensor]
_ALL_LAWS = ("prefix", "decode", "permutation")
_HIDDEN_LAYER_PARAMETERS = (
    Parameter("score_w_q", ("d", "a"), "the queries' half of W; the identity where absent"),
    Parameter("score_w_k", ("d_k", "a"), "the keys' half of W; the identity where absent"),
    Parameter("score_v", ("a",), "weighs the hidden units; ones where absent"),
)
_IDENTITY_IF_ABSENT = ("score_w_q", "score_w_k")  # the identity where absent


def _write_dot_product(row: RowDerivation, cell: KeyCell) -> Sequence[EquationSide]:
    """q₁·k₁ + q₂·k₂ + …"""
    return (row.write_dot_product(row.q, cell.k),)


def _derive_dot_gradient(row: RowDerivation) -> Iterator[Equation]:
    """dq = Σ dsⱼ kⱼ"""
    for cell in row.unhidden_cells:
        yield Equation(cell.label, ([cell["ds"], " × ", cell.k], [scale_vector(cell["ds"], cell.k)]))


def inverse_sqrt(d: int) -> float:
    """1/√d: keeps the scores' variance at 1 when q and k have unit variance (Vaswani et al. 2017, §3.2.1)."""
    return float(1 / d**0.5)


@score(
    "dot",
    "q·k",
    why="A dot product is large where two vectors point the same way.",
    source="Luong et al. 2015, §3.1; Vaswani et al. 2017, §3.2.1",
    laws=_ALL_LAWS,
    auto_scale=inverse_sqrt,
    has_equal_widths=True,
    is_fused=True,
    derivation=derive_per_key(_write_dot_product),
    gradient_derivation=_derive_dot_gradient,
)
def dot(q: Tensor, k: Tensor, parameters: LearnedArrays) -> Tensor:
    """How much two vectors point the same way, times their lengths."""
    return q @ k.mT  # (b, h, n, m)


def _derive_general(row: RowDerivation) -> Iterator[Equation]:
    """q W first, then its products with each key."""
    yield Equation("q W", ([row["q W"]],))
    yield from row.equation_per_key(lambda cell: (row.write_dot_product(row["q W"], cell.k),))


@score(
    "general",
    "q W kᵀ",
    why="A learned matrix W decides which entries of the query and of the key are compared.",
    source="Luong et al. 2015, §3.1",
    laws=_ALL_LAWS,
    parameters=(Parameter("score_w_q", ("d", "d_k"), "the bilinear form W", required=True),),
    derivation=_derive_general,
)
def general(q: Tensor, k: Tensor, parameters: LearnedArrays) -> Tensor:
    """A bilinear form between query and key, which may differ in width."""
    q = record_intermediate("q W", q @ parameters["score_w_q"], "bhne")  # (b, h, n, e)
    return q @ k.mT  # (b, h, n, m)


def _derive_hidden_layer(row: RowDerivation) -> Iterator[Equation]:
    """Each hidden unit: tanh of the two halves' sum, weighed by v."""
    yield Equation("q W_q", ([row["q W_q"]],))
    for cell in row.unhidden_cells:
        yield Equation(f"{cell.label}: k W_k", ([cell["k W_k"]],))
        units = [[v, "·tanh(", a, " + ", b, ")"] for v, a, b in zip(row["v"], row["q W_q"], cell["k W_k"], strict=True)]
        yield Equation(
            cell.label,
            (
                row.write_sum(units, [v.value * x.value for v, x in zip(row["v"], cell["hidden"], strict=True)]),
                [cell.value_after],
            ),
        )


@score(
    "additive",
    "v · tanh(q W_q + k W_k)",
    why="A small network compares the query and the key, which need not be equally wide.",
    source="Bahdanau et al. 2015, App. A.1.2",
    laws=_ALL_LAWS,
    parameters=_HIDDEN_LAYER_PARAMETERS,
    identity_parameters=_IDENTITY_IF_ABSENT,
    has_vector_per_score=True,
    derivation=_derive_hidden_layer,
)
def additive(q: Tensor, k: Tensor, parameters: LearnedArrays) -> Tensor:
    """A layer of hidden units over query and key."""
    q = q @ parameters["score_w_q"] if "score_w_q" in parameters else q  # (b, h, n, a)
    k = k @ parameters["score_w_k"] if "score_w_k" in parameters else k  # (b, h, m, a)
    q, k = record_intermediate("q W_q", q, "bhna"), record_intermediate("k W_k", k, "bhma")
    hidden = record_intermediate("hidden", (q.unsqueeze(-2) + k.unsqueeze(-3)).tanh(), "bhnma")  # (b, h, n, m, a)
    v = record_intermediate("v", parameters.get("score_v", q.new_ones(q.shape[-1])), "a", is_input=True)  # (a,)
    return hidden @ v  # (b, h, n, m)


@score(
    "concat",
    "v · tanh(W [q; k])",
    why="A small network reads the query and the key side by side.",
    source="Luong et al. 2015, §3.1",
    laws=_ALL_LAWS,
    parameters=_HIDDEN_LAYER_PARAMETERS,
    identity_parameters=_IDENTITY_IF_ABSENT,
    has_vector_per_score=True,
    derivation=_derive_hidden_layer,
)
def concat(q: Tensor, k: Tensor, parameters: LearnedArrays) -> Tensor:
    """The same as additive, with the two matrices as the halves of one W."""
    return additive(q, k, parameters)  # (b, h, n, m)


def _length_equation(row: RowDerivation, label: str, x: Vector, length: Number) -> Equation:
    """A vector's length; 1 stands in for that of a zero vector."""
    if not any(a.value for a in x):
        return Equation(label, ([length],), "instead of the 0 of a zero vector")
    return Equation(label, (["√(", *row.write_dot_product(x, x), ")"], [length]))


def _derive_cosine(row: RowDerivation) -> Iterator[Equation]:
    """Both lengths, then the products over them."""
    yield _length_equation(row, "|q|", row.q, row["|q|"])
    for cell in row.unhidden_cells:
        yield _length_equation(row, f"{cell.label}: |k|", cell.k, cell["|k|"])
    for cell in row.unhidden_cells:
        yield Equation(
            cell.label,
            (
                ["(", *row.write_dot_product(row.q, cell.k), ") / (", row["|q|"], "·", cell["|k|"], ")"],
                [cell.value_after],
            ),
        )


@score(
    "cosine",
    "q·k / (|q| |k|), 0 for a zero vector",
    why="Dividing by both lengths leaves only the directions to be compared.",
    source="Graves et al. 2014, §3.3.1",
    laws=_ALL_LAWS,
    has_equal_widths=True,
    derivation=_derive_cosine,
)
def cosine(q: Tensor, k: Tensor, parameters: LearnedArrays) -> Tensor:
    """How much two vectors point the same way, whatever their lengths."""
    (a, q_scale), (b, k_scale) = scale_rows(q), scale_rows(k)  # (b, h, n, d), (b, h, n, 1); (b, h, m, d), (b, h, m, 1)
    q_length, k_length = (x.norm(dim=-1, keepdim=True).masked_fill((x == 0).all(-1, keepdim=True), 1) for x in (a, b))
    record_intermediate("|q|", q_length * q_scale, "bhn1")
    record_intermediate("|k|", k_length * k_scale, "bhm1")
    cosines = (a / q_length) @ (b / k_length).mT  # (b, h, n, m)
    return cosines.clamp(-1, 1).to(q.dtype)  # rounding may lead beyond


def _write_squared_distance(row: RowDerivation, cell: KeyCell) -> Sequence[EquationSide]:
    """−((q₁ − k₁)² + …)"""
    pairs = list(zip(row.q, cell.k, strict=True))
    return (
        [
            "−(",
            *row.write_sum(
                [["(", a, " − ", b, ")²"] for a, b in pairs],
                [(a.value - b.value) * (a.value - b.value) for a, b in pairs],
            ),
            ")",
        ],
    )


@score(
    "euclidean",
    "−|q − k|²",
    why="The nearer two vectors are to each other, the larger the score.",
    source="Kim et al. 2021, §3.2 (L2 attention)",
    laws=_ALL_LAWS,
    has_equal_widths=True,
    has_vector_per_score=True,
    derivation=derive_per_key(_write_squared_distance),
)
def euclidean(q: Tensor, k: Tensor, parameters: LearnedArrays) -> Tensor:
    """How near two vectors are: minus the squared distance."""
    difference = widen_half(q).unsqueeze(-2) - widen_half(k).unsqueeze(-3)  # (b, h, n, m, d)
    return -difference.square().sum(-1).to(q.dtype)  # (b, h, n, m)


def _derive_features(row: RowDerivation) -> Iterator[Equation]:
    """Features of both, then their products."""
    yield Equation("φ(q)", ([row["φ(q)"]],))
    for cell in row.unhidden_cells:
        yield Equation(f"{cell.label}: φ(k)", ([cell["φ(k)"]],))
    yield from row.equation_per_key(lambda cell: (row.write_dot_product(row["φ(q)"], cell["φ(k)"]),))


@score(
    "kernel",
    "φ(q)·φ(k), φ(x) = elu(x) + 1, max(x, 0) or e^x",
    why="Features that are never negative can be summed over the keys first, so that the cost grows only linearly with the text.",
    source="Katharopoulos et al. 2020, §3.2; with --normalizer sum it is linear attention",
    laws=_ALL_LAWS,
    has_equal_widths=True,
    derivation=_derive_features,
)
def kernel(q: Tensor, k: Tensor, parameters: LearnedArrays, *, phi: Literal["elu", "relu", "exp"] = "elu") -> Tensor:
    """A dot product of features that are never negative."""

    def features(x: Tensor) -> Tensor:
        if phi == "elu":
            return (x + 1).where(x > 0, x.clamp(max=0).exp())  # elu(x) + 1, to the last digit of a small e^x
        return x.clamp(min=0) if phi == "relu" else x.exp()

    q, k = record_intermediate("φ(q)", features(q), "bhnd"), record_intermediate("φ(k)", features(k), "bhmd")
    return q @ k.mT  # (b, h, n, m)
