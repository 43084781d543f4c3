"""Formulas and equations, which are declared as plain text, in LaTeX's mathematics.

Entries: `split_formula` for a formula with words between, `typeset_mathematics` for arithmetic alone. Both use commands of
LaTeX and amsmath that MathJax and KaTeX know too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

GAP_LATEX = r"\underline{\hspace{3em}}"
_FUNCTIONS = {"tanh": r"\tanh", "sin": r"\sin", "cos": r"\cos", "ln": r"\ln", "log": r"\log", "max": r"\max"}
_OPERATORS = {"mean", "var", "softmax", "elu"}  # functions that LaTeX has no command for
_GREEK = {
    "α": r"\alpha", "λ": r"\lambda", "τ": r"\tau", "φ": r"\phi", "ω": r"\omega", "theta": r"\theta",
}  # fmt: skip
_RELATIONS = {
    "=": "=", "≤": r"\le", "<": "<", "≥": r"\ge", ">": ">", "≠": r"\ne", "→": r"\to", "~": r"\sim",
}  # fmt: skip
_SIGNS = {"+": "+", "−": "-", "-": "-"}
_PRODUCTS = {"·": r"\cdot", "×": r"\times"}
_BRACKETS = {"(": ("(", ")", ")"), "[": ("[", "]", "]"), "|": ("|", "|", "|"), "⌊": (r"\lfloor", r"\rfloor", "⌋")}
_POWERS = {"²": "2", "ᵀ": r"\top"}
_SUBSCRIPTS = {"ᵢ": "i", "ⱼ": "j", "₁": "1", "₂": "2", "ₖ": "k"}
_CONSTANTS = {"∞": r"\infty", "…": r"\dots", "½": r"\tfrac12"}
# Words that join statements; any other word beside an operator is the name of a quantity.
_JOINING_WORDS = frozenset(
    [
        "a",
        "among",
        "and",
        "as",
        "at",
        "back",
        "by",
        "else",
        "for",
        "given",
        "if",
        "in",
        "is",
        "kept",
        "may",
        "no",
        "not",
        "of",
        "one",
        "or",
        "over",
        "past",
        "such",
        "that",
        "the",
        "then",
        "through",
        "to",
        "what",
        "where",
        "with",
    ]
)
_DIFFERENTIAL = re.compile("d[a-zA-Z]")
_TOKEN = re.compile(
    r"(?P<gap>⟨\d+⟩(?:____)?|____)|(?P<count>\d+ more: )|(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
    r"|(?P<option>--[a-z][a-z-]*)|(?P<placeholder>\{[a-z]+\})"
    r"|(?P<name>[A-Za-z]+(?:[-'’][a-z]+)*\d*(?:_[A-Za-z0-9]+)*|[α-ω](?:_[A-Za-z0-9]+)*|Σ(?:_[a-z]+)?)|(?P<symbol>\S)"
)
_VECTOR = re.compile(r"\[([-−\d.e+∞Na…⟨⟩_\s]*)\]")


class FormulaPiece(NamedTuple):
    """A part of a formula: mathematics in LaTeX, or words as they are, with the spaces and commas around them."""

    text: str
    is_mathematics: bool


class _Token(NamedTuple):
    kind: str  # of the groups of `_TOKEN`; or vector
    text: str
    start: int
    end: int


def split_formula(formula: str) -> list[FormulaPiece]:
    """Split a formula into mathematics and the words between: `s where visible` → `s`, ` where visible`."""
    return list(_join_words(_Typesetter(formula).pieces()))


def typeset_mathematics(text: str) -> str:
    """Typeset text that is mathematics throughout: one side of an equation, with its numbers, vectors and gaps."""
    return _Typesetter(text).whole()


def _join_words(pieces: Iterator[FormulaPiece]) -> Iterator[FormulaPiece]:
    """Join words that follow each other."""
    words = ""
    for piece in pieces:
        if piece.is_mathematics:
            if words:
                yield FormulaPiece(words, False)
            words = ""
            yield piece
        else:
            words += piece.text
    if words:
        yield FormulaPiece(words, False)


def _tokenize(text: str) -> Iterator[_Token]:
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        vector = _VECTOR.match(text, position)
        if vector and "," not in vector[1]:
            yield _Token("vector", vector[1], position, vector.end())
            position = vector.end()
            continue
        match = _TOKEN.match(text, position)
        assert match is not None
        assert match.lastgroup is not None
        yield _Token(match.lastgroup, match[0], position, match.end())
        position = match.end()


class _Typesetter:
    """sum := product (± product)*; product := run (·×/ run)*; run := factor factor …; factor := atom (^ atom | ² | ⱼ)*"""

    def __init__(self, text: str) -> None:
        self.text, self.tokens, self.position = text, list(_tokenize(text)), 0
        self.depth = 0  # of brackets
        self.exponent_depth = 0  # a quotient in an exponent stays on the line
        self.open_bars = 0

    # ── tokens ──
    def _token(self, offset: int = 0) -> _Token | None:
        index = self.position + offset
        return self.tokens[index] if 0 <= index < len(self.tokens) else None

    def _symbol(self, offset: int = 0) -> str:
        """The token, if it is a symbol; else nothing."""
        token = self._token(offset)
        return token.text if token and token.kind == "symbol" else ""

    def _is_attached(self) -> bool:
        """Whether the token follows the one before without a space."""
        token, before = self._token(), self._token(-1)
        return bool(token and before and token.start == before.end)

    # ── a whole text ──
    def whole(self) -> str:
        """The text as one piece of mathematics."""
        self.depth = 1
        return " ".join(self._statements(""))

    def pieces(self) -> Iterator[FormulaPiece]:
        """Mathematics and words in turn; a comma or a colon between two statements is set as text."""
        done = 0  # how much of the text has been yielded
        while self._token() is not None:
            words_length = self._words_length() or int(self._symbol() in (",", ";", ":"))
            if words_length:
                self.position += words_length
                following = self._token()
                end = following.start if following else len(self.text)
                yield FormulaPiece(self.text[done:end], False)
                done = end
                continue
            statements = []
            while self._token() is not None and not self._words_length() and self._symbol() not in (",", ";", ":"):
                statements.append(self._statement())
            yield FormulaPiece(" ".join(statements), True)
            done = self.tokens[self.position - 1].end

    def _words_length(self) -> int:
        """How many tokens from here on are words of a sentence, and not the names of quantities."""
        count, is_joining = 0, False
        while (token := self._token(count)) is not None and self._is_word(token, count):
            is_joining = is_joining or token.text in _JOINING_WORDS or token.kind == "option"
            count += 1
        if not count:
            return 0
        if is_joining:
            return count
        if self.depth:
            return 0
        before, after = self._token(-1), self._token(count)
        neighbours = {token.text for token in (before, after) if token and token.kind == "symbol"}
        is_operand = bool(neighbours & {*_RELATIONS, *_SIGNS, *_PRODUCTS, "/", "^", "√"})
        is_factor = after is not None and after.kind == "name" and "_" in after.text
        is_summed = before is not None and before.text in ("Σ", "mod", *_FUNCTIONS)
        return 0 if is_operand or is_factor or is_summed else count

    def _is_word(self, token: _Token, offset: int) -> bool:
        """Whether a token is a word of more than one letter that is no function; or `a` before such a word."""
        if token.kind == "option":
            return True
        if token.kind != "name":
            return False
        if token.text == "a":
            before, after = self._token(offset - 1), self._token(offset + 1)
            follows_words = before is None or before.text == ":" or (before.kind == "name" and len(before.text) > 1)
            return follows_words and after is not None and after.kind == "name" and len(after.text) > 1
        after = self._token(offset + 1)
        is_called = after is not None and after.text in ("(", "[") and after.start == token.end
        known = {*_FUNCTIONS, *_GREEK, "mod", "mean", "var"}
        is_symbol = (
            len(token.text) == 1 or "_" in token.text[:2] or _DIFFERENTIAL.fullmatch(token.text.partition("_")[0])
        )
        return not is_called and token.text not in known and not is_symbol and token.text[0] != "Σ"

    # ── statements ──
    def _statements(self, closing: str) -> Iterator[str]:
        """Everything up to the closing bracket, which is taken; words among it stand as text."""
        while (token := self._token()) is not None:
            if closing and self._symbol() == closing:
                self.position += 1
                return
            if count := self._words_length():
                last = self.tokens[self.position + count - 1]
                yield rf"\text{{ {self.text[token.start : last.end]} }}"
                self.position += count
            else:
                yield self._statement()

    def _statement(self) -> str:
        """A relation, a comma, or a sum."""
        symbol = self._symbol()
        if symbol in _RELATIONS or (symbol and symbol in ",;:"):
            self.position += 1
            return _RELATIONS.get(symbol, rf"{symbol}\;" if symbol != ":" else r"\colon")
        start = self.position
        text = self._sum()
        if self.position == start:  # a symbol that means nothing here
            self.position += 1
            return _escape_symbol(symbol)
        return text

    def _sum(self) -> str:
        terms: list[str] = []
        while True:
            sign = ""
            if self._symbol() in _SIGNS:
                sign = _SIGNS[self._symbol()]
                self.position += 1
            product = self._product()
            terms.append(f"{sign} {product}" if terms else f"{sign}{product}")
            if self._symbol() not in _SIGNS:
                return " ".join(terms)

    def _product(self) -> str:
        left = self._run()
        while True:
            symbol = self._symbol()
            if symbol in _PRODUCTS:
                self.position += 1
                left = f"{left} {_PRODUCTS[symbol]} {self._run()}".strip()
            elif symbol == "/":
                self.position += 1
                left = self._quotient(left, self._run())
            else:
                return left

    def _quotient(self, left: str, right: str) -> str:
        """A fraction; on one line within an exponent, and where a vector or a long sum would not go above a line."""
        if self.exponent_depth or "pmatrix" in left + right or len(left) > 400:
            return f"{left} / {right}"
        return rf"\frac{{{_without_brackets(left)}}}{{{_without_brackets(right)}}}"

    def _run(self) -> str:
        """Factors that follow each other: they are multiplied, or a function is applied."""
        factors: list[str] = []
        while self._is_factor_next(is_first=not factors):
            factors.append(self._factor())
        return " ".join(factors)

    def _is_factor_next(self, *, is_first: bool) -> bool:
        token = self._token()
        if token is None:
            return False
        if token.kind == "symbol":
            if token.text == "|":
                return is_first or not self.open_bars
            return token.text in _BRACKETS or token.text in {*_CONSTANTS, "√"} or (is_first and token.text in _SIGNS)
        return is_first or not self._words_length() or bool(self.depth and token.text not in _JOINING_WORDS)

    def _factor(self) -> str:
        base = self._atom()
        power, subscript = "", ""
        while True:
            symbol = self._symbol()
            if symbol in _SUBSCRIPTS and self._is_attached():
                subscript += _SUBSCRIPTS[symbol]
                self.position += 1
            elif symbol in _POWERS:
                power += _POWERS[symbol]
                self.position += 1
            elif symbol == "^":
                self.position += 1
                power += self._exponent()
            else:
                break
        if subscript:
            base = (
                f"{base}_{{{subscript}}}"
                if not base.endswith("}") or "_" not in base
                else f"{{{base}}}_{{{subscript}}}"
            )
        return f"{base}^{{{power}}}" if power else base

    def _exponent(self) -> str:
        """What stands above the line: a factor, or what is in brackets without them."""
        self.exponent_depth += 1
        sign = ""
        if self._symbol() in _SIGNS:
            sign = "-"
            self.position += 1
        exponent = self._factor()
        self.exponent_depth -= 1
        return f"{sign}{exponent}" if sign else _without_brackets(exponent)

    def _atom(self) -> str:
        token = self._token()
        if token is None:  # the text ends where something should follow
            return ""
        self.position += 1
        if token.kind == "number":
            return _typeset_number(token.text)
        if token.kind == "gap":
            return _typeset_gap(token.text)
        if token.kind == "count":
            return rf"\text{{{token.text}}}"
        if token.kind == "placeholder":
            return rf"\text{{{token.text[1:-1]}}}"
        if token.kind == "vector":
            return _typeset_vector(token.text)
        if token.kind in ("name", "option"):
            return self._name(token)
        if token.text in _BRACKETS:
            return self._bracket(token.text)
        if token.text == "√":
            return rf"\sqrt{{{_without_brackets(self._atom())}}}"
        if token.text in _SIGNS:
            return f"-{self._factor()}"
        return _CONSTANTS.get(token.text) or _escape_symbol(token.text)

    def _bracket(self, opening: str) -> str:
        left, right, closing = _BRACKETS[opening]
        self.depth += 1
        self.open_bars += opening == "|"
        inner = " ".join(self._statements(closing))
        self.open_bars -= opening == "|"
        self.depth -= 1
        if r"\frac" in inner:
            return rf"\left{left} {inner} \right{right}"
        return f"{left}{inner}{right}" if opening in "([" else f"{left} {inner} {right}"

    def _name(self, token: _Token) -> str:
        """A symbol with its subscript, a function, or the name of a quantity."""
        base, _, subscript = token.text.partition("_")
        if base == "Σ":
            return rf"\sum_{{{subscript}}}" if subscript else r"\sum"
        if base == "NaN":
            return r"\text{NaN}"
        if base == "mod":
            return r"\bmod"
        if token.text in _FUNCTIONS:
            return _FUNCTIONS[token.text]
        is_called = self._symbol() in ("(", "[") and self._is_attached()
        if token.text in _OPERATORS or (is_called and len(base) > 1 and self._symbol() == "("):
            return rf"\operatorname{{{token.text}}}"
        if base in _GREEK:
            symbol = _GREEK[base]
        elif len(base) == 1:
            symbol = base
        elif _DIFFERENTIAL.fullmatch(base):
            symbol = rf"\mathrm{{d}}{base[1]}"
        elif len(subscript) == 1:
            symbol = rf"\mathrm{{{base}}}"
        else:
            return rf"\text{{{self._quantity(token)}}}"
        if not subscript:
            return symbol
        return (
            rf"{symbol}_{{{subscript}}}"
            if len(subscript) < 3 and subscript != "in"
            else rf"{symbol}_{{\mathrm{{{subscript}}}}}"
        )

    def _quantity(self, token: _Token) -> str:
        """The name of a quantity, which may be several words."""
        words = [token.text]
        while (following := self._token()) and following.kind == "name" and self._is_word(following, 0):
            if following.text in _JOINING_WORDS:
                break
            words.append(following.text)
            self.position += 1
        return " ".join(words).replace("_", r"\_")


def _without_brackets(latex: str) -> str:
    """What is within one pair of round brackets around everything; else the text itself."""
    for left, right in (("(", ")"), (r"\left( ", r" \right)")):
        if latex.startswith(left) and latex.endswith(right):
            inner = latex[len(left) : -len(right)]
            if _is_balanced(inner):
                return inner
    return latex


def _is_balanced(text: str) -> bool:
    """Whether every round bracket that is closed was opened in this text."""
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return False
    return depth == 0


def _typeset_number(text: str) -> str:
    """`1.5e-06` → 1.5 × 10⁻⁶, and `1e-5` → 10⁻⁵"""
    match = re.fullmatch(r"([\d.]+)e([+-]?\d+)", text)
    if match is None:
        return text
    power = f"10^{{{int(match[2])}}}"
    return power if match[1] == "1" else rf"{match[1]} \times {power}"


def _typeset_gap(text: str) -> str:
    """A blank, and the number of its gap; the number alone where the gap stands again."""
    mark = re.match(r"⟨(\d+)⟩", text)
    label = rf"\langle {mark[1]}\rangle " if mark else ""
    return label + (GAP_LATEX if text.endswith("____") else "")


def _typeset_vector(text: str) -> str:
    return rf"\begin{{pmatrix}}{' & '.join(map(_typeset_entry, text.split()))}\end{{pmatrix}}"


def _typeset_entry(text: str) -> str:
    """One entry of a vector: a gap, a number behind the number of its gap, or a number."""
    mark = re.match(r"⟨\d+⟩(?:____)?|____", text)
    rest = text[mark.end() :] if mark else text
    sign = "-" if rest[:1] in ("-", "−") else ""
    number = rest.lstrip("-−")
    known = {"∞": r"\infty", "…": r"\dots", "NaN": r"\text{NaN}", "": ""}
    return (
        (_typeset_gap(mark[0]) if mark else "") + sign + (known[number] if number in known else _typeset_number(number))
    )


def _escape_symbol(symbol: str) -> str:
    r"""A symbol that means nothing here, as text: `%` → `\text{\%}`."""
    return rf"\text{{\{symbol}}}" if symbol in "%&#$_{}" else symbol
