"""Read JSON: a problem, a bare matrix, or a table of tokens with vectors; and JSON lines, a problem or a token a line.

Entries: `read_json`, `read_json_lines`; `find_line_format` tells which of the two JSON lines are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from types import GenericAlias
from typing import TYPE_CHECKING, Any, TypeGuard

from attncli.errors import AttnError, InputError, Location, input_error
from attncli.readers.base import (
    READERS,
    bare_record_error,
    check_duplicate_keys,
    decode_text,
    is_bare_record,
    make_problem,
    reader,
)
from attncli.readers.json_nested import explain_nested_vectors, explain_no_table, name_matrix
from attncli.readers.json_shapes import (
    check_finite_values,
    expand_embeddings,
    find_table,
    is_problem,
    is_token,
    table_of_tokens,
)
from attncli.readers.json_tables import is_labelled_row
from attncli.readers.parser_errors import translate_parser_errors
from attncli.readers.source import Source
from attncli.text import quote_value, shorten
from attncli.types import INPUT_NAMES, NESTED_FIELDS, Json, Problem

if TYPE_CHECKING:
    import msgspec

_WHITESPACE = b" \t\r\n"
_MAX_TOKEN_BYTES = 2**22  # of a line; a vector of a hundred thousand numbers takes less
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
    try:
        if head == b"{":
            return _read_object(data, source)
        if re.match(rb'\s*\[\s*(\{|"|\[\s*")', data):
            return _read_list(_decode_objects(data), source)
        if head == b"[":
            embeddings = _decode_array(data, "floats")
            _check_is_no_token(embeddings.tolist() if getattr(embeddings, "ndim", 0) == 1 else None, source)
            return (
                _read_list(embeddings, source)
                if isinstance(embeddings, list)
                else make_problem({"embeddings": embeddings})
            )
        raise InputError("wrong-type", f"a problem must be an object or a list, not {quote_value(_decode_json(data))}")
    except _NonfiniteError:
        return _read_with_nonfinite(data, source)
    except InputError as error:
        if error.code == "bad-json" and source.format == "json":
            error.help = _way_out_of_lines(data, source) or error.help
        raise


def _way_out_of_lines(data: bytes, source: Source) -> str:
    """Return how to read a document whose lines are documents each; nothing where they are not."""
    first, _, rest = data.strip(_WHITESPACE).partition(b"\n")
    if not rest.lstrip(_WHITESPACE).startswith((b"{", b"[")) or len(first) > _MAX_TOKEN_BYTES:
        return ""
    try:
        _decode_line(first)
    except AttnError:
        return ""
    return f"these are JSON lines: {source.spell_format(find_line_format(first))}"


def _check_is_no_token(value: object, source: Source) -> None:
    """Check that a line of JSON lines is no token, where each holds a problem.

    Raises:
        InputError: it is one.
    """
    if source.format == "ndjson" and is_token(value):
        raise InputError(
            "two-readings",
            "this line is one token with its vector, where a problem is expected: is each line a token, or a problem of one token?",
            help='--input-format ndjson-tokens reads one token per line; a problem has embeddings: {"embeddings": [[0.1, 0.2]]}',
        )


def _read_object(data: bytes, source: Source) -> Problem:
    """Read an object: a problem, or a table of tokens and vectors."""
    members = _decode_members(data)
    value = None
    try:
        if not is_problem(members):
            check_duplicate_keys(data)
            value = _decode_json(data)
            _check_is_no_token(value, source)
            table = find_table(value, source)
            if table is not None:
                return _make_problem_of_table(*table.to_fields(source), source)
        fields = _decode_fields(members, data)
        return _make_expanded_problem(fields, source)
    except InputError as error:
        if value is not None and error.code in _CODES_OF_NESTED:
            error.help = explain_nested_vectors(value, is_line=source.format == "ndjson") or error.help
            if error.help.startswith("it can be about"):  # it has no field of a problem at all
                error.help = explain_no_table(value)
            elif _is_of_other_names(value) and "did you mean" not in error.help:
                error.help = name_matrix(value) or error.help
        raise


def _is_of_other_names(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict) and not value.keys() & set(INPUT_NAMES)


# Of errors that say what a value is not, where its vectors may stand deeper.
_CODES_OF_NESTED = ("unknown-field", "unclear-columns", "not-a-number", "missing-field")


def _read_list(items: list[object], source: Source) -> Problem:
    """Read a list of objects or of lists that begin with a text: a table, or else numbers that are mistyped."""
    _check_is_no_token(items, source)
    table = find_table(items, source)
    if table is None:
        return make_problem({"embeddings": items})
    return _make_problem_of_table(*table.to_fields(source), source)


def _make_problem_of_table(fields: Json, note: str, source: Source) -> Problem:
    return replace(make_problem(fields), notes=(f"{source.name}: {note}",))


def _make_expanded_problem(fields: Json, source: Source) -> Problem:
    """Make a problem, whose `embeddings` may be a table of tokens and vectors.

    Raises:
        InputError: there are tokens in the table and beside it.
    """
    expanded = None
    if isinstance(fields.get("embeddings"), dict | list) and "schema" not in fields:
        expanded = expand_embeddings(fields["embeddings"], source)
    if expanded is None:
        return make_problem(fields)
    table, note = expanded
    if "tokens" in table and "tokens" in fields:
        raise input_error(
            "two-sources", "the tokens are both in embeddings and in tokens", "tokens", help="remove one of them"
        )
    return _make_problem_of_table(fields | table, note, source)


def find_line_format(line: bytes) -> str:
    """Return the format of JSON lines by the first of them: a token with its vector a line, or a problem, as what is no JSON."""
    if not re.match(rb"[\s\xef\xbb\xbf]*[\[{]", line) or len(line) > _MAX_TOKEN_BYTES:
        return "ndjson"
    try:
        is_tokens = is_token(_decode_line(line.removeprefix(b"\xef\xbb\xbf")))
    except AttnError:
        return "ndjson"
    return "ndjson-tokens" if is_tokens else "ndjson"


@reader("ndjson", ".ndjson", ".jsonl", is_stream=True, find_format=find_line_format, is_text=True)
def read_json_line(source: Source) -> Problem:
    """Read one line of JSON lines, which holds a problem."""
    return read_json(source)


@reader("ndjson-tokens", is_text=True, holds_one_array=True)
def read_token_lines(source: Source) -> Problem:
    """Read JSON lines of which each is a token with its vector."""
    values: list[object] = []
    lines: list[int] = []
    for number, line in enumerate(source.data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            value = _decode_line(line)
        except InputError as error:
            shown = tuple((number, text) for _, text in error.location.source_lines)
            error.location = replace(error.location, line=number, source_lines=shown)
            raise
        if not is_token(value) and not is_labelled_row(value):
            raise InputError(
                "wrong-type",
                "this line is not a token with its vector, unlike the lines before",
                location=Location(line=number),
                help='a line is {"token": "cat", "embedding": [0.1, 0.2]}',
            )
        values.append(value)
        lines.append(number)
    if not values:
        raise InputError("empty", "the file is empty", help='a line is {"token": "cat", "embedding": [0.1, 0.2]}')
    table = table_of_tokens(values)
    if table is None:
        raise InputError(
            "wrong-type", "some lines are objects and some are lists", help="give every line the same form"
        )
    return _make_problem_of_table(*table.to_fields(source), source)


def _decode_line(line: bytes) -> object:
    """Decode one line, which may hold NaN and Infinity.

    Raises:
        InputError: it is no JSON, or an object in it has a key twice.
    """
    try:
        value = _decode_json(line)
    except _NonfiniteError:
        return _decode_with_nonfinite(line)
    if b"{" in line:
        check_duplicate_keys(line)
    return value


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
    """Decode JSON with msgspec, as a value of a type where one is given.

    Raises:
        InputError: it is no JSON; with the place.
        _WrongTypeError: it is not of the type, where one is given.
    """
    import msgspec

    try:
        return msgspec.json.decode(data) if type is object else _decoder_of(type).decode(data)
    except msgspec.ValidationError as error:
        if type is not object:
            raise _WrongTypeError from None
        raise _number_size_error(str(error)) from None
    except Exception as error:
        raise _decoding_error(error, data) from None


@cache
def _decoder_of(type: object) -> msgspec.json.Decoder[object]:
    """Return what decodes JSON as values of a type."""
    import msgspec

    return msgspec.json.Decoder[object](type)


def _decoding_error(error: Exception, data: bytes) -> AttnError:
    """Make the error for text that is no JSON, from what the decoder raised.

    Raises:
        CannotError: it does not fit in memory.
    """
    import msgspec

    try:
        with translate_parser_errors("bad-json", "this JSON cannot be read"):
            if isinstance(error, RecursionError):
                raise InputError("too-deep", "the JSON is nested deeper than anything a problem holds")
            if isinstance(error, UnicodeDecodeError):
                decode_text(bytes(data), format_name="JSON")
            if isinstance(error, msgspec.DecodeError):
                raise _malformed_json_error(str(error), bytes(data))
            raise error
    except AttnError as translated:
        return translated


class _WrongTypeError(Exception):
    """Raised where JSON is well-formed, and not of the type that it was decoded as."""


def _number_size_error(message: str) -> InputError:
    """Make the error for a number that is too large: without a type, nothing else can be wrong."""
    match = re.search(r"`\$(.*)`", message)
    location = Location(path="$" + match.group(1) if match else "")
    if "Integer" in message:
        return InputError("not-finite", "an integer has thousands of digits, more than are read", location=location)
    return InputError("not-finite", "a number is too large for float64", location=location)


def _malformed_json_error(message: str, data: bytes) -> InputError:
    """Make the error for text that is no JSON, from the decoder's message."""
    match = re.search(r"\(byte (\d+)\)", message)
    offset = min(int(match.group(1)), len(data)) if match else len(data)
    reason = message.removeprefix("JSON is malformed: ").partition(" (byte")[0]
    if "truncated" in message:
        offset, reason = len(data.rstrip(_WHITESPACE)), "the text ends in the middle"
    line_number = data.count(b"\n", 0, offset) + 1
    line_start = data.rfind(b"\n", 0, offset) + 1
    column = len(data[line_start:offset].decode("utf-8", "replace"))
    line_end = data.find(b"\n", offset)
    line = data[line_start : line_end if line_end >= 0 else len(data)][: offset - line_start + _SHOWN_BYTES]
    source_line = (line_number, line.decode("utf-8", "replace"))
    location = Location(line=line_number, column=column + 1, source_lines=(source_line,), caret_width=1)
    if _NONFINITE_PATTERN.match(data, offset):
        return _NonfiniteError("bad-json", f"this is not valid JSON: {reason}", location=location)
    return InputError(
        "bad-json", f"this is not valid JSON: {reason}", location=location, help=_way_out_of_python(data, offset)
    )


_SHOWN_BYTES = 200  # of a line behind the error in it
_NONFINITE_PATTERN = re.compile(rb"(NaN|-?Infinity)\b")
_PYTHON_PATTERN = re.compile(rb"'|\(|True\b|False\b|None\b|[\]}]")
_PYTHON_TO_JSON = (
    'python -c "import ast, json, sys; json.dump(ast.literal_eval(sys.stdin.read()), sys.stdout)" < FILE > NEW.json'
)


def _way_out_of_python(data: bytes, offset: int) -> str:
    """Return how to convert what looks like a value that Python has printed; nothing where it does not."""
    if re.match(rb"\s*(np\.)?(array|tensor|Tensor|Parameter)\(", data):
        return "this is what Python prints of an array: save it by numpy.save('x.npy', x), or print(json.dumps(x.tolist()))"
    before = data[max(0, offset - 1) : offset]
    if _PYTHON_PATTERN.match(data, offset) or before in (b".", b"'"):
        return f"this looks like Python, not JSON: {_PYTHON_TO_JSON}"
    return ""


class _NonfiniteError(InputError):
    """Raised where NaN or Infinity stands in JSON as Python writes it, without quotes."""


def _read_with_nonfinite(data: bytes, source: Source) -> Problem:
    """Read JSON in which NaN and Infinity stand without quotes. Whether a field may hold them, its validation says."""
    return make_problem_of_value(_decode_with_nonfinite(data), source)


def make_problem_of_value(value: object, source: Source) -> Problem:
    """Make a problem of a decoded list or object: a problem's fields, or a table of tokens and vectors.

    Raises:
        InputError: it is neither, or can be read in two ways.
    """
    if not isinstance(value, list | dict):
        raise InputError("wrong-type", f"a problem must be an object or a list, not {quote_value(value)}")
    _check_is_no_token(value, source)
    if isinstance(value, list):
        table = find_table(value, source)
        return (
            make_problem({"embeddings": value})
            if table is None
            else _make_problem_of_table(*table.to_fields(source), source)
        )
    if not is_problem(value):
        table = find_table(value, source)
        if table is not None:
            return _make_problem_of_table(*table.to_fields(source), source)
    for name in NESTED_FIELDS:
        if name in value and not isinstance(value[name], Mapping):
            raise input_error("wrong-type", f"{name} must be an object, not {quote_value(value[name])}", name)
    for name in ("about", "meta", "id"):
        check_finite_values(value.get(name), f"$.{name}")
    return _make_expanded_problem(value, source)


def _decode_with_nonfinite(data: bytes) -> object:
    """Decode JSON in which NaN and Infinity stand without quotes, by the standard library.

    Raises:
        InputError: it is no JSON beside these, an object has a key twice, or a number is too large.
    """
    import json

    check_duplicate_keys(data)
    with translate_parser_errors("bad-json", "this JSON cannot be read"):
        try:
            return json.loads(data, parse_float=_parse_finite_float, parse_int=_parse_integer)
        except json.JSONDecodeError as error:
            offset = len(error.doc[: error.pos].encode())
            raise _malformed_json_error(f"{error.msg} (byte {offset})", data) from None


def _parse_finite_float(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise InputError("not-finite", f"{shorten(text)} is too large for float64")
    return value


def _parse_integer(text: str) -> int:
    if len(text) > _MAX_INTEGER_DIGITS:
        raise InputError("not-finite", "an integer has thousands of digits, more than are read")
    return int(text)


_MAX_INTEGER_DIGITS = 4300  # as Python itself reads


def _decode_fields(members: dict[str, bytes], data: bytes) -> Json:
    """Decode the members of a JSON object as fields by name, with arrays of numbers as numpy arrays.

    Raises:
        InputError: it is no JSON, has a key twice, or a value is not of its field's kind.
    """
    fields: Json = {}
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
            raise input_error("wrong-type", f"{name} must be an object, not {quote_value(_decode_json(text))}", name)
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
    left_over = text.count(b":") - len(members)
    is_explained = not left_over or left_over == sum(value.count(b":") for value in members.values())
    if not is_explained or any(":" in key for key in members):
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
        value = _decode_array(text, kind) if kind in _TYPE_OF_KIND else _decode_json(text)
        if b"{" in text:
            check_duplicate_keys(text)
        return value
    except InputError as error:
        if not error.location.line:
            error.location = replace(error.location, path=f"$.{name}{error.location.path[1:]}")
        if error.code == "bad-json" and error.location.column:
            offset = document.find(text) + error.location.column - 1
            reason = error.message.removeprefix("this is not valid JSON: ")
            raise _malformed_json_error(f"{reason} (byte {offset})", document) from None
        raise


@cache
def _nested_type(kind: str, depth: int) -> object:
    """Return the type of lists within each other, so many, of values of a kind."""
    return GenericAlias(list, (_nested_type(kind, depth - 1),)) if depth else _TYPE_OF_KIND[kind]


def _decode_array(text: bytes, kind: str) -> Any:
    """Decode nested lists, typed by how deep they open, as an array; what does not fit is left for validation to name."""
    import numpy as np

    opening = re.match(rb"[\[\s]*", text)
    depth = opening.group().count(b"[") if opening else 0
    try:
        value = _decode_json(text, _nested_type(kind, min(depth, 6)))
    except _WrongTypeError:
        return _decode_json(text)
    try:
        return np.array(value, _TYPE_OF_KIND[kind]) if depth else value
    except (ValueError, OverflowError):  # ragged, or an integer of more than 64 bits
        return value
