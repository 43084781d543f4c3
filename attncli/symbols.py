"""The symbols that attn prints beyond ASCII, and how each is spelled where it cannot stand: `SYMBOLS`."""

from __future__ import annotations

from typing import NamedTuple


class Symbol(NamedTuple):
    """How one symbol is spelled; empty: it has no spelling of its own there."""

    ascii: str = ""  # on a console that has no more
    latex: str = ""  # within text, between dollar signs


SYMBOLS: dict[str, Symbol] = {
    "−": Symbol("-", "-"),
    "·": Symbol(".", r"\cdot"),
    "×": Symbol("x", r"\times"),
    "√": Symbol("sqrt ", r"\surd"),
    "²": Symbol("^2", "^2"),
    "½": Symbol("", r"\tfrac12"),
    "∞": Symbol("inf", r"\infty"),
    "Σ": Symbol("sum", r"\Sigma"),
    "Δ": Symbol("d", r"\Delta"),
    "≤": Symbol("<=", r"\le"),
    "≥": Symbol(">=", r"\ge"),
    "≠": Symbol("!=", r"\ne"),
    "⌊": Symbol("floor(", r"\lfloor"),
    "⌋": Symbol(")", r"\rfloor"),
    "⟨": Symbol("<", r"\langle"),
    "⟩": Symbol(">", r"\rangle"),
    "→": Symbol("->", r"\to"),
    "…": Symbol("...", r"\dots"),
    "†": Symbol("*", r"^\dagger"),
    "ᵀ": Symbol("^T", "^{T}"),
    "₂": Symbol("2", "_2"),
    "ᵢ": Symbol("_i", "_i"),
    "ⱼ": Symbol("_j", "_j"),
    "α": Symbol("alpha", r"\alpha"),
    "λ": Symbol("lambda", r"\lambda"),
    "τ": Symbol("tau", r"\tau"),
    "φ": Symbol("phi", r"\phi"),
    "ω": Symbol("omega", r"\omega"),
    "╲": Symbol("\\", r"\backslash"),
    "─": Symbol("-"),
    "–": Symbol("-"),
    "“": Symbol('"'),
    "”": Symbol('"'),
    "█": Symbol("#"),
    "▓": Symbol("="),
    "▒": Symbol("-"),
    "░": Symbol("."),
    "↵": Symbol("\\n", r"\hookleftarrow"),
    "⇥": Symbol("\\t", r"\rightarrow\!|"),
    "␛": Symbol("\\e", r"\backslash e"),
    "✓": Symbol("ok"),
    "✗": Symbol("x"),
    **{circled: Symbol(f"({number})") for number, circled in enumerate("①②③④⑤⑥⑦⑧⑨⑩", start=1)},
}
LATEX_IN_TEXT = {symbol: f"${spelling.latex}$" for symbol, spelling in SYMBOLS.items() if spelling.latex}
