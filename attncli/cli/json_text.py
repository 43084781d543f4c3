"""A record as JSON text: `to_json_text`."""

from __future__ import annotations

import json

from attncli.text import escape_json_controls
from attncli.types import Json, to_json_number


def to_json_text(record: Json, *, indented: bool) -> str:
    """A record as JSON text, its non-finite numbers as strings."""
    style: Json = {"indent": 2} if indented else {"separators": (",", ":")}
    text = json.dumps(_with_json_numbers(record), ensure_ascii=False, **style)  # names of files may be no UTF-8
    return escape_json_controls(text) + "\n"


def _with_json_numbers(value: object) -> object:
    if isinstance(value, dict):
        return {key: _with_json_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_json_numbers(inner) for inner in value]
    return to_json_number(value) if isinstance(value, float) else value
