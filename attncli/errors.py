"""What the user can put right, where it is, and how grave: every error shown without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum, unique
from typing import Any


@unique
class ExitStatus(IntEnum):
    """What a process says when it ends (DESIGN §5)."""

    OK = 0  # done
    NO = 1  # done, and the answer is no: figures are wrong, or a stream had a failed input
    USAGE = 2  # the command line is wrong, whatever the file holds
    INPUT = 3  # the input cannot be read, makes no sense, or does not go with the command line
    CANNOT = 4  # cannot compute or write here: torch, memory, device, disk
    BUG = 70  # a bug in attn (EX_SOFTWARE of sysexits.h)
    INTERRUPTED = 130  # 128 + SIGINT
    BROKEN_PIPE = 141  # 128 + SIGPIPE


@dataclass(frozen=True)
class Place:
    """Where something is wrong: a file, then either a line and column or a path inside it."""

    file: str = ""
    line: int | None = None  # counted from 1
    column: int | None = None  # counted from 1, in characters
    path: str = ""  # a JSON path or the name of an array
    lines: tuple[tuple[int, str], ...] = ()  # source lines worth showing, with their numbers
    label: str = ""  # what stands beside the caret
    width: int = 1  # how many characters the caret underlines

    def __str__(self) -> str:
        spot = [self.file] if self.file else []
        spot += [str(n) for n in (self.line, self.column) if n is not None]
        return ":".join(spot) + (f" at {self.path}" if self.path and spot else self.path)


class AttnError(Exception):
    """Base of every error shown to the user: a code to look for, a sentence, a place and a way out."""

    status = ExitStatus.CANNOT

    def __init__(self, code: str, message: str, *, place: Place | None = None, help: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.place = place or Place()
        self.help = help

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.code, self.message), self.__dict__  # from a worker to who asked

    def at(self, **where: Any) -> AttnError:
        """The same error with what the edge knows of its place; what is known already stays."""
        known = {k: v for k, v in where.items() if not getattr(self.place, k)}
        self.place = replace(self.place, **known)
        return self

    def record(self) -> dict[str, Any]:
        """The error for programs: one JSON object."""
        out: dict[str, Any] = {"type": "error", "code": self.code, "message": self.message}
        if self.place.file:
            out["file"] = self.place.file
        if self.place.line is not None:
            out["location"] = {"row": self.place.line, "column": self.place.column or 1}
        if self.place.path:
            out["path"] = self.place.path
        if self.help:
            out["help"] = self.help
        return out


class OptionError(AttnError):
    """An option names something that does not exist or cannot be."""

    status = ExitStatus.USAGE


class InputError(AttnError):
    """A file cannot be read, makes no sense, or does not go with what was asked of it."""

    status = ExitStatus.INPUT


class CannotError(AttnError):
    """Nothing is wrong with the question, but it cannot be answered on this machine."""

    status = ExitStatus.CANNOT


def as_input(error: AttnError, **where: Any) -> InputError:
    """An option that a file spelled wrongly: the same sentence, but it is the file that is wrong."""
    wrong = InputError(error.code, error.message, place=error.place, help=error.help)
    wrong.at(**where)
    return wrong


def nearest(name: str, known: Iterable[str]) -> str:
    """“did you mean 'causal'?”, or the whole list while it is short; never nothing."""
    names = sorted(map(str, known))
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"it can be {listed(names, 'or')}" if names else "there is none to choose from"


def listed(names: Iterable[object], word: str = "and", most: int = 24) -> str:
    """'a, b and c', cut after `most` names."""
    items = [str(n) for n in names]
    if len(items) > most:
        return ", ".join(items[:most]) + f" {word} {len(items) - most} more"
    return f"{', '.join(items[:-1])} {word} {items[-1]}" if len(items) > 1 else "".join(items)


def counted(n: int, noun: str, plural: str = "") -> str:
    """'1 key', '2 keys'."""
    return f"{n} {noun if n == 1 else plural or noun + 's'}"


_SHOWN = {"\n": "↵", "\r": "␍", "\t": "⇥", "\x1b": "␛", "\x7f": "␡"}


def printable(text: str) -> str:
    """Untrusted text made safe to print: one line, no control or direction character takes effect."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\u00a0\u200d\u3000" else _shown(c) for c in text)


def brief(text: str, most: int = 120) -> str:
    """A name as messages say it: the middle of a very long one is left out."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 :]}"


_ASCII = {
    "−": "-", "·": ".", "×": "x", "√": "sqrt ", "Σ": "sum", "∞": "inf", "≤": "<=", "≥": ">=", "╲": "\\", "…": "...", "⌊": "floor(",
    "⌋": ")", "₂": "2", "ᵀ": "^T", "→": "->", "─": "-", "“": '"', "”": '"', "█": "#", "↵": "\\n", "⇥": "\\t", "␛": "\\e", "▓": "=", "▒": "-", "░": ".",
    "†": "*", "ⱼ": "_j", "ᵢ": "_i", "–": "-", "ω": "omega", "²": "^2", "≠": "!=", "τ": "tau", "φ": "phi", "λ": "lambda", "α": "alpha",
    "⟨": "<", "⟩": ">", "✓": "ok", "✗": "x", "Δ": "d", **{c: f"({n})" for n, c in enumerate("①②③④⑤⑥⑦⑧⑨⑩", start=1)},
}  # fmt: skip


def in_ascii(text: str) -> str:
    """Text for a console that has no more: our own symbols spelled out, anything else as the escape JSON would use."""
    return text if text.isascii() else "".join(c if c.isascii() else _ASCII.get(c) or escaped(c) for c in text)


def escaped(c: str) -> str:
    """One character as JSON escapes it."""
    units = c.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _shown(c: str) -> str:
    if c in _SHOWN:
        return _SHOWN[c]
    if ord(c) < 0x20:
        return chr(0x2400 + ord(c))  # U+2400 … are the pictures of the control characters
    return f"\\u{ord(c):04x}"


def path_of(name: str, index: tuple[int, ...] = ()) -> str:
    """The JSON path of a dotted name: `$.parameters.w_q[1][2]`."""
    return f"$.{name}" + "".join(f"[{i}]" for i in index)


def wrong(code: str, message: str, name: str = "", index: tuple[int, ...] = (), *, help: str = "") -> InputError:
    """An input error in one field of a problem, or between several."""
    return InputError(code, message, place=Place(path=path_of(name, index) if name else ""), help=help)
