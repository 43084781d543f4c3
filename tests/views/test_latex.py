"""LaTeX: formulas are mathematics, wide lines are broken, and a document compiles as it is, whatever its tokens are."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attncli.parts.links import link
from attncli.types import BASE_STEPS
from attncli.variant import FAMILIES, Variant
from attncli.views.explain.reasons import STEP_REASONS
from attncli.views.latex import formula_in_latex
from attncli.views.latex_mathematics import split_formula, typeset_mathematics
from attncli.views.text import formula_in_markdown
from tests.helpers import SAMPLES, draw_normal
from tests.laws.problems import ONE_CHOICE, problem_for
from tests.views.pages import explain

CAT = SAMPLES / "cat_sat.json"
MEMBERS = [member for family in dict.fromkeys([*FAMILIES.values(), link]) for member in family]
# Of LaTeX and amsmath, and known to MathJax and KaTeX.
KNOWN_COMMANDS = {
    "frac",
    "sqrt",
    "sum",
    "cdot",
    "times",
    "exp",
    "max",
    "ln",
    "log",
    "tanh",
    "sin",
    "cos",
    "bmod",
    "infty",
    "dots",
    "le",
    "ge",
    "ne",
    "to",
    "sim",
    "text",
    "operatorname",
    "mathrm",
    "left",
    "right",
    "lfloor",
    "rfloor",
    "top",
    "theta",
    "alpha",
    "lambda",
    "tau",
    "phi",
    "omega",
    "begin",
    "end",
    "underline",
    "hspace",
    "langle",
    "rangle",
    "colon",
    "quad",
    "dagger",
    "tfrac",
    ";",
}


@pytest.mark.parametrize(
    ("formula", "latex"),
    [
        ("e^(s − max s) / Σ e^(s − max s)", r"\frac{e^{s - \max s}}{\sum e^{s - \max s}}"),
        ("s × 0.5 = s / √d_k", r"s \times 0.5 = \frac{s}{\sqrt{d_{k}}}"),
        ("q·k", r"q \cdot k"),
        ("q·k / (|q| |k|)", r"\frac{q \cdot k}{| q | | k |}"),
        ("q W kᵀ", r"q W k^{\top}"),
        ("x W_q + b_q", "x W_{q} + b_{q}"),
        ("−|q − k|²", "-| q - k |^{2}"),
        ("1 / (1 + e^−(s + bias))", r"\frac{1}{1 + e^{-(s + \text{bias})}}"),
        ("max((α − 1) s − τ, 0)^(1/(α − 1))", r"\max (( \alpha - 1 ) s - \tau ,\; 0)^{1 / ( \alpha - 1 )}"),
        (
            "⌊i/size⌋ = ⌊j/size⌋",
            r"\left\lfloor \frac{i}{\text{size}} \right\rfloor = \left\lfloor \frac{j}{\text{size}} \right\rfloor",
        ),
        ("dsⱼ = wⱼ (dwⱼ − Σ w·dw)", r"\mathrm{d}s_{j} = w_{j} (\mathrm{d}w_{j} - \sum w \cdot \mathrm{d}w)"),
        ("out_h = Σ_g x_g P[g, h]", r"\mathrm{out}_{h} = \sum_{g} x_{g} P [g ,\; h]"),
        ("0.8 − 0.6 e^(−0.3 depth)", r"0.8 - 0.6 e^{-0.3 \text{depth}}"),
        ("dropout_weights · v", r"\text{dropout\_weights} \cdot v"),
        ("z / √(mean z² + 1e-5) × gain", r"\frac{z}{\sqrt{\operatorname{mean} z^{2} + 10^{-5}}} \times \text{gain}"),
        ("(x cos pω − y sin pω)", r"(x \cos p \omega - y \sin p \omega)"),
    ],
)
def test_a_formula_is_mathematics(formula, latex):
    def without_spaces(text):
        return text.replace(" ", "")

    assert [without_spaces(piece.text) for piece in split_formula(formula)] == [without_spaces(latex)]


@pytest.mark.parametrize(
    ("formula", "latex"),
    [
        ("s where visible, else −∞", r"$s$ where visible, else $-\infty$"),
        ("heads side by side", "heads side by side"),
        ("weights · v, heads side by side", r"$\text{weights} \cdot v$, heads side by side"),
        ("s × 0.5 = s / √d_k, d_k = 4", r"$s \times 0.5 = \frac{s}{\sqrt{d_{k}}}$, $d_{k} = 4$"),
        ("1 for the largest score, else 0", "$1$ for the largest score, else $0$"),
        ("max(s, 0)", r"$\max (s ,\; 0)$"),
    ],
)
def test_the_words_of_a_formula_are_text(formula, latex):
    assert formula_in_latex(formula) == formula_in_markdown(formula) == latex


@pytest.mark.parametrize(
    ("side", "latex"),
    [
        ("1.5 / 2.75", r"\frac{1.5}{2.75}"),
        ("e^(-2.5)", "e^{-2.5}"),
        ("0.75^3.3333", "0.75^{3.3333}"),
        ("[0.5 -1.25 …]", r"\begin{pmatrix}0.5 & -1.25 & \dots\end{pmatrix}"),
        ("0.3 × [1 2] / 4", r"0.3 \times \begin{pmatrix}1 & 2\end{pmatrix} / 4"),
        ("⟨3⟩____", r"\langle 3\rangle \underline{\hspace{3em}}"),
        ("1.5e-07", r"1.5 \times 10^{-7}"),
        ("0.5 + (2 more: 0.25)", r"0.5 + (\text{2 more: } 0.25)"),
        ("−∞", r"-\infty"),
        ("[e]", r"\begin{pmatrix}e\end{pmatrix}"),
    ],
)
def test_the_side_of_an_equation_is_mathematics(side, latex):
    assert typeset_mathematics(side) == latex


@pytest.mark.slow
@given(st.text("es12+−·×/^√Σ()[]|⌊⌋,=ⱼ²⟨⟩_{}%∘ ab", max_size=25))
@settings(max_examples=150, deadline=None)
def test_no_text_hangs_or_is_lost(text):
    pieces = split_formula(text)

    assert all(piece.text or piece.is_mathematics for piece in pieces)
    for character in "12∘":
        assert sum(piece.text.count(character) for piece in pieces) >= text.count(character)
    typeset_mathematics(text)


def formulas_of(choices) -> list[str]:
    """Every formula of a page that goes forwards and back."""
    variant = Variant(**{"mask": "causal and window:left=1,right=0"} | choices)
    explanation, _, _ = explain(problem_for(str(choices.get("mask")), variant=variant), variant, 2, query=3, full=True)
    return [section.formula for section in explanation.sections if section.formula]


def check_formula(formula: str) -> None:
    latex = formula_in_latex(formula)
    assert set(latex) <= set(map(chr, range(32, 127))), formula
    mathematics = " ".join(piece.text for piece in split_formula(formula) if piece.is_mathematics)
    assert set(re.findall(r"\\([a-zA-Z]+|;)", mathematics)) <= KNOWN_COMMANDS, formula
    assert mathematics.count("{") == mathematics.count("}"), formula
    assert len(re.findall(r"\\left\b", mathematics)) == len(re.findall(r"\\right\b", mathematics)), formula
    words = "".join(piece.text for piece in split_formula(formula) if not piece.is_mathematics)
    assert not re.search(r"[=+−·×/^√Σ]", words), f"{formula}: mathematics is set as text: {words}"


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: f"{member.family} {member.name}")
def test_every_part_declares_a_formula_that_is_mathematics_and_a_reason(member):
    check_formula(member.formula)
    assert re.fullmatch(r"[A-ZαW].*[^.]\.", member.why)


def test_every_step_has_a_reason():
    learned_arrays = {name for name in BASE_STEPS if name[:2] in ("w_", "b_")}  # they stand in no section of their own
    assert set(STEP_REASONS) == set(BASE_STEPS) - learned_arrays


@pytest.mark.parametrize("choices", ONE_CHOICE[::3], ids=str)
def test_the_formula_of_every_section_is_mathematics(choices):
    formulas = formulas_of(choices)

    assert len(formulas) > 5
    for formula in formulas:
        check_formula(formula)


def test_a_symbol_that_latex_lacks_is_noticed():
    with pytest.raises(AssertionError, match="∘"):
        check_formula("s ∘ w")


# ── documents ────────────────────────────────────────────────────────────────────────────────────
def test_a_document_declares_what_it_holds(attn, tmp_path):
    (tmp_path / "t.csv").write_text("кот,1,0\n猫,0,1\nżółw,1,1\n")

    for command in ("explain", "compute"):
        text = attn(command, "t.csv", "-f", "latex", "--standalone", "-q").out

        assert text.index(r"\documentclass") < text.index(r"\begin{document}") < text.index(r"\end{document}")
        assert r"\DeclareUnicodeCharacter{043A}{[U+043A]}" in text
        assert r"\DeclareUnicodeCharacter{732B}" in text
        assert "{00F3}" not in text  # ó is in every font
        assert r"{\europeanfont кот}" in text
        assert r"{\eastasianfont 猫}" in text
        assert "żółw" in text


def test_standalone_is_refused_where_it_means_nothing(attn):
    for command in ("explain", "compute"):
        run = attn(command, CAT, "--standalone")

        assert run.status == 2
        assert "--format latex" in run.err


def test_a_wide_line_is_broken(attn, tmp_path):
    np.save(tmp_path / "x.npy", draw_normal(3, 5, 40))

    text = attn("explain", "x.npy", "--full", "-f", "latex", "-q").out

    rows = [
        row for block in re.findall(r"align\*\}\n(.*?)\\end\{align", text, re.DOTALL) for row in block.split("\\\\\n")
    ]
    printed = [re.sub(r"\\(begin|end)\{pmatrix\}|\\[a-z]+|[{}&;\\ ]", "", row) for row in rows]
    assert len(rows) > 40
    assert max(map(len, printed)) <= 100
    assert sum(row.lstrip().startswith("&") for row in rows) > 10


def test_step_numbers_are_those_of_markdown(attn):
    markdown = attn("explain", CAT, "cat", "-f", "markdown").out
    latex = attn("explain", CAT, "cat", "-f", "latex").out

    titles = re.findall(r"^## ([①-⑩]) (.+)", markdown, re.MULTILINE)
    numbers = re.findall(r"\\paragraph\{\\textcircled\{\\small (\d+)\} (.+?)\} ", latex)
    assert len(titles) == 6
    assert [("①②③④⑤⑥⑦⑧⑨⑩".index(n) + 1, title.replace("\\", "")) for n, title in titles] == [
        (int(n), title.replace("\\", "")) for n, title in numbers
    ]


ENGINES = [engine for engine in ("pdflatex", "xelatex") if shutil.which(engine)]


@pytest.mark.slow
@pytest.mark.skipif(not ENGINES, reason="no LaTeX is installed")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "words",
    [
        ["explain", "t.csv", "1", "--grad", "ones", "--rope", "--why", "--full"],
        ["explain", "t.csv", "1", "--blank", "weights,context", "--projection", "randn", "--seed", "3"],
        ["explain", "t.csv", "1", "--normalizer", "entmax15", "--score", "cosine", "--mask", "causal and chunk:size=2"],
        ["compute", "t.csv", "--causal", "--only", "all"],
    ],
    ids=" ".join,
)
def test_a_document_compiles_without_an_overfull_line(attn, tmp_path, engine, words):
    (tmp_path / "t.csv").write_text("Ünï,1,0,2,1\nкот & co_,0,1,1,0.5\n猫$#,1,1,0.3,-2\n")
    assert attn(*words, "-f", "latex", "--standalone", "-o", "t.tex").status == 0

    run = subprocess.run(
        [engine, "-interaction=nonstopmode", "-halt-on-error", "t.tex"], cwd=tmp_path, capture_output=True, check=False
    )

    log = (tmp_path / "t.log").read_text(errors="replace")
    assert run.returncode == 0, log[-2000:]
    overfull = re.findall(r"Overfull \\hbox \(\d\d.*", log)  # by 10 pt and more
    assert engine == "pdflatex" or not overfull  # which prints the numbers of characters
