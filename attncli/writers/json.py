"""Write JSON and JSON lines: the result's record, with numbers as the shortest text that reads back to the same value."""

from __future__ import annotations

import msgspec
import numpy as np

from attncli.output_formats import RenderOptions, output_format
from attncli.text import escape_json_controls
from attncli.types import Attention, Json
from attncli.writers.record import shortest_numbers, to_json_numbers, to_record

# What --bare leaves out: it is the same in every record of a command, or the arrays show it.
FIELDS_NOT_IN_BARE = ("schema", "attn_version", "variant", "settings", "layout", "dtype", "axes", "shapes", "formulas")


@output_format("json", ".json", console_errors="attn.json", shape_options=("bare",))
def write_json(attention: Attention, options: RenderOptions) -> str:
    """Write one document: on one line, or for a terminal indented, with a matrix row on each line."""
    record = to_record(attention, as_lists=True)
    if options.bare:
        record = {name: value for name, value in record.items() if name not in FIELDS_NOT_IN_BARE}
    text = "" if options.is_terminal else _encode_finite(record, attention.dtype)
    if not text:
        fields = {
            name: to_json_numbers(value, attention.dtype) if isinstance(value, np.ndarray) else value
            for name, value in record.items()
        }
        text = _format_indented(fields) if options.is_terminal else msgspec.json.encode(fields).decode()
    return escape_json_controls(text) + "\n"


def _encode_finite(record: Json, dtype: str) -> str:
    """Encode a record whose numbers are finite, as nearly always, without looking at each; "" where one may not be.

    A number that is not finite would stand there as null.
    """
    fields = dict(record)
    for name, value in record.items():
        if isinstance(value, np.ndarray):
            fields[name] = (shortest_numbers(value, dtype) if value.dtype.kind == "f" else value).tolist()
    encoded = msgspec.json.encode(fields)
    return "" if b"null" in encoded else encoded.decode()


@output_format("ndjson", ".ndjson", ".jsonl", console_errors="attn.json", shape_options=("bare",))
def write_json_line(attention: Attention, options: RenderOptions) -> str:
    """Write one document on one line."""
    return str(write_json(attention, RenderOptions(bare=options.bare)))


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
