"""Validate what a problem says of itself for the sake of its result: `id` and `meta`, which are carried along unchanged.

They are untrusted, and are written with every result: so they are bounded, and hold what JSON can hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from attncli.errors import InputError, input_error
from attncli.text import pluralize, quote_value, shorten

MAX_ID_CHARACTERS = 1024
_MAX_META_CHARACTERS = 2**20  # of all its texts, keys and numbers
_MAX_META_VALUES = 2**16
_MAX_META_DEPTH = 64  # objects and lists within each other
_MAX_INTEGER_BITS = 14_000  # Python writes an integer of up to 4300 digits


def validate_id(value: object) -> str | float:
    """Return the value of `id`: a text or a finite number.

    Raises:
        InputError: it is neither, too long, or no text of Unicode.
    """
    if isinstance(value, str):
        if len(value) > MAX_ID_CHARACTERS:
            message = f"id has {len(value)} characters, and at most {MAX_ID_CHARACTERS} are carried along"
            raise input_error("too-long", message, "id", help="a longer text goes into meta")
        _check_text(value, "id")
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(value, "id")
        return value
    raise input_error(
        "wrong-type", f"id is a text or a number, not {quote_value(value)}", "id", help="an object goes into meta"
    )


def validate_meta(value: object) -> dict[str, object]:
    """Return the value of `meta`: an object of whatever JSON can hold.

    Raises:
        InputError: it is no object, holds what JSON cannot, or is too large or nested too deep.
    """
    if not isinstance(value, Mapping):
        hint = '"meta": {"note": …}'
        raise input_error("wrong-type", f"meta is an object, not {quote_value(value)}", "meta", help=hint)
    meta = dict(value)
    count = size = 0
    waiting: list[tuple[object, str, int]] = [(meta, "meta", 1)]
    while waiting:
        item, name, depth = waiting.pop()
        count, size = count + 1, size + _count_characters(item, name)
        if depth > _MAX_META_DEPTH:
            raise input_error("too-deep", f"meta is nested deeper than {_MAX_META_DEPTH} levels", "meta")
        if isinstance(item, dict):
            size += sum(_count_characters(key, name, is_key=True) for key in item)
            waiting += [(inner, f"{name}.{shorten(key, 40)}", depth + 1) for key, inner in item.items()]
        elif isinstance(item, list | tuple):
            waiting += [(inner, name, depth + 1) for inner in item]
        if count > _MAX_META_VALUES or size > _MAX_META_CHARACTERS:
            raise _too_large_error()
    return meta


def _count_characters(value: object, name: str, *, is_key: bool = False) -> int:
    """Return how many characters a key, a text or a number has, once it is known that JSON can hold it.

    Raises:
        InputError: JSON cannot.
    """
    if isinstance(value, str):
        _check_text(value, name)
        return len(value)
    if is_key:
        raise input_error("wrong-type", f"{name} has the key {quote_value(value)}, which is no text", name)
    if value is None or isinstance(value, bool):
        return 0
    if isinstance(value, int | float):
        _check_number(value, name)
        return value.bit_length() // 3 if isinstance(value, int) else 8
    if not isinstance(value, dict | list | tuple):
        message = f"{name} holds what JSON cannot: {quote_value(value)}"
        raise input_error("wrong-type", message, name, help="texts, numbers, true, false, null, lists and objects")
    return 0


def _check_text(text: str, name: str) -> None:
    """Check that a text is one of Unicode.

    Raises:
        InputError: it holds half a character.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise input_error("wrong-encoding", f"{name} holds half a character, which no text does", name) from None


def _check_number(number: float, name: str) -> None:
    """Check that JSON can hold a number.

    Raises:
        InputError: it is not finite, or has thousands of digits.
    """
    if isinstance(number, int):
        if number.bit_length() > _MAX_INTEGER_BITS:
            raise input_error("too-long", f"{name} holds an integer of thousands of digits", name)
    elif not math.isfinite(number):
        raise input_error("not-finite", f"{name} holds {number}, which JSON cannot", name, help="leave it out")


def _too_large_error() -> InputError:
    values = pluralize(_MAX_META_VALUES, "value")
    message = f"meta is larger than what is carried along: {values}, and {_MAX_META_CHARACTERS} characters"
    return input_error("too-long", message, "meta", help="keep it elsewhere, by the problem's id")
