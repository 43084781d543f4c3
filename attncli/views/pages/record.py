"""What a page holds, as one JSON record: the steps with their numbers packed, labels, marks, and workings. Entry: `to_page_record`."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from attncli.output_formats import RenderOptions, load_output_format
from attncli.plan.head_shapes import kv_head_of
from attncli.text import escape_json_controls, printable
from attncli.types import Attention, Json, NumpyArray
from attncli.views.explain.reasons import STEP_REASONS
from attncli.views.labelled_matrices import SlicedStep

MAX_EXACT_NUMBERS = 2**13  # of a whole result, that are held as float64; more are held as float32
_WHY_NO_WORKINGS = "only pages of at most 12 tokens and 128 queries in all heads together, written by attn compute or attn batch, can compute"
_TITLE_TOKENS = 6
_TOKEN_AXES = ("query", "key", "new_key")
_HTML_DIGITS = str.maketrans("&<>", ",.:")  # digits of base 85, and others in their place; as in the script
_HIDDEN, _DROPPED = 1, 2  # marks of cells; 0: the cell is its number


def to_page_record(layers: Sequence[tuple[str, Attention]], precision: int) -> Json:
    """Return the record of a page.

    Args:
        layers: results, each with its name; of one alone it may be empty.
        precision: digits after the point, in tables.
    """
    number_count = sum(np.size(step.values) for _, attention in layers for step in attention)
    return {
        "schema": "attn.page/1",
        "title": page_title(layers[0][1]),
        "precision": precision,
        "layers": [
            _layer_record(name, attention, precision, is_exact=number_count <= MAX_EXACT_NUMBERS)
            for name, attention in layers
        ],
    }


def page_title(attention: Attention) -> str:
    """`Attention of the cat sat …`: the first tokens."""
    tokens = attention.tokens[0] if attention.tokens and isinstance(attention.tokens[0], tuple) else attention.tokens
    words = " ".join(printable(str(token)) for token in tokens[:_TITLE_TOKENS])
    if len(words) > 60:
        words = f"{words[:60].rstrip()} …"
    elif len(tokens) > _TITLE_TOKENS:
        words += " …"
    return f"Attention of {words}" if any(map(str.isalpha, words)) else "Attention"


def _layer_record(name: str, attention: Attention, precision: int, *, is_exact: bool) -> Json:
    steps = [SlicedStep(attention, step, precision) for step in attention]
    workings = attention.workings.to_record(precision) if attention.workings is not None else {}
    reasons = workings.get("reasons", STEP_REASONS)
    return {
        "name": printable(name),
        "source": printable(attention.source),
        "summary": [printable(text) for text in attention.summary] or [f"dtype {attention.dtype}"],
        "warnings": [printable(warning) for warning in attention.warnings],
        "at": {axis: list(indices) for axis, indices in attention.at.items()},
        "record": _result_head(attention),
        "labels": _token_labels(steps),
        "kv_of_head": _kv_heads(attention, steps),
        "steps": [_step_record(step, is_exact=is_exact) for step in steps],
        "reasons": {step.name: reasons.get(step.name, "") for step in attention},
        "explanations": _pack_json(workings.get("explanations")),
        "inputs": workings.get("inputs"),
        "why_no_inputs": workings.get("why_no_inputs", _WHY_NO_WORKINGS),
    }


def _result_head(attention: Attention) -> Json:
    """Return the fields of a result's record beside its steps, as JSON has them, for numbers that are saved from the page."""
    bare = replace(attention, steps=(), parameters={}, about=None, meta=None)
    record: Json = json.loads(str(load_output_format("json").write(bare, RenderOptions())))
    return {name: value for name, value in record.items() if name not in ("axes", "shapes", "formulas")}


def _token_labels(steps: Sequence[SlicedStep]) -> Json:
    """Return the labels of each axis of tokens, by batch item: `1 cat`."""
    labels: dict[str, list[list[str]]] = {}
    for step in steps:
        wanted = [axis for axis in step.matrix_axes if axis in _TOKEN_AXES and axis not in labels]
        if not wanted:
            continue
        item_count = step.length("batch") if "batch" in step.slice_axes else 1
        for item in range(item_count):
            matrix = step.matrix(tuple(item if axis == "batch" else 0 for axis in step.slice_axes))
            by_axis = dict(zip(step.matrix_axes, (matrix.row_labels, matrix.column_labels), strict=False))
            for axis in wanted:
                labels.setdefault(axis, []).append(list(by_axis[axis]))
    return labels


def _kv_heads(attention: Attention, steps: Sequence[SlicedStep]) -> list[int] | None:
    """Return which index on the axis kv_head each head of the result reads; None: it has not both axes."""
    counts = {
        axis: max((s.length(axis) for s in steps if axis in s.slice_axes), default=0) for axis in ("head", "kv_head")
    }
    if not all(counts.values()):
        return None
    heads = attention.at.get("head", range(counts["head"]))
    kv_heads = list(attention.at.get("kv_head", range(counts["kv_head"])))
    head_count = int(attention.variant.get("heads") or counts["head"])
    kv_count = int(attention.variant.get("kv_heads") or counts["kv_head"])
    kv_map = str(attention.variant.get("kv_map") or "interleave")
    read = [kv_head_of(head, head_count, kv_count, kv_map) for head in heads]
    return [kv_heads.index(kv) if kv in kv_heads else 0 for kv in read]


def _step_record(step: SlicedStep, *, is_exact: bool) -> Json:
    values = step.values
    if values.dtype == bool:
        kind, packed = "u1", values.astype(np.uint8)
    elif values.dtype.kind in "iu":
        kind, packed = "i4", values.astype("<i4")
    elif is_exact and values.dtype == np.float64:
        kind, packed = "f8", values.astype("<f8")
    else:
        with np.errstate(over="ignore"):
            kind, packed = "f4", values.astype("<f4")
    marks = _find_marks(step)
    return {
        "name": step.step.name,
        "formula": step.step.formula,
        "axes": list(step.step.axes),
        "shape": list(values.shape),
        "kind": kind,
        "values": _pack(packed),
        "marks": _pack(marks) if marks is not None else None,
        "remark": step.matrix(tuple(0 for _ in step.slice_axes)).remark if 0 not in values.shape else "",
    }


def _find_marks(step: SlicedStep) -> NumpyArray | None:
    """Return which cells show a mark in place of their number, on all axes of a step; None: none does."""
    if step.values.dtype == bool:
        return np.where(step.values, 0, _HIDDEN).astype(np.uint8)
    marks = np.zeros(step.values.shape, dtype=np.uint8)
    for index in np.ndindex(marks.shape[: len(step.slice_axes)]):
        found = step.matrix(index).marks
        if found is None:
            return None
        for mark, cells in (
            (_HIDDEN, found.find_hidden_cells(0, step.row_count)),
            (_DROPPED, found.find_dropped_cells(0, step.row_count)),
        ):
            if cells is not None:
                marks[index][cells] = mark
    return marks if marks.any() else None


def _pack(values: NumpyArray) -> str:
    """Return an array as text: its bytes, all first ones together, then all second ones, and so on, deflated, in base 85.

    Numbers that are near each other share their first bytes, so that these deflate well.
    """
    return _deflate(np.ascontiguousarray(values).reshape(-1, 1).view(np.uint8).T.tobytes())


def _pack_json(value: object) -> str | None:
    """Return JSON deflated, in base 85."""
    if value is None:
        return None
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _deflate(escape_json_controls(text).encode())


def _deflate(data: bytes) -> str:
    """Return bytes deflated, in base 85: a quarter longer than they are, where base64 is a third longer.

    Characters that would have to be escaped in HTML are exchanged for others.
    """
    return base64.b85encode(zlib.compress(data, 9)).decode().translate(_HTML_DIGITS)
