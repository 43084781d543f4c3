"""How heads are mixed: (weights: b h n m, parameters) → b h' n m; a member may also act on scores and on each head's context."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from attncli.derivation import Equation, Number, RowDerivation, derive_per_key, record_intermediate
from attncli.parts.magnitudes import root_mean_square, scale_rows, widen_half
from attncli.parts.traits import MixingTraits
from attncli.registry import AnyPart, Family, Parameter, Range
from attncli.types import Tensor

mixing = Family("head-mixing", "mixing between heads", MixingTraits, plural="head-mixings")

LearnedArrays = Mapping[str, Tensor]
_ALL_LAWS = ("prefix", "decode", "permutation")
_SUB_NORM_EPS = 1e-5


@mixing("none", "w", why="Every head works by itself.", laws=_ALL_LAWS)
def none(w: Tensor, parameters: LearnedArrays) -> Tensor:
    """There is no mixing between heads."""
    return w


# ── talking heads ────────────────────────────────────────────────────────────────────────────────
def mix_heads(x: Tensor, table: Tensor) -> Tensor:
    """out_h = Σ_g x_g table[g, h]: (b, g, n, m), (g, h) → (b, h, n, m)"""
    x = record_intermediate("heads", x.movedim(1, -1), "bnmg")  # (b, n, m, g)
    return (x @ record_intermediate("table", table.to(x.dtype), "gh", is_input=True)).movedim(-1, 1)


_derive_mixed_heads = derive_per_key(lambda row, cell: (row.write_dot_product(cell["heads"], row["table"]),))


def mix_scores(s: Tensor, parameters: LearnedArrays) -> Tensor:
    """The scores mixed across heads; what is hidden from a head by now adds nothing to the others."""
    s = s.masked_fill(s == float("-inf"), 0)  # −∞ times a 0 of the table would be no number
    return mix_heads(s, parameters["talking_pre"]) if "talking_pre" in parameters else s


@mixing(
    "talking-heads",
    "out_h = Σ_g x_g P[g, h], of scores and of weights",
    why="A learned table lets heads use what the others found.",
    source="Shazeer et al. 2020, §3",
    parameters=(
        Parameter("talking_pre", ("H", "H"), "mixes the scores, at the link `mix`; absent: they are not mixed"),
        Parameter("talking_post", ("H", "H"), "mixes the weights, after dropout; absent: they are not mixed"),
    ),
    any_of_parameters=("talking_pre", "talking_post"),
    laws=_ALL_LAWS,
    mix_scores=mix_scores,
    scores_parameter="talking_pre",
    derivation=_derive_mixed_heads,
    scores_derivation=_derive_mixed_heads,
)
def talking_heads(w: Tensor, parameters: LearnedArrays) -> Tensor:
    """Scores are mixed across heads before the normaliser, and weights after it."""
    return mix_heads(w, parameters["talking_post"]) if "talking_post" in parameters else w


# ── differential ─────────────────────────────────────────────────────────────────────────────────
def lambda_init(depth: int) -> float:
    """0.8 − 0.6 e^(−0.3 depth), depth counting layers from 0 (Ye et al. 2024, §2.1)."""
    return 0.8 - 0.6 * math.exp(-0.3 * depth)


def sub_norm(z: Tensor, parameters: LearnedArrays, part: AnyPart) -> Tensor:
    """Each pair's context to root mean square 1, times its gain and 1 − λ_init. (b, h/2, n, 2d) → the same"""
    scaled, scale = scale_rows(z, smallest=_SUB_NORM_EPS**0.5)  # (b, h/2, n, 2d), (b, h/2, n, 1)
    root, mean = root_mean_square(scaled, scale, _SUB_NORM_EPS)  # (b, h/2, n, 1) each
    record_intermediate("mean", mean, "bhn1")
    record_intermediate("root", root * scale, "bhn1")
    gain = record_intermediate("gain", parameters.get("sub_norm", z.new_ones(z.shape[-1])), "c", is_input=True)  # (2d,)
    return (scaled / root * gain * (1 - lambda_init(part.option_value("depth")))).to(z.dtype)


def _derive_sub_norm(row: RowDerivation) -> Iterator[Equation]:
    squares = row.write_sum(
        [["(", a, ")²"] if a.value < 0 else [a, "²"] for a in row.q], [a.value * a.value for a in row.q]
    )
    yield Equation("mean z²", (["(", *squares, ") / ", Number(len(row.q))], [row["mean"]]))
    yield Equation("root", (["√(", row["mean"], " + ", Number(_SUB_NORM_EPS), ")"], [row["root"]]))
    share = Number(1 - lambda_init(row.part.option_value("depth")))
    yield Equation(
        "z / root × gain × (1 − λ_init)",
        ([row.q, " / ", row["root"], " × ", row["gain"], " × ", share], [row.output_vector]),
    )


def split_pairs(x: Tensor, pairing: str) -> tuple[Tensor, Tensor]:
    """The first and the second head of each pair: (b, h, …) → (b, h/2, …) each"""
    return (x[:, ::2], x[:, 1::2]) if pairing == "adjacent" else (x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :])


def visible_to_pair(visible: Tensor, part: AnyPart) -> Tensor:
    """What a pair may see: what one of its heads may."""
    if visible.shape[1] == 1:
        return visible
    first, second = split_pairs(visible, part.option_value("pairing"))
    return first | second


def _pair_index(part: AnyPart, head: int, heads: int) -> int:
    """Which pair a head is part of."""
    return head // 2 if part.option_value("pairing") == "adjacent" else head % (heads // 2)


def _derive_difference(row: RowDerivation) -> Iterator[Equation]:
    """λ, then one head's weight less λ times the other's."""
    first = Number(lambda_init(row.part.option_value("depth")))
    if "q1·k1" in row:
        yield Equation("λ", (["e^(", row["q1·k1"], ") − e^(", row["q2·k2"], ") + ", first], [row["λ"]]))
    else:
        yield Equation("λ", ([first],))
    lam = row.get("λ", first)
    yield from row.equation_per_key(lambda cell: ([cell["first"], " − ", lam, "·", cell["second"]],))


@mixing(
    "differential",
    "w_a − λ w_b, λ = e^(λ_q1·λ_k1) − e^(λ_q2·λ_k2) + 0.8 − 0.6 e^(−0.3 depth)",
    why="What both heads of a pair see alike is taken to be noise, and cancels.",
    source="Ye et al. 2024 (Differential Transformer), §2.1",
    parameters=(
        *(
            Parameter(f"lambda_{x}{i}", ("d",), "a vector of λ; without these four, λ = λ_init")
            for x in "qk"
            for i in (1, 2)
        ),
        Parameter("sub_norm", ("2d",), "gain of the norm of each pair's context"),
    ),
    all_or_none_parameters=("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"),
    laws=_ALL_LAWS,
    is_pairing=True,  # a pair of heads shares a value twice as wide, and becomes one
    transform_context=sub_norm,
    context_formula="z / √(mean z² + 1e-5) × gain × (1 − λ_init)",
    mix_visible=visible_to_pair,
    mixed_head=_pair_index,
    derivation=_derive_difference,
    context_derivation=_derive_sub_norm,
)
def differential(
    w: Tensor,
    parameters: LearnedArrays,
    *,
    pairing: Literal["adjacent", "halves"] = "adjacent",
    depth: Annotated[int, Range(low=0)] = 0,
) -> Tensor:
    """The weights of one head of a pair are subtracted from the other's, times a learned λ, so that what both see cancels."""
    first, second = split_pairs(w, pairing)  # (b, h/2, n, m) each
    first, second = record_intermediate("first", first), record_intermediate("second", second)
    if "lambda_q1" not in parameters:
        return first - lambda_init(depth) * second  # (b, h/2, n, m)
    q1, k1, q2, k2 = (widen_half(parameters[f"lambda_{name}"]) for name in ("q1", "k1", "q2", "k2"))  # (d,) each
    one = record_intermediate("q1·k1", q1 @ k1, "", is_input=True)
    two = record_intermediate("q2·k2", q2 @ k2, "", is_input=True)
    lam = record_intermediate("λ", one.exp() - two.exp() + lambda_init(depth), "", is_input=True)
    return first - lam * second  # (b, h/2, n, m)
