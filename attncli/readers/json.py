"""Read JSON: a problem, a bare matrix, or a list of tokens with embeddings; and JSON lines, a problem a line.

Entries: `read_json`, `read_json_lines`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from attncli.errors import AttnError, InputError, Location, input_error
from attncli.readers.base import Source, decode_text, make_problem, reader
from attncli.text import suggestion
from attncli.types import NESTED_FIELDS, Json, Problem

_WHITESPACE = b" \t\r\n"
_MAX_BYTES_FOR_DUPLICATES = 2**20  # beyond, looking for keys that occur twice would cost more than reading
_TYPE_OF_KIND: Json = {"floats": float, "booleans": bool, "integers": int}


@reader("json", ".json")
def read_json(source: Source) -> Problem:
    """Read one JSON document."""
    data = source.data.removeprefix(b"\xef\xbb\xbf")
    head = data.lstrip(_WHITESPACE)[:1]
    if not head:
        raise InputError("empty", "the file is empty", help='a problem is {"embeddings": [[1, 0], [0, 1]]}')
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:64]:
        decode_text(data, format_name="JSON")
    try:
        if head == b"{":
            return make_problem(_decode_fields(data))
        if head == b"[" and data.lstrip(_WHITESPACE)[1:].lstrip(_WHITESPACE)[:1] == b"{":
            return make_problem(_fields_from_tokens(_decode_json(data)))
        if head == b"[":
            return make_problem({"embeddings": _decode_array(data, "floats")})
        value = _decode_json(data)
    except RecursionError:
        raise InputError("too-deep", "the JSON is nested deeper than anything a problem holds") from None
    except UnicodeDecodeError:
        decode_text(data, format_name="JSON")
        raise
    raise InputError("wrong-type", f"a problem is an object or a list, not {value!r}")


@reader("ndjson", ".ndjson", ".jsonl", is_stream=True)
def read_json_line(source: Source) -> Problem:
    """Read one line of JSON lines."""
    return read_json(source)


def read_json_lines(stream: Iterable[bytes], name: str) -> Iterator[tuple[int, Problem | AttnError]]:
    """Yield JSON lines as they come in: the line's number, and its problem or what is wrong with it. Blank lines are skipped."""
    from attncli.validation import validate

    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            yield number, validate(read_json_line(Source(name, line.rstrip(b"\r\n"))), name)
        except AttnError as error:
            error.location = Location(name, number, error.location.column, error.location.path)
            yield number, error


def _decode_json(data: bytes | memoryview, type: object = object) -> Any:
    """Decode JSON with msgspec.

    Raises:
        InputError: it is no JSON; with the place.
        msgspec.ValidationError: it is not of the type, where one is given.
    """
    import msgspec

    try:
        return msgspec.json.decode(data, type=type)
    except msgspec.ValidationError as error:
        if type is not object:
            raise
        match = re.search(r"`\$(.*)`", str(error))  # without a type nothing can be wrong but the size of a number
        location = Location(path="$" + match.group(1) if match else "")
        raise InputError("not-finite", "a number is larger than a float64 can hold", location=location) from None
    except msgspec.DecodeError as error:
        raise _malformed_json_error(str(error), bytes(data)) from None


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
    import msgspec

    raw: Json = _decode_json(data, dict[str, msgspec.Raw])
    _check_duplicate_keys(data)
    fields: Json = {}
    for name, text in raw.items():
        if name == "schema":
            return {name: _decode_json(bytes(text))}
        if name in NESTED_FIELDS and bytes(memoryview(text)[:1]) == b"{":
            inner: Json = _decode_json(bytes(text), dict[str, msgspec.Raw])
            fields[name] = {key: _decode_field(memoryview(v), f"{name}.{key}", data) for key, v in inner.items()}
        elif name in NESTED_FIELDS:
            raise input_error("wrong-type", f"{name} is an object, not {_decode_json(bytes(text))!r:.40}", name)
        else:
            fields[name] = _decode_field(memoryview(text), name, data)
    return fields


def _check_duplicate_keys(data: bytes) -> None:
    """Check that no object has a key twice, in files of a size that people write.

    Raises:
        InputError: one has.
    """
    import json

    def check_object(pairs: list[tuple[str, object]]) -> None:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise InputError("two-sources", f"{key!r} stands twice in one object", help="take one of them out")

    if len(data) < _MAX_BYTES_FOR_DUPLICATES:
        json.loads(data.decode("utf-8-sig"), object_pairs_hook=check_object)


def _decode_field(text: memoryview, name: str, document: bytes) -> object:
    """Decode the value of one field, which is a part of a document.

    Raises:
        InputError: it is no JSON; with the place in the whole document.
    """
    from attncli.validation.fields import find_field

    kind = find_field(name).kind
    if bytes(text[:5]) == b"null" and kind != "any":
        raise input_error("wrong-type", f"{name} is null", name, help="leave it out, or give its value")
    try:
        return _decode_array(text, kind) if kind in _TYPE_OF_KIND else _decode_json(text)
    except InputError as error:
        if error.location.path:
            error.location = replace(error.location, path=f"$.{name}{error.location.path[1:]}")
        if error.code == "bad-json" and error.location.column:
            offset = document.find(bytes(text)) + error.location.column - 1
            reason = error.message.removeprefix("this is no JSON: ")
            raise _malformed_json_error(f"{reason} (byte {offset})", document) from None
        raise


def _decode_array(text: bytes | memoryview, kind: str) -> object:
    """Decode nested lists, typed by how deep they open, as an array; what does not fit is left for validation to name."""
    import msgspec
    import numpy as np

    depth = 0
    for byte in text:
        if byte == ord("["):
            depth += 1
        elif byte not in _WHITESPACE:
            break
    nested_type: Any = _TYPE_OF_KIND[kind]
    for _ in range(min(depth, 6)):
        nested_type = list[nested_type]
    try:
        value = _decode_json(text, nested_type)
    except msgspec.ValidationError:
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
                    f"a token has no field {key!r}",
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
