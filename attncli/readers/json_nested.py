"""Find vectors that stand deeper in JSON than tables are looked for, and say how jq takes them out. Entries: `explain_nested_vectors`, `explain_no_table`, `name_matrix`."""

from __future__ import annotations

import re

from attncli.readers.columns import TEXT_NAMES, VECTOR_NAMES
from attncli.readers.json_tables import is_vector
from attncli.text import closest
from attncli.types import INPUT_NAMES

_MAX_DEPTH = 8  # of objects and lists within each other
_MAX_SPELLED_CHARACTERS = 300
_INTEGER_NAMES = ("input_ids", "attention_mask", "token_type_ids", "offset_mapping")  # beside the vectors of a model

_Path = tuple[str | None, ...]  # names of members; None for each item of a list, or of an object of like objects


def explain_nested_vectors(value: object, *, is_line: bool) -> str:
    """Return the command that makes a table of the vectors within a value; empty where there are none, or a table is read as it is.

    Args:
        value: a decoded document, or one line of JSON lines.
        is_line: which of them.
    """
    path = _find_vector(value, _MAX_DEPTH)
    if path is None:
        return ""
    last = max((i for i, part in enumerate(path) if part is None), default=-1)
    outer, inner = path[: last + 1], path[last + 1 :]
    item = value
    for part in outer:
        item = _first_item(item) if part is None else item[part]  # type: ignore[index]  # the path leads there
    tokens = _find_text(item, _MAX_DEPTH)
    members = [*([f"token: {_spell(tokens)}"] if tokens else []), f"embedding: {_spell(inner) or '.'}"]
    table = f"{{{', '.join(members)}}}"
    table = f"{_spell(outer)} | {table}" if outer else table
    command = f"jq -c '{table}' FILE > NEW.jsonl" if is_line else f"jq '[{table}]' FILE > NEW.json"
    is_vector_named = bool(inner) and str(inner[-1]).lower() in VECTOR_NAMES
    if (len(inner) <= 1 and outer in ((), (None,))) or not (outer or is_vector_named):  # of these the error says more
        return ""
    is_spelled = "'" not in table and len(command) <= _MAX_SPELLED_CHARACTERS and command.isprintable()
    return f"the vectors stand within other objects: {command}" if is_spelled else ""


def explain_no_table(value: object) -> str:
    """Return what is read, for an object that is neither a problem nor a table of vectors."""
    texts = list(value.values()) if isinstance(value, dict) else []
    if texts and all(isinstance(text, str) and text.lstrip().startswith("[") for text in texts):
        return "each list is written as a JSON text: jq 'map_values(fromjson)' FILE > NEW.json"
    named = name_matrix(value) if isinstance(value, dict) else ""
    return (
        named
        or 'a problem has "embeddings", or "q", "k" and "v"; tokens with their vectors are {"cat": [0.1, 0.2], "sat": [0.3, 0.4]}'
    )


def name_matrix(value: dict[str, object]) -> str:
    """Return the command that gives a matrix the name of vectors; "" where there is none, or a field whose name is misspelt."""
    matrices = [name for name, inner in value.items() if _is_matrix(inner)]
    matrices.sort(key=lambda name: name.lower() in _INTEGER_NAMES)
    if not matrices or closest(matrices[0], INPUT_NAMES):
        return ""
    if re.fullmatch(r"[A-Za-z_]\w{0,60}", matrices[0], re.ASCII):
        return f"name the vectors: jq '{{embeddings: .{matrices[0]}}}' FILE > NEW.json"
    return ""


def _is_matrix(value: object) -> bool:
    """Whether a value is a list of lists of numbers, or a list of those; by what is first in each."""
    for _ in range(3):
        if not isinstance(value, list) or not value:
            return False
        value = value[0]
        if isinstance(value, list) and value and type(value[0]) in (int, float):
            return True
    return False


def _find_vector(value: object, depth: int) -> _Path | None:
    """Return the path to the first vector."""
    if is_vector(value):
        return ()
    if not depth:
        return None
    first = _first_item(value)
    if first is not None:
        path = _find_vector(first, depth - 1)
        return None if path is None else (None, *path)
    for name, inner in value.items() if isinstance(value, dict) else ():
        path = _find_vector(inner, depth - 1)
        if path is not None:
            return (name, *path)
    return None


def _first_item(value: object) -> object:
    """Return the first of several objects that stand in a list, or in an object in which all are alike; None where there are none."""
    if isinstance(value, list):
        return value[0] if value and isinstance(value[0], dict) else None
    if isinstance(value, dict) and len(value) > 1:
        items = list(value.values())
        if all(isinstance(item, dict) and item and item.keys() == items[0].keys() for item in items):
            return items[0]
    return None


def _find_text(item: object, depth: int) -> _Path | None:
    """Return the path to the text of the token in an item; None where nothing is called so."""
    if not isinstance(item, dict) or not depth:
        return None
    for name in (*TEXT_NAMES, "id"):
        if isinstance(item.get(name), str):
            return (name,)
    for name, inner in item.items():
        path = _find_text(inner, depth - 1)
        if path is not None:
            return (name, *path)
    return None


def _spell(path: _Path) -> str:
    """Spell a path as jq has it."""
    parts = [
        "[]" if part is None else f".{part}" if re.fullmatch(r"[A-Za-z_]\w*", part, re.ASCII) else f'["{part}"]'
        for part in path
    ]
    text = "".join(parts)
    return f".{text}" if text.startswith("[") else text
