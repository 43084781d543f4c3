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
class Location:
    """Where something is wrong: a file, then either a line and column or a path inside it."""

    file: str = ""
    line: int | None = None  # counted from 1
    column: int | None = None  # counted from 1, in characters
    path: str = ""  # a JSON path or the name of an array
    source_lines: tuple[tuple[int, str], ...] = ()  # source lines worth showing, with their numbers
    caret_label: str = ""  # what stands beside the caret
    caret_width: int = 1  # how many characters the caret underlines

    def __str__(self) -> str:
        spot = [self.file] if self.file else []
        spot += [str(n) for n in (self.line, self.column) if n is not None]
        return ":".join(spot) + (f" at {self.path}" if self.path and spot else self.path)


class AttnError(Exception):
    """Base of every error shown to the user: a code to look for, a sentence, a place and a way out."""

    status = ExitStatus.CANNOT

    def __init__(self, code: str, message: str, *, location: Location | None = None, help: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.location = location or Location()
        self.help = help

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.code, self.message), self.__dict__  # from a worker to who asked

    def add_location(self, **details: Any) -> AttnError:
        """The same error with what the edge knows of its place; what is known already stays."""
        known = {k: v for k, v in details.items() if not getattr(self.location, k)}
        self.location = replace(self.location, **known)
        return self

    def to_record(self) -> dict[str, Any]:
        """The error for programs: one JSON object."""
        out: dict[str, Any] = {"type": "error", "code": self.code, "message": self.message}
        if self.location.file:
            out["file"] = self.location.file
        if self.location.line is not None:
            out["location"] = {"row": self.location.line, "column": self.location.column or 1}
        if self.location.path:
            out["path"] = self.location.path
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


def as_input_error(error: AttnError, **details: Any) -> InputError:
    """An option that a file spelled wrongly: the same sentence, but it is the file that is wrong."""
    wrong = InputError(error.code, error.message, location=error.location, help=error.help)
    wrong.add_location(**details)
    return wrong


def suggestion(name: str, known: Iterable[str]) -> str:
    """“did you mean 'causal'?”, or the whole list while it is short; never nothing."""
    names = sorted(map(str, known))
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"it can be {join_names(names, 'or')}" if names else "there is none to choose from"


def join_names(names: Iterable[object], joining_word: str = "and", max_names: int = 24) -> str:
    """'a, b and c', cut after `most` names."""
    items = [str(n) for n in names]
    if len(items) > max_names:
        return ", ".join(items[:max_names]) + f" {joining_word} {len(items) - max_names} more"
    return f"{', '.join(items[:-1])} {joining_word} {items[-1]}" if len(items) > 1 else "".join(items)


def pluralize(count: int, noun: str, plural: str = "") -> str:
    """'1 key', '2 keys'."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


_CONTROL_PICTURES = {"\n": "↵", "\r": "␍", "\t": "⇥", "\x1b": "␛", "\x7f": "␡"}


def printable(text: str) -> str:
    """Untrusted text made safe to print: one line, no control or direction character takes effect."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\u00a0\u200d\u3000" else _visible_character(c) for c in text)


def shorten(text: str, max_length: int = 120) -> str:
    """A name as messages say it: the middle of a very long one is left out."""
    return text if len(text) <= max_length else f"{text[: max_length // 2]}…{text[-max_length // 2 :]}"


_ASCII_SPELLINGS = {
    "−": "-", "·": ".", "×": "x", "√": "sqrt ", "Σ": "sum", "∞": "inf", "≤": "<=", "≥": ">=", "╲": "\\", "…": "...", "⌊": "floor(",
    "⌋": ")", "₂": "2", "ᵀ": "^T", "→": "->", "─": "-", "“": '"', "”": '"', "█": "#", "↵": "\\n", "⇥": "\\t", "␛": "\\e", "▓": "=", "▒": "-", "░": ".",
    "†": "*", "ⱼ": "_j", "ᵢ": "_i", "–": "-", "ω": "omega", "²": "^2", "≠": "!=", "τ": "tau", "φ": "phi", "λ": "lambda", "α": "alpha",
    "⟨": "<", "⟩": ">", "✓": "ok", "✗": "x", "Δ": "d", **{c: f"({n})" for n, c in enumerate("①②③④⑤⑥⑦⑧⑨⑩", start=1)},
}  # fmt: skip


def to_ascii(text: str) -> str:
    """Text for a console that has no more: our own symbols spelled out, anything else as the escape JSON would use."""
    return (
        text
        if text.isascii()
        else "".join(c if c.isascii() else _ASCII_SPELLINGS.get(c) or json_escape(c) for c in text)
    )


def json_escape(character: str) -> str:
    """One character as JSON escapes it."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _visible_character(character: str) -> str:
    if character in _CONTROL_PICTURES:
        return _CONTROL_PICTURES[character]
    if ord(character) < 0x20:
        return chr(0x2400 + ord(character))  # U+2400 … are the pictures of the control characters
    return f"\\u{ord(character):04x}"


def json_path(name: str, index: tuple[int, ...] = ()) -> str:
    """The JSON path of a dotted name: `$.parameters.w_q[1][2]`."""
    return f"$.{name}" + "".join(f"[{i}]" for i in index)


def input_error(code: str, message: str, name: str = "", index: tuple[int, ...] = (), *, help: str = "") -> InputError:
    """An input error in one field of a problem, or between several."""
    return InputError(code, message, location=Location(path=json_path(name, index) if name else ""), help=help)
