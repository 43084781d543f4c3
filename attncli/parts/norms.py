"""What is done to the length of queries and keys: (x: … d, gain) → … d. The gain is the parameter q_norm or k_norm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from attncli.derivation import Expr, Line, Num, Vec, Work, finer
from attncli.parts.traits import NormTraits
from attncli.registry import AnyPart, Family, Parameter, Range
from attncli.types import Tensor

norm = Family("qk-norm", "queries and keys brought to one length", NormTraits, plural="qk-norms")

GAINS = (
    Parameter(
        "q_norm",
        ("d",),
        "gain of the queries: of one head, of each, or (scope=full) of all columns",
        also=(("H", "d"),),
    ),
    Parameter("k_norm", ("d",), "gain of the keys, the same way", also=(("G", "d"),)),
)
_LAWS = ("prefix", "decode", "permutation")
Eps = Annotated[float, Range(above=0)]
Scope = Literal["head", "full"]
At = Literal["before", "after"]


def _is_after_position(part: AnyPart) -> bool:
    return bool(part.get("at") == "after")


def _is_across_heads(part: AnyPart) -> bool:
    return bool(part.get("scope") == "full")


@norm("none", "x", laws=_LAWS)
def none(x: Tensor) -> Tensor:
    """Queries and keys as they are."""
    return x


# ── worked with numbers ──────────────────────────────────────────────────────────────────────────
def _rows(x: Tensor) -> str:
    """The axes of one number a row: of one head, or of all heads' columns together."""
    return "bhn1" if x.ndim == 4 else "bn1"


def _squares(w: Work, x: Sequence[Num]) -> Expr:
    return w.sum([["(", a, ")²"] if a.value < 0 else [a, "²"] for a in x], [a.value * a.value for a in x])


def _line(w: Work, label: str, whole: Expr, result: Num) -> Line:
    """A number made of the whole row: written out if the row is this head's own."""
    if _is_across_heads(w.part):
        return Line(label, ([result],), "over all heads' columns")
    return Line(label, (whole, [result]))


def _work_l2(w: Work) -> Iterator[Line]:
    yield _line(w, "length", ["max(√(", *_squares(w, w.q), "), ", Num(w.part.get("eps")), ")"], w("size"))
    yield Line("x / length", ([w.q, " / ", w("size")], [w.out]))


def _work_rms(w: Work) -> Iterator[Line]:
    yield _line(w, "mean x²", ["(", *_squares(w, w.q), ") / ", Num(len(w.q))], w("mean"))
    yield Line("root", (["√(", w("mean"), " + ", Num(w.part.get("eps")), ")"], [w("size")]))
    yield Line("x / root", ([w.q, " / ", w("size")], [w.out]))


def _work_layer(w: Work) -> Iterator[Line]:
    yield _line(
        w, "mean x", ["(", *w.sum([[a] for a in w.q], [a.value for a in w.q]), ") / ", Num(len(w.q))], w("mean")
    )
    start = w.first if _is_across_heads(w.part) else 0
    centred = w("centred")[start : start + len(w.q)]
    yield Line("x − mean", ([w.q, " − ", w("mean")], [Vec(centred)]))
    yield _line(w, "var x", ["(", *_squares(w, centred), ") / ", Num(len(w.q))], w("var"))
    yield Line("root", (["√(", w("var"), " + ", Num(w.part.get("eps")), ")"], [w("size")]))
    yield Line("(x − mean) / root", ([Vec(centred), " / ", w("size")], [w.out]))


@norm(
    "l2",
    "x / max(|x|, eps)",
    source="Henry et al. 2020, §3",
    parameters=GAINS,
    key_parameters=("k_norm",),
    is_after_position=_is_after_position,
    is_across_heads=_is_across_heads,
    laws=_LAWS,
    derivation=_work_l2,
)
def l2(x: Tensor, *, eps: Eps = 1e-12, scope: Scope = "head", at: At = "before") -> Tensor:
    """To length 1; scope=full over all heads' columns together, at=after the position acts."""
    return x / finer("size", x.norm(dim=-1, keepdim=True).clamp(min=eps), _rows(x))


@norm(
    "rms",
    "x / √(mean x² + eps)",
    source="Zhang and Sennrich 2019, §3; Dehghani et al. 2023, §2",
    parameters=GAINS,
    key_parameters=("k_norm",),
    is_after_position=_is_after_position,
    is_across_heads=_is_across_heads,
    laws=_LAWS,
    derivation=_work_rms,
)
def rms(x: Tensor, *, eps: Eps = 1e-6, scope: Scope = "head", at: At = "before") -> Tensor:
    """To root mean square 1, as in Qwen 3, Gemma 3 and (scope=full) OLMo 2."""
    mean = finer("mean", x.square().mean(-1, keepdim=True), _rows(x))
    return x / finer("size", (mean + eps).sqrt(), _rows(x))


@norm(
    "layer",
    "(x − mean x) / √(var x + eps)",
    source="Ba et al. 2016, §3; Dehghani et al. 2023, §2",
    parameters=GAINS,
    key_parameters=("k_norm",),
    is_after_position=_is_after_position,
    is_across_heads=_is_across_heads,
    laws=_LAWS,
    derivation=_work_layer,
)
def layer(x: Tensor, *, eps: Eps = 1e-5, scope: Scope = "head", at: At = "before") -> Tensor:
    """To mean 0 and variance 1, as in ViT-22B and Cohere."""
    x = x - finer("mean", x.mean(-1, keepdim=True), _rows(x))
    finer("centred", x, _rows(x).replace("1", "d"))
    var = finer("var", x.square().mean(-1, keepdim=True), _rows(x))
    return x / finer("size", (var + eps).sqrt(), _rows(x))
