"""Figures in JSON: a matrix, an object with a matrix for each step, a result, or a problem with `expected`.

Every number keeps the text it was written as, since its digits say how far it was rounded.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
from dataclasses import replace

import numpy as np

from attncli.check.figure_files.problem import figures_from_problem, has_problem_fields
from attncli.check.figures import (
    Figures,
    StepFigures,
    figures_from_result,
    kind_of_step,
    require_known_step,
    step_figures_from_texts,
)
from attncli.errors import InputError, Location, input_error
from attncli.readers.base import bare_record_error, is_bare_record
from attncli.text import printable, shorten
from attncli.types import Field, FieldKind, Json, NumpyArray
from attncli.validation.fields import are_booleans, validate_array, validate_field

_MAX_LIST_DEPTH = 8  # lists within lists; an array has at most four axes
_MAX_AXES = 4
_MAX_ABS_INTEGER = 2**53
_INTEGER_PATTERN = re.compile(r"-?[0-9]+")
_MAX_INTEGER_CHARACTERS = 19  # of a number that is read as an integer; longer ones are no index, and floats will do


class _NumberWithText(float):
    """A number that keeps the text it was written as."""

    __slots__ = ("plain", "text")
    text: str
    plain: int | float  # the same as validation takes it; a whole number beyond the indices of any axis is a float

    def __new__(cls, text: str) -> _NumberWithText:
        self = super().__new__(cls, text)
        self.text = text
        is_integer = len(text) <= _MAX_INTEGER_CHARACTERS and _INTEGER_PATTERN.fullmatch(text)
        self.plain = int(text) if is_integer else float(self)
        return self


def _decode_with_texts(data: bytes) -> object:
    """Decode JSON in which every number keeps its text; equal texts share one number.

    Raises:
        InputError: it is no JSON, or an object has a key twice.
    """
    make_number = functools.cache(_NumberWithText)
    try:
        text = data.decode("utf-8-sig")
        return json.loads(text, parse_float=make_number, parse_int=make_number, object_pairs_hook=_make_object)
    except InputError:
        raise
    except RecursionError:
        raise InputError("too-deep", "the JSON is nested deeper than figures can be") from None
    except Exception as error:  # whatever the parser raises, the file is bad
        line = getattr(error, "lineno", None)
        raise InputError(
            "bad-json", f"this is not valid JSON: {shorten(str(error))}", location=Location(line=line)
        ) from None


def _make_object(pairs: list[tuple[str, object]]) -> Json:
    """Make an object of its keys and values.

    Raises:
        InputError: a key stands twice.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InputError(
            "two-sources", f"{printable(shorten(twice))!r} occurs twice in one object", help="remove one of them"
        )
    return content


def figures_from_json(path: str, data: bytes) -> Figures:
    """Read a matrix, a matrix for each step, a result or a problem."""
    content = _decode_with_texts(data)
    if isinstance(content, list):
        return Figures(path, "text", (_step_figures_from_lists(None, content),), is_layout_known=False)
    if not isinstance(content, dict):
        raise InputError(
            "no-figures",
            "figures must be an object with a matrix for each step, or one matrix",
            help='{"weights": [[…], …]}',
        )
    if "schema" in content:
        from attncli.readers.results import read_result

        return figures_from_result(read_result(path, data), path)
    if is_bare_record(content):
        raise bare_record_error("not-a-result")
    if not has_problem_fields(content):
        return Figures(path, "text", tuple(_step_figures_from_json(step, entry) for step, entry in content.items()))
    figures = figures_from_problem(path)  # refuses what is no problem
    expected: Json = content["expected"]
    steps = tuple(_step_figures_from_json(step, entry) for step, entry in expected.items())
    return replace(figures, steps=steps)


def figures_from_ndjson(path: str, data: bytes) -> Figures:
    """Read the one result of a stream of results."""
    lines = [line for line in data.splitlines() if line.strip()]
    if len(lines) > 1:
        message = f"it holds {len(lines)} results, but one problem is checked at a time"
        raise InputError("several-results", message, help="keep only the line of this problem")
    return figures_from_json(path, lines[0] if lines else data)


def _step_figures_from_json(step: str, entry: object) -> StepFigures:
    """Make figures of one entry of an object, which follows the grammar of `expected`, with the digits that are written."""
    require_known_step(step)
    properties: Json = entry if isinstance(entry, dict) else {"values": entry}
    paths = {key: f"{step}.{key}" if isinstance(entry, dict) else step for key in properties}
    arrays = {"values": _array_of_numbers(step, properties["values"])} if "values" in properties else {}
    numbers = {
        key: _as_plain_numbers(x, paths[key]) if arrays.get(key) is None else arrays[key]
        for key, x in properties.items()
    }
    checked = _validate_entry(step, numbers, is_object=isinstance(entry, dict))
    rows, columns = (tuple(map(int, checked[key])) if key in checked else None for key in ("rows", "columns"))
    del numbers
    return replace(
        _step_figures_from_lists(step, properties["values"], paths["values"]),
        rows=rows,
        columns=columns,
        expected_decimals=checked.get("decimals"),
        rtol=checked.get("rtol"),
        atol=checked.get("atol"),
    )


def _validate_entry(step: str, properties: Json, *, is_object: bool) -> Json:
    """Validate a step's entry as `expected` is; errors name the step as the file does, which is no problem."""
    try:
        checked: Json = validate_field("expected", {step: properties})[step]
        return checked
    except InputError as error:
        message, path = error.message, error.location.path
        for name in (f"expected.{step}",) if is_object else (f"expected.{step}.values", f"expected.{step}"):
            message, path = message.replace(name, step), path.replace(name, step)
        raise InputError(error.code, message, location=replace(error.location, path=path), help=error.help) from None


def _as_plain_numbers(value: object, name: str, index: tuple[int, ...] = ()) -> object:
    """Convert numbers with their texts to the numbers that validation takes.

    Raises:
        InputError: a number is larger than a float64 can hold, or lists are nested deeper than any array.
    """
    if isinstance(value, list):
        if len(index) > _MAX_LIST_DEPTH:
            raise input_error("too-deep", f"{name} is nested deeper than any array", name)
        return [_as_plain_numbers(v, name, (*index, i)) for i, v in enumerate(value)]
    if not isinstance(value, _NumberWithText):
        return value
    if math.isinf(value):
        message = f"{name} holds {shorten(value.text, 40)}, which is too large for float64"
        raise input_error("not-finite", message, name, index)
    return value.plain


def _flatten(nested: object) -> tuple[list[object], tuple[int, ...]] | None:
    """Flatten lists of equal lengths into their leaves and their shape; None where they form no array that a step can be."""
    shape: list[int] = []
    level = [nested]
    while True:
        lengths = {len(item) if isinstance(item, list) else -1 for item in level}
        if lengths == {-1}:
            return level, tuple(shape)
        if len(lengths) > 1 or lengths == {0} or len(shape) == _MAX_AXES:
            return None
        shape += lengths
        level = list(itertools.chain.from_iterable(level))  # type: ignore[arg-type]


def _array_of_numbers(step: str | None, nested: object) -> NumpyArray | None:
    """Return nested lists of numbers or booleans as an array of the step's kind, without a copy of the lists.

    None where they are anything else: then validation says what is wrong, or reads "NaN" and the like.
    """
    flattened = _flatten(nested)
    if flattened is None:
        return None
    leaves, shape = flattened
    types = set(map(type, leaves))
    if types == {bool}:
        return np.array(leaves, bool).reshape(shape)
    if types != {_NumberWithText}:
        return None
    if kind_of_step(step) == "integers":
        integers: list[int | float] = [leaf.plain for leaf in leaves]  # type: ignore[attr-defined]
        is_valid = all(abs(x) <= _MAX_ABS_INTEGER and x == int(x) for x in integers)  # 3.0 is whole, too
        return np.array(integers, np.int64).reshape(shape) if is_valid else None
    values = np.array(leaves, np.float64).reshape(shape)
    return values if not np.isinf(values).any() else None


def _step_figures_from_lists(step: str | None, nested: object, name: str = "figures") -> StepFigures:
    """Make figures of nested lists of numbers with their texts."""
    values = _array_of_numbers(step, nested)
    if values is None:
        plain = _as_plain_numbers(nested, name)
        kind: FieldKind = "integers" if kind_of_step(step) == "integers" else "floats"
        kind = "booleans" if are_booleans(plain, allow_others=kind_of_step(step) == "booleans") else kind
        values = validate_array(plain, Field(name, kind, ("*",), finite=False))
        del plain
    if values.dtype.kind != "f":
        return StepFigures(step, values)
    flattened = _flatten(nested)
    leaves = flattened[0] if flattened else []
    return step_figures_from_texts(step, values, [getattr(leaf, "text", "") for leaf in leaves])
