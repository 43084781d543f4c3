"""JSON and JSON lines: the result's record, numbers as the shortest text that reads back to the same value."""

from __future__ import annotations

from typing import Any

import msgspec

from attncli.output_formats import RenderOptions, output_format
from attncli.types import Attention
from attncli.writers.record import to_json_numbers, to_record


@output_format("json", ".json", console_errors="attn.json")
def write_json(attention: Attention, options: RenderOptions) -> str:
    """One document: on one line, or for a terminal indented, a row a line."""
    fields = {
        k: to_json_numbers(v, attention.dtype) if hasattr(v, "dtype") else v
        for k, v in to_record(attention, as_lists=True).items()
    }
    return (_format_indented(fields) if options.is_terminal else msgspec.json.encode(fields).decode()) + "\n"


@output_format("ndjson", ".ndjson", ".jsonl", console_errors="attn.json")
def write_json_line(attention: Attention, options: RenderOptions) -> str:
    """One document on one line."""
    return str(write_json(attention, RenderOptions()))


def _format_indented(value: Any, margin: str = "") -> str:
    """Objects and lists of lists over several lines; a list of plain values on one."""
    deeper = margin + "  "
    if isinstance(value, dict) and value:
        rows = [f"{deeper}{msgspec.json.encode(k).decode()}: {_format_indented(v, deeper)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{margin}}}"
    if isinstance(value, list) and any(isinstance(v, list | dict) for v in value):
        return "[\n" + ",\n".join(deeper + _format_indented(v, deeper) for v in value) + f"\n{margin}]"
    if isinstance(value, list):
        return "[" + ", ".join(_format_indented(v) for v in value) + "]"
    return msgspec.json.encode(value).decode()
