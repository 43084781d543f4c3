"""What is done to the length of queries and keys: (x: … d, gain) → … d. The gain is the parameter q_norm or k_norm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from attncli.derivation import Equation, EquationSide, Number, RowDerivation, Vector, record_intermediate
from attncli.parts.magnitudes import divide_number, divide_rows, root_mean_square, scale_rows
from attncli.parts.traits import NormTraits
from attncli.registry import AnyPart, Family, Parameter, Range
from attncli.types import Tensor

norm = Family("qk-norm", "how queries and keys are normalised", NormTraits, plural="qk-norms")

GAIN_PARAMETERS = (
    Parameter(
        "q_norm",
        ("d",),
        "gain of the queries: of one head, of each, or (scope=full) of all columns",
        alternative_axes=(("H", "d"),),
    ),
    Parameter("k_norm", ("d",), "gain of the keys, the same way", alternative_axes=(("G", "d"),)),
)
_ALL_LAWS = ("prefix", "decode", "permutation")
Eps = Annotated[float, Range(above=0)]
Scope = Literal["head", "full"]
AppliedAt = Literal["before", "after"]


def _is_after_position(part: AnyPart) -> bool:
    return bool(part.option_value("at") == "after")


def _is_across_heads(part: AnyPart) -> bool:
    return bool(part.option_value("scope") == "full")


@norm("none", "x", why="Queries and keys keep their lengths.", laws=_ALL_LAWS)
def none(x: Tensor) -> Tensor:
    """Queries and keys as they are."""
    return x


# ── worked with numbers ──────────────────────────────────────────────────────────────────────────
def _row_axes(x: Tensor) -> str:
    """The axes of one number a row: of one head, or of all heads' columns together."""
    return "bhn1" if x.ndim == 4 else "bn1"


def _write_sum_of_squares(row: RowDerivation, x: Sequence[Number]) -> EquationSide:
    return row.write_sum([["(", a, ")²"] if a.value < 0 else [a, "²"] for a in x], [a.value * a.value for a in x])


def _row_equation(row: RowDerivation, label: str, whole: EquationSide, result: Number) -> Equation:
    """A number made of the whole row: written out if the row is this head's own."""
    if _is_across_heads(row.part):
        return Equation(label, ([result],), "over all heads' columns")
    return Equation(label, (whole, [result]))


def _derive_l2(row: RowDerivation) -> Iterator[Equation]:
    yield _row_equation(
        row,
        "length",
        ["max(√(", *_write_sum_of_squares(row, row.q), "), ", Number(row.part.option_value("eps")), ")"],
        row["size"],
    )
    yield Equation("x / length", ([row.q, " / ", row["size"]], [row.output_vector]))


def _derive_rms(row: RowDerivation) -> Iterator[Equation]:
    yield _row_equation(
        row, "mean x²", ["(", *_write_sum_of_squares(row, row.q), ") / ", Number(len(row.q))], row["mean"]
    )
    yield Equation("root", (["√(", row["mean"], " + ", Number(row.part.option_value("eps")), ")"], [row["size"]]))
    yield Equation("x / root", ([row.q, " / ", row["size"]], [row.output_vector]))


def _derive_layer(row: RowDerivation) -> Iterator[Equation]:
    yield _row_equation(
        row,
        "mean x",
        ["(", *row.write_sum([[a] for a in row.q], [a.value for a in row.q]), ") / ", Number(len(row.q))],
        row["mean"],
    )
    start = row.first_column if _is_across_heads(row.part) else 0
    centred = row["centred"][start : start + len(row.q)]
    yield Equation("x − mean", ([row.q, " − ", row["mean"]], [Vector(centred)]))
    yield _row_equation(
        row, "var x", ["(", *_write_sum_of_squares(row, centred), ") / ", Number(len(row.q))], row["var"]
    )
    yield Equation("root", (["√(", row["var"], " + ", Number(row.part.option_value("eps")), ")"], [row["size"]]))
    yield Equation("(x − mean) / root", ([Vector(centred), " / ", row["size"]], [row.output_vector]))


@norm(
    "l2",
    "x / max(|x|, eps)",
    why="Among vectors of length 1, scores depend on directions alone.",
    source="Henry et al. 2020, §3",
    parameters=GAIN_PARAMETERS,
    key_parameters=("k_norm",),
    is_after_position=_is_after_position,
    is_across_heads=_is_across_heads,
    laws=_ALL_LAWS,
    derivation=_derive_l2,
)
def l2(x: Tensor, *, eps: Eps = 1e-12, scope: Scope = "head", at: AppliedAt = "before") -> Tensor:
    """Scaled to length 1; scope=full: over the columns of all heads together; at=after: after the position acts."""
    scaled, scale = scale_rows(x, smallest=eps)
    length = scaled.norm(dim=-1, keepdim=True).maximum(divide_number(eps, scale))  # of x / scale
    record_intermediate("size", length * scale, _row_axes(x))
    return divide_rows(scaled, length).to(x.dtype)


@norm(
    "rms",
    "x / √(mean x² + eps)",
    why="Queries and keys of one size keep the scores from growing during training.",
    source="Zhang and Sennrich 2019, §3; Dehghani et al. 2023, §2",
    parameters=GAIN_PARAMETERS,
    key_parameters=("k_norm",),
    is_after_position=_is_after_position,
    is_across_heads=_is_across_heads,
    laws=_ALL_LAWS,
    derivation=_derive_rms,
)
def rms(x: Tensor, *, eps: Eps = 1e-6, scope: Scope = "head", at: AppliedAt = "before") -> Tensor:
    """Scaled to root mean square 1, as in Qwen 3, Gemma 3 and (scope=full) OLMo 2."""
    scaled, scale = scale_rows(x, smallest=eps**0.5)
    root, mean = root_mean_square(scaled, scale, eps)
    record_intermediate("mean", mean, _row_axes(x))
    record_intermediate("size", root * scale, _row_axes(x))
    return divide_rows(scaled, root).to(x.dtype)


@norm(
    "layer",
    "(x − mean x) / √(var x + eps)",
    why="With mean 0 and variance 1, scores do not grow during training.",
    source="Ba et al. 2016, §3; Dehghani et al. 2023, §2",
    parameters=GAIN_PARAMETERS,
    key_parameters=("k_norm",),
    is_after_position=_is_after_position,
    is_across_heads=_is_across_heads,
    laws=_ALL_LAWS,
    derivation=_derive_layer,
)
def layer(x: Tensor, *, eps: Eps = 1e-5, scope: Scope = "head", at: AppliedAt = "before") -> Tensor:
    """Shifted to mean 0 and scaled to variance 1, as in ViT-22B and Cohere."""
    scaled, scale = scale_rows(x, smallest=eps**0.5)
    mean = scaled.mean(-1, keepdim=True)
    centred = scaled - mean
    root, var = root_mean_square(centred, scale, eps)
    record_intermediate("mean", mean * scale, _row_axes(x))
    record_intermediate("centred", centred * scale, _row_axes(x).replace("1", "d"))
    record_intermediate("var", var, _row_axes(x))
    record_intermediate("size", root * scale, _row_axes(x))
    return divide_rows(centred, root).to(x.dtype)
