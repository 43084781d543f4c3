"""Words and characters for messages: lists, counts, the nearest name, and what a console can show."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping

from attncli.symbols import SYMBOLS

_MIN_LIKENESS = 0.7  # of two names, 0 … 1, as difflib measures it; svg and tsv have 0.67

_MAX_COMPARED_NAMES = 1000  # of a file's columns, or of the files in a folder
_MAX_COMPARED_CHARACTERS = 200


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelt one is like, or that others use for it; None where there is none."""
    import difflib

    from attncli.synonyms import find_synonym, find_way_out

    if len(name) > _MAX_COMPARED_CHARACTERS:
        return None
    names = [text for text in map(str, known) if len(text) <= _MAX_COMPARED_CHARACTERS]
    names = sorted(names[:_MAX_COMPARED_NAMES])
    synonym = find_synonym(name, names)
    if synonym is not None or find_way_out(name):  # likeness is no reason to offer what is something else
        return synonym
    bare = {option.lstrip("-").lower(): option for option in reversed(names)}  # the dashes of options are no likeness
    match = difflib.get_close_matches(name.lstrip("-").lower(), sorted(bare), n=1, cutoff=_MIN_LIKENESS)
    return bare[match[0]] if match else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return “did you mean 'causal'?”, or the list of what is known where no name is near; never nothing."""
    from attncli.synonyms import find_way_out

    names = sorted(map(str, known))
    match = closest(name, names)
    if match is not None:
        return f"did you mean {match!r}?"
    if way_out := find_way_out(name):
        return way_out
    return f"it can be {join_names(map(shorten, names), 'or')}" if names else "there is nothing to choose from"


def split_warning(warning: str) -> tuple[str, str]:
    """Split a warning of a result, "code: sentence", into the two."""
    code, _, message = warning.partition(": ")
    return code, message


def join_names(names: Iterable[object], joining_word: str = "and", max_names: int = 24) -> str:
    """Join names as 'a, b and c'; from `max_names` on the others are only counted."""
    items = [str(name) for name in names]
    if len(items) > max_names:
        return ", ".join(items[:max_names]) + f" {joining_word} {len(items) - max_names} more"
    return f"{', '.join(items[:-1])} {joining_word} {items[-1]}" if len(items) > 1 else "".join(items)


def pluralize(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: '1 key', '2 keys'."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def there_are(count: int, noun: str, plural: str = "") -> str:
    """Return that so many things are there: 'there is 1 key', 'there are 2 keys'."""
    return f"there {'is' if count == 1 else 'are'} {pluralize(count, noun, plural)}"


def shorten(text: str, max_length: int = 120) -> str:
    """Shorten a name for a message: the middle of a very long one is left out."""
    return text if len(text) <= max_length else f"{text[: max_length // 2]}…{text[-max_length // 2 :]}"


def quote_name(name: str) -> str:
    """Return a name from a file in quotation marks, shortened where it is long."""
    return repr(printable(shorten(name)))


def quote_value(value: object) -> str:
    """Return a value for a message, as JSON calls it or as Python writes it, shortened where it is long or deep."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "an object" if value else "an empty object"
    if isinstance(value, list | tuple) and len(value) == 0:
        return "an empty list"
    limits = reprlib.Repr()
    limits.maxstring = limits.maxother = limits.maxlong = 120
    try:
        return limits.repr(value)
    except Exception:  # an integer of thousands of digits, or what a foreign object raises
        return f"a value of type {type(value).__name__}"


# ── characters ───────────────────────────────────────────────────────────────────────────────────
_CONTROL_PICTURES = {"\n": "↵", "\r": "␍", "\t": "⇥", "\x1b": "␛", "\x7f": "␡"}


def split_final_digits(name: str) -> tuple[str, str]:
    """Split a name into what stands before the digits at its end, and these: `d12` into `d` and `12`.

    A regular expression would look at a long row of digits from each of them on.
    """
    stem = name.rstrip("0123456789")
    return stem, name[len(stem) :]


def printable(text: str) -> str:
    """Make untrusted text safe to print: it stays on one line, and no control or direction character takes effect."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\u00a0\u3000" else _visible_character(c) for c in text)


def _visible_character(character: str) -> str:
    if character in _CONTROL_PICTURES:
        return _CONTROL_PICTURES[character]
    if ord(character) < 0x20:
        return chr(0x2400 + ord(character))  # U+2400 … are the pictures of the control characters
    return json_escape(character)


# Characters of the categories Cc, Cf, Cs, Zl and Zp that JSON may hold as they are, and a terminal or an editor acts on:
# DEL and the C1 controls, joiners and direction marks, lone surrogates, annotations, tags. A test holds this to Unicode.
_CONTROL_CHARACTERS = re.compile(
    "[\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)


def replace_undecodable(name: str) -> str:
    """Return the name of a file as text that every format can hold: bytes that are no UTF-8 become U+FFFD."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def escape_json_controls(text: str) -> str:
    """Escape what a terminal would act on in JSON text, which stays the same value: `\\u009b` for a control sequence."""
    if text.isprintable():  # nearly always, and quickly seen
        return text
    return _CONTROL_CHARACTERS.sub(lambda match: json_escape(match[0]), text)


def to_ascii(text: str) -> str:
    """Spell text for a console that has no more than ASCII: our own symbols in words, others as JSON escapes them."""
    return text if text.isascii() else "".join(c if c.isascii() else _ascii_spelling(c) for c in text)


def _ascii_spelling(character: str) -> str:
    symbol = SYMBOLS.get(character)
    return symbol.ascii if symbol and symbol.ascii else json_escape(character)


def json_escape(character: str) -> str:
    """Escape one character as JSON does: `\\u00e9`, or two such units beyond the basic plane."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
