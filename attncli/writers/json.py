"""Write JSON and JSON lines: the result's record, with numbers as the shortest text that reads back to the same value."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from attncli.output_formats import RenderOptions, output_format
from attncli.text import escape_json_controls
from attncli.types import Attention, Json, NumpyArray
from attncli.writers.record import shortest_numbers, to_json_numbers, to_record

_SMALL_NUMBER_COUNT = 2**10  # of a result whose text is made in one piece
# What --bare leaves out: it is the same in every record of a command, or the arrays show it.
FIELDS_NOT_IN_BARE = ("schema", "attn_version", "variant", "settings", "layout", "dtype", "axes", "shapes", "formulas")


def encode_json(attention: Attention, options: RenderOptions) -> bytes:
    """Write one document on one line, as bytes. Where numbers are many, their text is made once and not looked at again."""
    record = _select_fields(attention, options)
    is_small = sum(math.prod(step.values.shape) for step in attention.steps) < _SMALL_NUMBER_COUNT
    encoded = _encode_at_once(record, attention.dtype) if is_small else b""
    if encoded:
        return encoded
    pieces: list[bytes] = []
    others: Json = {}
    for name, value in record.items():
        if isinstance(value, np.ndarray):
            if others:
                pieces.append(_encode_members(others))
                others = {}
            pieces.append(f'"{name}":'.encode() + _encode_array(value, attention.dtype))
        else:
            others[name] = value
    pieces.append(_encode_members(others))  # the warnings are the last
    return b"{" + b",".join(pieces) + b"}\n"


def _encode_at_once(record: Json, dtype: str) -> bytes:
    """Encode a record of few numbers, all finite, and of text that nothing need be escaped in; nothing where it is another."""
    fields = dict(record)
    for name, value in record.items():
        if isinstance(value, np.ndarray):
            fields[name] = (shortest_numbers(value, dtype) if value.dtype.kind == "f" else value).tolist()
    encoded = msgspec.json.encode(fields)
    is_plain = b"null" not in encoded and encoded.decode().isprintable()
    return encoded + b"\n" if is_plain else b""


def _select_fields(attention: Attention, options: RenderOptions) -> Json:
    """Return the fields of a result's record, without those that --bare leaves out."""
    record = to_record(attention, as_lists=True)
    return {name: x for name, x in record.items() if name not in FIELDS_NOT_IN_BARE} if options.bare else record


def _encode_members(fields: Json) -> bytes:
    """Encode fields that hold text as the members of an object, without its braces."""
    text = msgspec.json.encode(fields)[1:-1].decode()
    return escape_json_controls(text).encode()


def _encode_array(values: NumpyArray, dtype: str) -> bytes:
    """Encode the numbers of a step."""
    short = shortest_numbers(values, dtype) if values.dtype.kind == "f" else values
    encoded = msgspec.json.encode(short.tolist())
    if b"null" in encoded:  # which stands for a number that is not finite
        return msgspec.json.encode(to_json_numbers(values, dtype))
    return encoded


@output_format("json", ".json", console_errors="attn.json", shape_options=("bare",), encode=encode_json)
def write_json(attention: Attention, options: RenderOptions) -> str:
    """Write one document: on one line, or for a terminal indented, with a matrix row on each line."""
    if not options.is_terminal:
        return encode_json(attention, options).decode()
    fields = {
        name: to_json_numbers(value, attention.dtype) if isinstance(value, np.ndarray) else value
        for name, value in _select_fields(attention, options).items()
    }
    return escape_json_controls(_format_indented(fields)) + "\n"


@output_format("ndjson", ".ndjson", ".jsonl", console_errors="attn.json", shape_options=("bare",), encode=encode_json)
def write_json_line(attention: Attention, options: RenderOptions) -> str:
    """Write one document on one line."""
    return encode_json(attention, options).decode()


def _format_indented(value: object, margin: str = "") -> str:
    """Write objects and lists of lists over several lines, and a list of plain values on one."""
    inner_margin = margin + "  "
    if isinstance(value, dict) and value:
        lines = [
            f"{inner_margin}{msgspec.json.encode(key).decode()}: {_format_indented(item, inner_margin)}"
            for key, item in value.items()
        ]
        return "{\n" + ",\n".join(lines) + f"\n{margin}}}"
    if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
        lines = [inner_margin + _format_indented(item, inner_margin) for item in value]
        return "[\n" + ",\n".join(lines) + f"\n{margin}]"
    if isinstance(value, list):
        return "[" + ", ".join(map(_format_indented, value)) + "]"
    return msgspec.json.encode(value).decode()
