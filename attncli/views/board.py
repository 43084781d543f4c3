"""A page of worked lines as text: for a terminal, as plain text, Markdown, LaTeX or JSON; whole, or with gaps to fill in."""

from __future__ import annotations

import ast
import dataclasses
import io
import math
import operator
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.cells import cell_len
from rich.text import Text

from attncli.derivation import WORKING, Expr, Line, Num, Vec
from attncli.errors import in_ascii
from attncli.output_formats import Look
from attncli.views.console import console_for
from attncli.views.explain import Board, Section
from attncli.views.text import latex, markdown

GAP = "____"
ROUNDED = "†"
_SAYS = f"{ROUNDED} the printed terms are rounded; the result comes from all digits, so its last digit can differ."
_MARKED = "which cell each one is; fill them in, and attn check INPUT --figures SHEET marks them"
_GIVEN = 4  # digits that what came in keeps, however few are asked for
_LONGEST = 10  # entries of a vector before its middle is left out


@dataclass(frozen=True)
class Sheet:
    """What is left blank, and whether the key is printed."""

    blank: frozenset[str] = frozenset()
    answers: bool = False

    def __contains__(self, step: str) -> bool:
        return step in self.blank


@dataclass
class Pen:
    """Writes numbers: so many digits after the point, exact ones without zeros at their end; and counts the gaps."""

    precision: int
    sheet: Sheet
    full: bool = False
    exact: float = 1e-12  # how near to its rounded text a number counts as that text, relatively
    gaps: dict[tuple[str, tuple[int, ...]], int] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    hides: bool = False  # results on the way would give a gap away

    def number(self, x: float, least: int = 0, *, fixed: bool = False) -> str:
        """A number with as many digits as it needs, at least so many after the point, and at most the precision."""
        if not math.isfinite(x):
            return "NaN" if math.isnan(x) else "∞" if x > 0 else "−∞"
        size = abs(x)
        if size >= 1e9 or (0 < size < 0.5 * 10.0**-self.precision and not fixed):
            short = (f"{x:.{digits}e}" for digits in range(self.precision + 1))
            return next((t for t in short if abs(float(t) - x) <= self.exact * size), f"{x:.{self.precision}e}")
        for digits in range(least, self.precision + 1):
            text = f"{x:.{digits}f}"
            if abs(float(text) - x) <= self.exact * size:
                break
        else:
            text = f"{x:.{self.precision}f}"
        return text if text.strip("-0.") else text.lstrip("-")

    def digits(self, numbers: Sequence[Num]) -> int:
        """How many digits after the point all of them need."""
        texts = [self.number(n.value) for n in numbers]
        return max((len(t.partition(".")[2]) for t in texts if "e" not in t), default=0)

    def cell(self, n: Num, least: int = 0, *, fixed: bool = False) -> str:
        """A number, or the gap that stands for it."""
        if n.step in self.sheet:
            first = (n.step, n.where) not in self.gaps
            mark = f"⟨{self.gaps.setdefault((n.step, n.where), len(self.gaps) + 1)}⟩"
            if first:
                self.values.append(n.value)
            return mark + (self.number(n.value, least, fixed=fixed) if self.sheet.answers else GAP if first else "")
        if n.step == WORKING and self.hides and not self.sheet.answers:
            return GAP
        if not n.step and self.precision < _GIVEN:
            return dataclasses.replace(self, precision=_GIVEN).number(n.value, fixed=fixed)
        return self.number(n.value, least, fixed=fixed)

    def vector(self, v: Vec) -> list[str]:
        """All entries alike; the middle of a long one is left out."""
        shown: list[Num | None] = list(v)
        if len(v) > _LONGEST and not self.full:
            shown = [*v[: _LONGEST - 3], None, *v[-2:]]
        tiny = 0.5 * 10.0**-self.precision
        least = (
            self.precision
            if any(0 < abs(x.value) < tiny for x in v) and any(abs(x.value) >= tiny for x in v)
            else self.digits(v)
        )
        return ["…" if x is None else self.cell(x, least, fixed=bool(least)) for x in shown]

    def hide(self, section: Section) -> None:
        """Whether the section works with what an earlier one left blank."""
        self.hides = bool(section.uses & self.sheet.blank)


def _negative(item: Num) -> bool:
    return item.value < 0


@dataclass(frozen=True)
class Row:
    """One written line."""

    label: str
    cells: tuple[str, ...]
    remark: str = ""
    rounded: bool = False
    words: bool = False  # no numbers: what stands for lines that were left out


def equation(row: Row) -> str:
    """A line without its label; of a sum the result alone, which stands below what was added."""
    return " = ".join(filter(None, row.cells))


def rows_of(section: Section, pen: Pen) -> list[Row]:
    """The lines of a section, written; the numbers of one column of results alike."""
    pen.hide(section)
    ends = [line.exprs[-1][0] for line in section.lines if len(line.exprs) > 1 and len(line.exprs[-1]) == 1]
    least = pen.digits([n for n in ends if isinstance(n, Num)])
    widths = _widest(section.lines, pen)
    rows: list[Row] = []
    for line in section.lines:
        rows.append(_row(line, pen, least, widths, [r for r in rows if len(r.cells) == len(line.exprs)]))
    return rows


def _widest(lines: Sequence[Line], pen: Pen) -> dict[tuple[int, int], int]:
    """The widest entry of the vectors that stand below each other."""
    ahead = Pen(pen.precision, pen.sheet, pen.full, pen.exact, dict(pen.gaps), [], pen.hides)
    widths: dict[tuple[int, int], int] = {}
    for line in lines:
        for i, expr in enumerate(line.exprs):
            for v in (item for item in expr if isinstance(item, Vec)):
                longest = max(map(cell_len, ahead.vector(v)), default=0)
                widths[len(line.exprs), i] = max(widths.get((len(line.exprs), i), 0), longest)
    return widths


def _row(line: Line, pen: Pen, least: int, widths: dict[tuple[int, int], int], above: Sequence[Row]) -> Row:
    cells = []
    for i, expr in enumerate(line.exprs):
        last = i == len(line.exprs) - 1
        cells.append(written(expr, pen, least if last and i else 0, widths.get((len(line.exprs), i), 0)))
    words = all(isinstance(item, str) for expr in line.exprs for item in expr)
    return Row(line.label, tuple(cells), line.remark, not comes_out(cells, pen.precision, above), words)


def written(expr: Expr, pen: Pen, least: int = 0, width: int = 0) -> str:
    """One side of an equation."""
    out = ""
    for item in expr:
        if isinstance(item, str):
            out += item
        elif isinstance(item, Vec):
            out += f"[{' '.join(text.rjust(width) for text in pen.vector(item))}]"
        else:
            text = pen.cell(item, least)
            inside = out.rstrip() and out.rstrip()[-1] in "+−·×/^"
            out += f"({text})" if inside and _negative(item) and text[0] in "-−" else text
    return out


# ── does it come out? ────────────────────────────────────────────────────────────────────────────
_MARKS = re.compile(r"⟨\d+⟩")
_WORDS = {
    "·": "*",
    "×": "*",
    "÷": "/",
    "−∞": "(-INF)",
    "∞": "INF",
    "−": "-",
    "^": "**",
    "²": "**2",
    "√": "sqrt",
    "NaN": "NAN",
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sqrt": np.sqrt, "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "max": np.maximum, "ln": np.log,
}  # fmt: skip
_NAMES = {"e": math.e, "INF": math.inf, "NAN": math.nan}
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: operator.pow,
}  # fmt: skip


def comes_out(cells: Sequence[str], precision: int, above: Sequence[Row] = ()) -> bool:
    """Whether what is printed, worked with a calculator, gives the printed result; true where it cannot be worked.

    A line without a left side is the sum of the lines above it.
    """
    if not cells[0]:
        terms = [value_of(row.cells[-1]) for row in above]
        found = [None if any(t is None for t in terms) or not terms else sum(terms), value_of(cells[-1])]
    else:
        found = [value_of(cell) for cell in cells]
    for left, right, text in zip(found, found[1:], cells[1:], strict=False):
        if left is not None and right is not None and np.shape(left) == np.shape(right):
            with np.errstate(all="ignore"):
                if not np.all((np.abs(left - right) <= _half_unit(text, precision)) | ~np.isfinite(right)):
                    return False
    return True


def _half_unit(text: str, precision: int) -> Any:
    """Half a unit of the last digit of each printed number; of one with fewer digits, which is exact, next to nothing."""
    numbers = [t for t in text.strip("[]").split() if t != "…"] if text.startswith("[") else [text]
    return np.array([_half(t, precision) for t in numbers]) if text.startswith("[") else _half(text, precision)


def _half(text: str, precision: int) -> float:
    found = re.search(r"(?:\.(\d+))?(?:e([-+]\d+))?\)?$", text)
    digits, power = (found[1] or "", found[2]) if found else ("", None)
    return 0.5000001 * 10.0 ** (int(power or 0) - len(digits)) if power or len(digits) >= precision else 1e-9


def value_of(text: str) -> Any:
    """The value of printed arithmetic: a number or a vector; None where it is no arithmetic."""
    text = _MARKS.sub("", text)
    if GAP in text or "mod" in text:
        return None
    text = re.sub(r"(\d+) more: ", "", text)
    text = re.sub(r"\[([^\]]*)\]", lambda m: "[" + ",".join(x for x in m[1].split() if x != "…") + "]", text)
    text = re.sub(r"ln (\S+?)(?=[ ,)]|$)", r"ln(\1)", text)
    text = re.sub(r"\|([^|]*)\|", r"absolute(\1)", text)
    for mark, word in _WORDS.items():
        text = text.replace(mark, word)
    try:
        with np.errstate(all="ignore"):
            return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, TypeError):
        return None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return np.float64(node.value)
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return np.float64(_NAMES[node.id])
    if isinstance(node, ast.List):
        return np.array([_value(x) for x in node.elts])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        function = np.abs if node.func.id == "absolute" else _FUNCTIONS.get(node.func.id)
        if function:
            return function(*map(_value, node.args))
    raise ValueError(ast.dump(node))


# ── text ─────────────────────────────────────────────────────────────────────────────────────────
Fragment = tuple[str, str]  # text, style


@dataclass(frozen=True)
class Page:
    """What every format writes: a section a time, then what stands below."""

    board: Board
    pen: Pen
    sections: tuple[tuple[str, Section, list[Row]], ...]
    dtype: str

    @property
    def foot(self) -> list[str]:
        """Where the query looks, and what rounding did; of a worksheet only the latter."""
        out = [] if self.pen.sheet.blank else [self.board.closing]
        half = f" Each result is rounded to {self.dtype}." if self.dtype in ("float16", "bfloat16") else ""
        return out + ([_SAYS + half] if any(row.rounded for _, _, rows in self.sections for row in rows) else [])

    def gap_lines(self) -> list[str]:
        """`⟨1⟩ to ⟨3⟩: weights[1][0:3]`: which cell each gap stands for."""
        runs: list[list[tuple[str, tuple[int, ...]]]] = []
        for step, where in self.pen.gaps:
            last = runs[-1][-1] if runs else ("", ())
            if (step, where[:-1]) == (last[0], last[1][:-1]) and where[-1] == last[1][-1] + 1:
                runs[-1].append((step, where))
            else:
                runs.append([(step, where)])
        out, n = [], 1
        for run in runs:
            step, where = run[0]
            path = "".join(f"[{i}]" for i in where[:-1])
            if len(run) == 1:
                out.append(f"⟨{n}⟩: {step}{path}[{where[-1]}]")
            else:
                out.append(f"⟨{n}⟩ to ⟨{n + len(run) - 1}⟩: {step}{path}[{where[-1]}:{where[-1] + len(run)}]")
            n += len(run)
        return out


def page_of(board: Board, look: Look, sheet: Sheet, dtype: str, *, full: bool) -> Page:
    """The board, written by one pen in order."""
    pen = Pen(look.precision, sheet, full, 2e-7 if dtype == "float32" else 1e-12)  # 0.3 as float32 is 0.30000001192…
    sections, n = [], 0
    for section in board.sections:
        n += not (section.idle or section.heading)
        sections.append(("" if section.idle or section.heading else _circled(n), section, rows_of(section, pen)))
    return Page(board, pen, tuple(sections), dtype)


def _circled(n: int) -> str:
    return "①②③④⑤⑥⑦⑧⑨⑩"[n - 1] if n <= 10 else f"({n})"  # fonts that know ⑪ are few


def _text_lines(section: Section, rows: list[Row], width: int | None) -> Iterator[list[Fragment]]:
    """The lines of a section, those of one kind aligned with each other."""
    labels = max((cell_len(r.label) for r in rows), default=0)
    room = None if width is None else max(width - _MARGIN - labels - 3, 20)
    block: list[Row] = []
    for row in [*rows, None]:
        if block and (row is None or len(row.cells) != len(block[0].cells)):
            yield from _block(block, labels, room)
            block = []
        if row is not None:
            block.append(row)


_MARGIN = 5
_WIDE = 60  # what is wider does not push the others' equal signs away


def _block(rows: list[Row], labels: int, room: int | None) -> Iterator[list[Fragment]]:
    """Equal signs and results below each other, where they fit; folded where they do not."""
    columns = len(rows[0].cells)
    placed = [r.cells for r in rows]
    short = [p for p in placed if cell_len(p[0]) <= _WIDE]
    usual = short if 2 * len(short) > len(placed) else placed
    widths = [max(cell_len(p[c]) for p in usual) for c in range(columns)]
    fits = room is None or sum(widths) + 3 * (columns - 1) + 2 <= room
    for row, cells in zip(rows, placed, strict=True):
        aligned = fits and cells in usual
        text = ""
        for c, cell in enumerate(cells):
            pad = " " * (widths[c] - cell_len(cell)) if aligned else ""
            number = 0 < c == columns - 1 and not cell.startswith("[")
            text += (" = " if c and (aligned or text) else "") + (pad + cell if number else cell + pad)
        text = text.rstrip() + (f" {ROUNDED}" if row.rounded else "")
        remark = f"   {row.remark}" if row.remark else ""
        pieces = [text]
        if room is not None and cell_len(text + remark) > room:
            pieces = _folded(text.strip(), room)
            pieces += _folded(row.remark, room) if row.remark else []
            remark = ""
        for n, piece in enumerate(pieces):
            label = row.label if n == 0 else ""
            yield [
                (" " * _MARGIN + label + " " * (labels - cell_len(label)) + "   ", "cyan"),
                (piece, ""),
                (remark, "dim"),
            ]


def _inline(section: Section, rows: list[Row]) -> str:
    """A grey line."""
    return section.title or " ".join(map(equation, rows))


def _folded(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def write_text(page: Page, look: Look) -> str:
    """For people: on a terminal with colours, folded to its width."""
    out = io.StringIO()
    console = console_for(out, look)

    def say(*fragments: Fragment) -> None:
        text = Text()
        for piece, style in fragments:
            text.append(piece if look.unicode else _ascii(piece), style=style or None)
        console.print(text, soft_wrap=True)

    def folded(text: str, style: str, indent: str = "") -> None:
        for line in textwrap.wrap(text, look.width or 10**6, subsequent_indent=indent):
            say((line, style))

    folded(page.board.title, "bold")
    folded(page.board.summary, "dim")
    for number, section, rows in page.sections:
        say(("", ""))
        if section.heading:
            say((f"── {section.title} ──", "bold"))
            continue
        if section.idle:
            folded(f"  – {_inline(section, rows)}", "dim", "    ")
            continue
        head = [(f"{number} {section.title}", "bold"), (f"   {section.formula}" if section.formula else "", "")]
        remark = f"   ({section.remark})" if section.remark else ""
        length = sum(cell_len(t) for t, _ in head) + cell_len(remark)
        if look.width and length > look.width:
            say(head[0])
            folded(" " * _MARGIN + section.formula, "", " " * _MARGIN)
            folded(" " * _MARGIN + remark.strip(), "dim", " " * _MARGIN)
        else:
            say(*head, (remark, "dim"))
        for fragments in _text_lines(section, rows, look.width):
            say(*fragments)
    say(("", ""))
    for line in page.foot:
        folded(line, "bold" if line == page.board.closing else "dim")
    if page.pen.gaps:
        say(("Gaps", "bold"), (f"   {_MARKED}", "dim"))
        for line in page.gap_lines():
            say((line, ""))
    return out.getvalue()


def _ascii(text: str) -> str:
    """A page without symbols; 2·3 becomes 2*3, not 2.3."""
    return in_ascii(re.sub(r"(?<=\S)·(?=\S)", "*", text))


def write_markdown(page: Page, look: Look) -> str:
    """A heading a section; the working in a code block, where every character stands as it is."""
    parts = [f"# {markdown(page.board.title)}", "", markdown(page.board.summary)]
    for number, section, rows in page.sections:
        if section.heading:
            parts += ["", f"# {markdown(section.title)}"]
            continue
        if section.idle:
            parts += ["", f"*{markdown(_inline(section, rows))}*"]
            continue
        remark = f" ({section.remark})" if section.remark else ""
        parts += ["", f"## {number} {markdown(section.title)}", "", markdown(section.formula + remark)]
        lines = ["".join(t for t, _ in line)[5:].rstrip() for line in _text_lines(section, rows, None)]
        if lines:
            parts += ["", "```text", *(line.replace("```", "'''") for line in lines), "```"]
    for line in page.foot:
        parts += ["", markdown(line)]
    if page.pen.gaps:
        parts += ["", "## Gaps", "", _MARKED, "", "```text", *page.gap_lines(), "```"]
    return "\n".join(parts) + "\n"


_TEX = {
    "·": r" \cdot ", "×": r" \times ", "−": "-", "∞": r"\infty ", "√": r"\surd", "²": "^{2}", "…": r"\dots ", "†": r"^{\dagger}", "_": r"\_",
    "⟨": r"\langle ", "⟩": r"\rangle ",
}  # fmt: skip
_TEX_WORDS = ("tanh", "ln", "sin", "cos", "max")


def _tex(cell: str) -> str:
    """Printed arithmetic in LaTeX's mathematics."""
    text = cell.replace(GAP, "\x00")
    text = re.sub(r"\[([^\]]*)\]", lambda m: r"\begin{pmatrix}" + " & ".join(m[1].split()) + r"\end{pmatrix}", text)
    text = re.sub(r"e\^\(", r"\\exp(", text)
    text = re.sub(r"\^(\(?-?[\d.]+\)?)", r"^{\1}", text)
    text = re.sub(r"\d+ more: ", lambda m: rf"\text{{{m[0]}}}", text)
    text = re.sub(rf"\b({'|'.join(_TEX_WORDS)})\b", lambda m: "\\" + m[1], text)
    text = "".join(_TEX.get(c, c) for c in text)
    return text.replace("\x00", r"\underline{\hspace{3em}}")


def write_latex(page: Page, look: Look) -> str:
    """A paragraph a section, its working in align*; needs amsmath."""
    wide = max(
        (len(v) for _, s, _ in page.sections for x in s.lines for e in x.exprs for v in e if isinstance(v, Vec)),
        default=0,
    )
    parts = [
        "% \\usepackage{amsmath}",
        *([rf"\setcounter{{MaxMatrixCols}}{{{wide}}}"] if page.pen.full and wide > 10 else []),
        rf"\section*{{{latex(page.board.title)}}}",
        "",
        latex(page.board.summary),
    ]
    for _, section, rows in page.sections:
        if section.heading:
            parts += ["", rf"\subsection*{{{latex(section.title)}}}"]
            continue
        if section.idle:
            parts += ["", rf"\textit{{{latex(_inline(section, rows))}}}"]
            continue
        parts += ["", rf"\paragraph{{{latex(section.title)}}} {latex(section.formula)}"]
        if section.remark:
            parts.append(f"({latex(section.remark)})")
        if rows:
            lines = []
            for row in rows:
                remark = rf" \quad \text{{{latex(row.remark)}}}" if row.remark else ""
                dagger = r"^{\dagger}" if row.rounded else ""
                body = (
                    " = ".join(map(_tex, filter(None, row.cells)))
                    if not row.words
                    else rf"\text{{{latex(row.cells[0])}}}"
                )
                lines.append(rf"  \text{{{latex(row.label)}}} &\quad {body}{dagger}{remark}")
            parts += [r"\begin{align*}", " \\\\\n".join(lines), r"\end{align*}"]
    parts += ["", *(latex(line).replace(ROUNDED, r"$^{\dagger}$") for line in page.foot)]
    if page.pen.gaps:
        parts += ["", r"\begin{verbatim}", *page.gap_lines(), r"\end{verbatim}"]
    return "\n".join(parts) + "\n"


def write_json(page: Page, look: Look) -> str:
    """The page as one record: schema attn.explain/1."""
    import msgspec

    gaps = [
        {"gap": n, "step": step, "index": list(where), **({"value": _plain(x)} if page.pen.sheet.answers else {})}
        for ((step, where), n), x in zip(page.pen.gaps.items(), page.pen.values, strict=True)
    ]
    record = {
        "schema": "attn.explain/1",
        "title": page.board.title,
        "summary": page.board.summary,
        "sections": [
            {
                "title": section.title,
                "formula": section.formula,
                "remark": section.remark,
                "idle": section.idle,
                "heading": section.heading,
                "lines": [
                    {"label": r.label, "text": equation(r), "remark": r.remark, "rounded": r.rounded} for r in rows
                ],
            }
            for _, section, rows in page.sections
        ],
        "closing": "" if page.pen.sheet.blank else page.board.closing,
        **({"gaps": gaps} if gaps else {}),
    }
    return msgspec.json.encode(record).decode() + "\n"


def _plain(x: float) -> float | str:
    return x if math.isfinite(x) else "NaN" if math.isnan(x) else "Infinity" if x > 0 else "-Infinity"


WRITERS: dict[str, Callable[[Page, Look], str]] = {
    "table": write_text,
    "plain": write_text,
    "markdown": write_markdown,
    "latex": write_latex,
    "json": write_json,
}
