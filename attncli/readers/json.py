"""Read JSON: a problem, a bare matrix, or a list of tokens with embeddings; and JSON lines, a problem a line.

Entries: `read_json`, `read_json_lines`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from attncli.errors import AttnError, InputError, Location, input_error
from attncli.readers.base import (
    READERS,
    Source,
    bare_record_error,
    check_duplicate_keys,
    decode_text,
    is_bare_record,
    make_problem,
    reader,
    translate_parser_errors,
)
from attncli.text import quote_value, shorten, suggestion
from attncli.types import NESTED_FIELDS, Json, Problem

_WHITESPACE = b" \t\r\n"
_TYPE_OF_KIND: Json = {"floats": float, "booleans": bool, "integers": int}


@reader("json", ".json", is_text=True)
def read_json(source: Source) -> Problem:
    """Read one JSON document."""
    data = source.data.removeprefix(b"\xef\xbb\xbf")
    head = data.lstrip(_WHITESPACE)[:1]
    if not head:
        raise InputError("empty", "the file is empty", help='a problem is {"embeddings": [[1, 0], [0, 1]]}')
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:64]:
        decode_text(data, format_name="JSON")
    if head == b"{":
        return make_problem(_decode_fields(data))
    if re.match(rb"\s*\[\s*\{", data):
        return make_problem(_fields_from_tokens(_decode_objects(data)))
    if head == b"[":
        return make_problem({"embeddings": _decode_array(data, "floats")})
    raise InputError("wrong-type", f"a problem is an object or a list, not {quote_value(_decode_json(data))}")


@reader("ndjson", ".ndjson", ".jsonl", is_stream=True, is_text=True)
def read_json_line(source: Source) -> Problem:
    """Read one line of JSON lines."""
    return read_json(source)


def read_json_lines(stream: Iterable[bytes], name: str) -> Iterator[tuple[int, Problem | AttnError]]:
    """Yield JSON lines as they come in: the line's number, and its problem or what is wrong with it. Blank lines are skipped."""
    from attncli.readers.read import parse_problem

    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            yield number, parse_problem(line.rstrip(b"\r\n"), name, READERS["ndjson"], line=number)
        except AttnError as error:
            error.location = Location(name, number, error.location.column, error.location.path)
            error.identity = _find_identity(line)
            yield number, error


def _find_identity(line: bytes) -> Json:
    """Return `id` and `meta` of a line that holds no problem, where they can be read and carried along."""
    import msgspec

    from attncli.validation.identification import validate_id, validate_meta

    identity: Json = {}
    for name, validate in (("id", validate_id), ("meta", validate_meta)):
        with suppress(msgspec.DecodeError, RecursionError, InputError):
            found = msgspec.json.decode(line, type=msgspec.defstruct("Line", [(name, Any, None)]))
            if (value := getattr(found, name)) is not None:
                identity[name] = validate(value)
    return identity


def _decode_json(data: bytes, type: object = object) -> Any:
    """Decode JSON with msgspec.

    Raises:
        InputError: it is no JSON; with the place.
        _WrongTypeError: it is not of the type, where one is given.
    """
    import msgspec

    with translate_parser_errors("bad-json", "this JSON cannot be read"):
        try:
            return msgspec.json.decode(data, type=type)
        except RecursionError:
            raise InputError("too-deep", "the JSON is nested deeper than anything a problem holds") from None
        except UnicodeDecodeError:
            decode_text(bytes(data), format_name="JSON")
            raise
        except msgspec.ValidationError as error:
            if type is object:
                raise _number_size_error(str(error)) from None
        except msgspec.DecodeError as error:
            raise _malformed_json_error(str(error), bytes(data)) from None
    raise _WrongTypeError


class _WrongTypeError(Exception):
    """Raised where JSON is well-formed, and not of the type that it was decoded as."""


def _number_size_error(message: str) -> InputError:
    """Make the error for a number that is too large: without a type, nothing else can be wrong."""
    match = re.search(r"`\$(.*)`", message)
    location = Location(path="$" + match.group(1) if match else "")
    if "Integer" in message:
        return InputError("not-finite", "an integer has thousands of digits, more than are read", location=location)
    return InputError("not-finite", "a number is larger than a float64 can hold", location=location)


def _malformed_json_error(message: str, data: bytes) -> InputError:
    """Make the error for text that is no JSON, from the decoder's message."""
    match = re.search(r"\(byte (\d+)\)", message)
    offset = min(int(match.group(1)), len(data)) if match else len(data)
    reason = message.removeprefix("JSON is malformed: ").partition(" (byte")[0]
    if "truncated" in message:
        offset, reason = len(data.rstrip(_WHITESPACE)), "the text ends in the middle"
    line_number = data.count(b"\n", 0, offset) + 1
    line_start = data.rfind(b"\n", 0, offset) + 1
    line = data[line_start:].split(b"\n", 1)[0].decode("utf-8", "replace")
    column = len(data[line_start:offset].decode("utf-8", "replace"))
    excerpt = line[max(0, column - 60) : column + 20]  # a line may be a megabyte long
    location = Location(line=line_number, column=column + 1, source_lines=((line_number, excerpt),), caret_width=1)
    is_nonfinite = re.match(rb"-?(NaN|Inf|nan|inf)", data[max(0, offset - 1) : offset + 9].lstrip(b"[, :"))
    hint = 'JSON has no NaN or Infinity: write "NaN", "Infinity" or "-Infinity", in quotes' if is_nonfinite else ""
    return InputError("bad-json", f"this is no JSON: {reason}", location=location, help=hint)


def _decode_fields(data: bytes) -> Json:
    """Decode a JSON object as fields by name, with arrays of numbers as numpy arrays.

    Raises:
        InputError: it is no JSON, has a key twice, or a value is not of its field's kind.
    """
    fields: Json = {}
    members = _decode_members(data)
    if is_bare_record(members):
        raise bare_record_error("not-a-problem")
    for name, text in members.items():
        if name == "schema":
            return {name: _decode_json(text)}
        if name in NESTED_FIELDS and text.startswith(b"{"):
            fields[name] = {
                key: _decode_field(inner, f"{name}.{key}", data) for key, inner in _decode_members(text).items()
            }
        elif name in NESTED_FIELDS:
            raise input_error("wrong-type", f"{name} is an object, not {quote_value(_decode_json(text))}", name)
        else:
            fields[name] = _decode_field(text, name, data)
    return fields


def _decode_members(text: bytes) -> dict[str, bytes]:
    """Decode one object: key → the text of its value.

    Raises:
        InputError: it is no JSON, or has a key twice.
    """
    import msgspec

    try:
        raw: dict[str, msgspec.Raw] = _decode_json(text, dict[str, msgspec.Raw])
    except _WrongTypeError:
        raise InputError("bad-json", "this JSON cannot be read as an object") from None
    members = {key: bytes(value) for key, value in raw.items()}
    # Each member has a colon. Where some are left over, a key stands twice, or has an escaped colon in it.
    colon_count = len(members) + sum(value.count(b":") for value in members.values())
    if text.count(b":") != colon_count or any(":" in key for key in members):
        check_duplicate_keys(text)
    return members


def _decode_objects(data: bytes) -> list[object]:
    """Decode a list of objects with texts and numbers in them.

    Raises:
        InputError: it is no JSON, or an object has a key twice.
    """
    items: list[object] = _decode_json(data)
    colon_count = 0
    for item in items:
        if isinstance(item, dict):
            colon_count += len(item) + sum(value.count(":") for value in item.values() if isinstance(value, str))
    if data.count(b":") != colon_count or b"\\u003" in data:  # an escaped colon
        check_duplicate_keys(data)
    return items


def _decode_field(text: bytes, name: str, document: bytes) -> object:
    """Decode the value of one field, which is a part of a document.

    Raises:
        InputError: it is no JSON, or an object in it has a key twice; with the place in the whole document.
    """
    from attncli.validation.fields import find_field

    kind = find_field(name).kind
    if text == b"null" and kind != "any":
        raise input_error("wrong-type", f"{name} is null", name, help="leave it out, or give its value")
    try:
        if kind in _TYPE_OF_KIND:
            return _decode_array(text, kind)
        value = _decode_json(text)
        if b"{" in text:
            check_duplicate_keys(text)
        return value
    except InputError as error:
        if not error.location.line:
            error.location = replace(error.location, path=f"$.{name}{error.location.path[1:]}")
        if error.code == "bad-json" and error.location.column:
            offset = document.find(text) + error.location.column - 1
            reason = error.message.removeprefix("this is no JSON: ")
            raise _malformed_json_error(f"{reason} (byte {offset})", document) from None
        raise


def _decode_array(text: bytes, kind: str) -> object:
    """Decode nested lists, typed by how deep they open, as an array; what does not fit is left for validation to name."""
    import numpy as np

    opening = re.match(rb"[\[\s]*", text)
    depth = opening.group().count(b"[") if opening else 0
    nested_type: Any = _TYPE_OF_KIND[kind]
    for _ in range(min(depth, 6)):
        nested_type = list[nested_type]
    try:
        value = _decode_json(text, nested_type)
    except _WrongTypeError:
        return _decode_json(text)
    try:
        return np.array(value, _TYPE_OF_KIND[kind]) if depth else value
    except (ValueError, OverflowError):  # ragged, or an integer of more than 64 bits
        return value


def _fields_from_tokens(items: list[object]) -> Json:
    """Turn `[{"token": "a", "embedding": […]}, …]` into fields.

    Raises:
        InputError: an item has no embedding, or another key; or some have a token, and others have not.
    """
    tokens, vectors = [], []
    for i, item in enumerate(items):
        location = Location(path=f"$[{i}]")
        if not isinstance(item, dict) or "embedding" not in item:
            raise InputError(
                "missing-field",
                f"item {i} has no embedding",
                location=location,
                help='an item is {"token": "cat", "embedding": [0.1, 0.2]}',
            )
        for key in item:
            if key not in ("token", "embedding"):
                raise InputError(
                    "unknown-field",
                    f"a token has no field {shorten(key)!r}",
                    location=location,
                    help=suggestion(key, ["token", "embedding"]),
                )
        tokens.append(item.get("token"))
        vectors.append(item["embedding"])
    token_count = len(tokens) - tokens.count(None)
    if 0 < token_count < len(tokens):
        raise InputError(
            "missing-field",
            f"item {tokens.index(None)} has no token, but others have",
            location=Location(path=f"$[{tokens.index(None)}]"),
        )
    return {"embeddings": vectors, "tokens": tokens} if token_count else {"embeddings": vectors}
