"""JSON: a problem, a bare matrix, or a list of tokens with embeddings; and JSON lines, a problem a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from attncli.errors import AttnError, InputError, Location, input_error, suggestion
from attncli.readers import Source, make_problem, reader
from attncli.types import Json

if TYPE_CHECKING:
    from attncli.types import Problem

_WHITESPACE = b" \t\r\n"
_TYPE_OF_KIND: Json = {"floats": float, "booleans": bool, "integers": int}


@reader("json", ".json")
def read_json(source: Source) -> Problem:
    """One JSON document."""
    from attncli.readers import decode_text

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
    """One line of JSON lines."""
    return read_json(source)


def read_json_lines(stream: Iterable[bytes], name: str) -> Iterator[tuple[int, Problem | AttnError]]:
    """JSON lines as they come in: (line number, its problem, or what is wrong with it). Blank lines are passed over."""
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
    """msgspec's decoder, with its complaint about the text turned into a place in it."""
    import msgspec

    try:
        return msgspec.json.decode(data, type=type)
    except msgspec.ValidationError as error:
        if type is not object:
            raise
        found = re.search(r"`\$(.*)`", str(error))  # nothing was asked of the text but that its numbers are numbers
        place = Location(path="$" + found.group(1) if found else "")
        raise InputError("not-finite", "a number is larger than a float64 can hold", location=place) from None
    except msgspec.DecodeError as error:
        raise _malformed_json_error(str(error), bytes(data)) from None


def _malformed_json_error(message: str, data: bytes) -> InputError:
    found = re.search(r"\(byte (\d+)\)", message)
    at = min(int(found.group(1)), len(data)) if found else len(data)
    what = message.removeprefix("JSON is malformed: ").partition(" (byte")[0]
    if "truncated" in message:
        at, what = len(data.rstrip(_WHITESPACE)), "the text ends in the middle"
    number = data.count(b"\n", 0, at) + 1
    start = data.rfind(b"\n", 0, at) + 1
    line = data[start:].split(b"\n", 1)[0].decode("utf-8", "replace")
    column = len(data[start:at].decode("utf-8", "replace"))
    first = max(0, column - 60)  # a line of a megabyte is shown around the fault alone
    place = Location(line=number, column=column + 1, source_lines=((number, line[first : column + 20]),), caret_width=1)
    hint = (
        'JSON has no NaN or Infinity: write "NaN", "Infinity" or "-Infinity", in quotes'
        if re.match(rb"-?(NaN|Inf|nan|inf)", data[max(0, at - 1) : at + 9].lstrip(b"[, :"))
        else ""
    )
    return InputError("bad-json", f"this is no JSON: {what}", location=place, help=hint)


def _decode_fields(data: bytes) -> Json:
    """A JSON object → fields; arrays of numbers as fast as msgspec reads them."""
    import msgspec

    from attncli.types import NESTED_FIELDS

    raw: Json = _decode_json(data, dict[str, msgspec.Raw])
    _check_duplicate_keys(data)
    out: Json = {}
    for name, text in raw.items():
        if name == "schema":
            return {name: _decode_json(bytes(text))}
        if name in NESTED_FIELDS and bytes(memoryview(text)[:1]) == b"{":
            inner: Json = _decode_json(bytes(text), dict[str, msgspec.Raw])
            out[name] = {k: _decode_field(memoryview(v), f"{name}.{k}", data) for k, v in inner.items()}
        elif name in NESTED_FIELDS:
            raise input_error("wrong-type", f"{name} is an object, not {_decode_json(bytes(text))!r:.40}", name)
        else:
            out[name] = _decode_field(memoryview(text), name, data)
    return out


def _check_duplicate_keys(data: bytes) -> None:
    """A key that stands twice; looked for in files of a size that people write."""
    import json

    def pairs(items: list[tuple[str, object]]) -> None:
        names = [name for name, _ in items]
        for name in names:
            if names.count(name) > 1:
                raise InputError("two-sources", f"{name!r} stands twice in one object", help="take one of them out")

    if len(data) < 1 << 20:
        json.loads(data.decode("utf-8-sig"), object_pairs_hook=pairs)


def _decode_field(text: memoryview, name: str, document_text: bytes) -> object:
    from attncli.validation.fields import find_field

    kind = find_field(name).kind
    if bytes(text[:5]) == b"null" and kind != "any":
        raise input_error("wrong-type", f"{name} is null", name, help="leave it out, or give its value")
    try:
        return _decode_array(text, kind) if kind in _TYPE_OF_KIND else _decode_json(text)
    except InputError as error:
        if error.location.path:
            error.location = replace(error.location, path=f"$.{name}{error.location.path[1:]}")
        if error.code == "bad-json" and error.location.column:  # found in a part: say where in the whole
            at = document_text.find(bytes(text)) + error.location.column - 1
            raise _malformed_json_error(
                f"{error.message.removeprefix('this is no JSON: ')} (byte {at})", document_text
            ) from None
        raise


def _decode_array(text: bytes | memoryview, kind: str) -> object:
    """Nested lists of one kind of leaf, typed by how deep they open, as an array; what does not fit is left to the gate to name."""
    import msgspec
    import numpy as np

    depth = 0
    for c in text:
        if c == ord("["):
            depth += 1
        elif c not in _WHITESPACE:
            break
    leaf: Any = _TYPE_OF_KIND[kind]
    for _ in range(min(depth, 6)):
        leaf = list[leaf]
    try:
        value = _decode_json(text, leaf)
    except msgspec.ValidationError:
        return _decode_json(text)
    try:
        return np.array(value, _TYPE_OF_KIND[kind]) if depth else value
    except (ValueError, OverflowError):  # ragged, or an integer of more than 64 bits
        return value


def _fields_from_tokens(items: list[object]) -> Json:
    """[{"token": "a", "embedding": […]}, …]"""
    tokens, vectors = [], []
    for i, item in enumerate(items):
        place = Location(path=f"$[{i}]")
        if not isinstance(item, dict) or "embedding" not in item:
            raise InputError(
                "missing-field",
                f"item {i} has no embedding",
                location=place,
                help='an item is {"token": "cat", "embedding": [0.1, 0.2]}',
            )
        for key in item:
            if key not in ("token", "embedding"):
                raise InputError(
                    "unknown-field",
                    f"a token has no field {key!r}",
                    location=place,
                    help=suggestion(key, ["token", "embedding"]),
                )
        tokens.append(item.get("token"))
        vectors.append(item["embedding"])
    named = [t for t in tokens if t is not None]
    if named and len(named) < len(tokens):
        raise InputError(
            "missing-field",
            f"item {tokens.index(None)} has no token, but others have",
            location=Location(path=f"$[{tokens.index(None)}]"),
        )
    return {"embeddings": vectors} | ({"tokens": tokens} if named else {})
