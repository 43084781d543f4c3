"""JSON and JSON lines: the result's record, numbers as the shortest text that reads back to the same value."""

from __future__ import annotations

from typing import Any

import msgspec

from attncli.output_formats import Look, output_format
from attncli.types import Attention
from attncli.writers.record import numbers, record


@output_format("json", ".json", codec="attn.json")
def write_json(attention: Attention, look: Look) -> str:
    """One document: on one line, or for a terminal indented, a row a line."""
    fields = {
        k: numbers(v, attention.dtype) if hasattr(v, "dtype") else v
        for k, v in record(attention, in_lists=True).items()
    }
    return (_indented(fields) if look.screen else msgspec.json.encode(fields).decode()) + "\n"


@output_format("ndjson", ".ndjson", ".jsonl", codec="attn.json")
def write_line(attention: Attention, look: Look) -> str:
    """One document on one line."""
    return str(write_json(attention, Look()))


def _indented(value: Any, margin: str = "") -> str:
    """Objects and lists of lists over several lines; a list of plain values on one."""
    deeper = margin + "  "
    if isinstance(value, dict) and value:
        rows = [f"{deeper}{msgspec.json.encode(k).decode()}: {_indented(v, deeper)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{margin}}}"
    if isinstance(value, list) and any(isinstance(v, list | dict) for v in value):
        return "[\n" + ",\n".join(deeper + _indented(v, deeper) for v in value) + f"\n{margin}]"
    if isinstance(value, list):
        return "[" + ", ".join(_indented(v) for v in value) + "]"
    return msgspec.json.encode(value).decode()
