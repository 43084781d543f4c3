"""Validate one field: lists, an array or a tensor become an array of the field's kind, rectangular and finite.

Entry: `validate_field`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from attncli.arrays import as_numpy as as_numpy
from attncli.arrays import has_finite_sum
from attncli.arrays import is_tensor as is_tensor
from attncli.errors import InputError, input_error
from attncli.framework_arrays import FRAMEWORK_ARRAYS
from attncli.registry import Parameter
from attncli.step_names import STEP_NAMES, find_figure_name, names_like
from attncli.text import closest, join_names, pluralize, quote_value, shorten, suggestion
from attncli.types import FIELDS, INPUT_NAMES, NONFINITE_SPELLINGS, Array, Field, FieldKind, Json, NumpyArray
from attncli.validation.identification import validate_id, validate_meta
from attncli.variant import CHOICES, FAMILIES

if TYPE_CHECKING:
    from attncli.arrays import ArrayOrTensor

FIGURE_KEYS = {"values", "rows", "columns", "decimals", "rtol", "atol"}  # what a step of `expected` may hold


@cache  # every part has been declared by then
def known_parameters() -> dict[str, Parameter]:
    """Return every learned array that some part takes, by name; where several parts take one, with all its shapes."""
    merged: dict[str, Parameter] = {}
    for family in FAMILIES.values():
        for parameter in (parameter for member in family for parameter in member.parameters):
            first = merged.get(parameter.name, parameter)
            shapes = dict.fromkeys((*first.alternative_axes, parameter.axes, *parameter.alternative_axes))
            alternatives = tuple(axes for axes in shapes if axes != first.axes)
            merged[parameter.name] = replace(first, alternative_axes=alternatives)
    return merged


@cache
def find_field(name: str) -> Field:
    """Return the declaration of a field, by its dotted name.

    Raises:
        InputError: no such field; the nearest name is offered.
    """
    if name in FIELDS:
        return FIELDS[name]
    group, _, rest = name.partition(".")
    if group == "parameters" and rest in known_parameters():
        parameter = known_parameters()[rest]
        shapes = tuple(" ".join(axes) for axes in (parameter.axes, *parameter.alternative_axes))
        return Field(name, "floats", shapes, parameter.help)
    if group == "parameters" and rest in FRAMEWORK_ARRAYS:
        array = FRAMEWORK_ARRAYS[rest]
        return Field(name, "floats", (" ".join(array.axes),), array.help)
    if group == "parameters" and rest:
        message = f"no part has a parameter called {shorten(rest)!r}"
        raise input_error("unknown-field", message, shorten(name), help=_suggest_parameter(rest))
    in_group = [field.removeprefix(f"{group}.") for field in FIELDS if field.startswith(f"{group}.")]
    if in_group and rest:
        message = f"{group} has no field {shorten(rest)!r}"
        raise input_error("unknown-field", message, shorten(name), help=suggestion(rest, in_group))
    message = f"a problem has no field {shorten(name)!r}"
    hint = _find_place_elsewhere(name) or suggestion(name, INPUT_NAMES)
    raise input_error("unknown-field", message, shorten(name), help=hint)


def _find_place_elsewhere(name: str) -> str:
    """Return where a name belongs that is no field, but a choice, a figure or a learned array; "" if it is none of these."""
    from attncli.synonyms import find_synonym, find_way_out

    if find_synonym(name, INPUT_NAMES):
        return ""
    if choice := name if name in CHOICES else find_synonym(name, CHOICES):
        return f'a choice goes under variant: "variant": {{"{choice}": …}}'
    of_framework = next((array for array in (name, f"{name}.weight") if array in FRAMEWORK_ARRAYS), "")
    parameter = name if name in {*known_parameters(), of_framework} else find_synonym(name, known_parameters())
    if parameter or of_framework:
        return f'learned arrays go under parameters: "parameters": {{"{parameter or of_framework}": …}}'
    if find_way_out(name):  # which `suggestion` says
        return ""
    if step := find_figure_name(name) or find_synonym(name, STEP_NAMES):
        return f'a step is computed; figures of your own go under expected: "expected": {{"{step}": …}}'
    nearest = None if closest(name, INPUT_NAMES) else closest(name, known_parameters())
    return f'learned arrays go under parameters: "parameters": {{"{nearest}": …}}' if nearest else ""


def _suggest_parameter(name: str) -> str:
    """Return the way out of a parameter that no part takes: the nearest of ours, and the layer of a framework it may be."""
    of_layer = f"{name}.weight"
    if of_layer not in FRAMEWORK_ARRAYS:
        return suggestion(name, known_parameters())
    ours = closest(name, known_parameters())
    if ours is None:
        return f"did you mean {of_layer!r}?"
    return f"did you mean {ours!r}, which is laid out as w_layout says, or {of_layer!r}, as its framework stores it?"


def validate_field(name: str, value: Any) -> Any:
    """Validate the value of a field, by the field's dotted name; of which type it is, the field's kind says.

    Raises:
        InputError: there is no such field, or the value is not of its kind.
    """
    field = find_field(name)
    if field.kind in ("floats", "booleans", "integers"):
        return validate_array(value, field)
    if field.kind == "texts":
        return validate_texts(value, field)
    if field.kind == "text":
        return _validate_text(value, field)
    if field.kind in ("object", "expected") and not isinstance(value, Mapping):
        is_preset_name = name == "variant" and isinstance(value, str)
        hint = f'write "variant": {{"name": "{shorten(value)}"}}' if is_preset_name else ""
        raise input_error("wrong-type", f"{name} must be an object, not {quote_value(value)}", name, help=hint)
    if field.kind == "expected":
        return _validate_expected(value)
    if field.kind == "id":
        return validate_id(value)
    if field.kind == "meta":
        return validate_meta(value)
    _check_no_arrays(value, name)
    return value


def _validate_text(value: object, field: Field) -> str:
    """Return one of the texts that a field may be.

    Raises:
        InputError: it is another, or none.
    """
    if isinstance(value, str) and value in field.allowed_values:
        return value
    text = value if isinstance(value, str) else ""
    is_text = isinstance(value, str)
    message = f"{field.name} cannot be {quote_value(value)}" if is_text else f"{field.name} must be a text"
    nearest = suggestion(text, field.allowed_values)
    raise input_error("wrong-type", message, field.name, help=nearest)


def _check_no_arrays(value: object, name: str) -> None:
    """Check that neither a value nor the fields within it are arrays, which files hold beside their JSON.

    Raises:
        InputError: one is.
    """
    if isinstance(value, np.ndarray) or is_tensor(value):
        hint = "in a file of arrays it belongs in the JSON text called `attn`"
        raise input_error("wrong-type", f"{name} holds an array, but this field is not for numbers", name, help=hint)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(inner, str | int | float):
                _check_no_arrays(inner, f"{name}.{shorten(str(key))}")


def to_bfloat16(values: NumpyArray) -> NumpyArray:
    """Round numbers to the nearest bfloat16, ties to even; they are held in float32, since numpy has no such dtype."""
    bits = values.astype(np.float32).view(np.uint32)
    upper = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return np.where(np.isnan(values), np.float32(np.nan), upper.astype(np.uint32).view(np.float32))


def shape_of(value: ArrayOrTensor) -> tuple[int, ...]:
    """Return the shape of an array or tensor, as plain integers."""
    if isinstance(value, np.ndarray):
        return value.shape
    return tuple(int(n) for n in value.shape)


_COMPUTED_DTYPES = (np.dtype(np.float64), np.dtype(np.float32))  # what arrays of floats become


def validate_array(value: Any, field: Field) -> Array:
    """Turn lists or an array into an array of the field's kind; tensors of floats stay tensors.

    Raises:
        InputError: ragged, empty, of another kind, of a rank the field cannot have, or not finite.
    """
    name = field.name
    if field.kind == "floats" and isinstance(value, np.ndarray) and value.dtype in _COMPUTED_DTYPES and value.size:
        return _check_array(value, field)
    is_array = isinstance(value, np.ndarray) or is_tensor(value)
    if is_array and math.prod(max(n, 1) for n in shape_of(value)) >= 2**60:  # of no elements: 0 is among them
        raise input_error("wrong-shape", f"{name} has shape {shape_of(value)}, which no array can have", name)
    if is_tensor(value) and field.kind == "floats":  # only floats can carry a gradient
        value = value if value.dtype.is_floating_point else value.double()
    else:
        with np.errstate(all="ignore"):  # what does not fit is found, and is no warning
            value = _convert_dtype(as_numpy(value) if is_array else _array_from_lists(value, field), field)
    return _check_array(value, field)


def _check_array(value: Array, field: Field) -> Array:
    """Return an array of the field's kind, once its rank is one that the field can have, and its numbers are finite.

    Raises:
        InputError: it is not so.
    """
    name, shape = field.name, shape_of(value)
    if len(shape) not in field.ranks:
        expected = [f"({', '.join(s.split())})" for s in field.shapes if s != "*"] or ["at most (B, H, Tq, Tk)"]
        message = f"{name} has shape {shape}, but should be {join_names(expected, 'or')}"
        raise input_error("wrong-shape", message, name, help=_rank_hint(shape, field))
    if 0 in shape and not name.startswith("past."):
        raise input_error("empty", f"{name} is empty: its shape is {shape}", name, help="every axis needs an entry")
    if field.kind == "floats":
        _check_finite(value, field)
    return value


def _convert_dtype(value: NumpyArray, field: Field) -> NumpyArray:
    """Return an array of the field's kind, in a dtype that is computed with: float16, and what is wider than float64, change.

    Raises:
        InputError: the array is of another kind, or holds integers that are too large.
    """
    if value.dtype.kind == "V" and value.dtype.name == "bfloat16":  # numpy's by way of ml_dtypes
        value = value.astype(np.float32)
    kind = value.dtype.kind
    if field.kind == "booleans" and kind != "b":
        raise _numeric_mask_error(field, f"{field.name} holds {value.dtype} numbers")
    if kind not in {"floats": "fiu", "booleans": "b", "integers": "iuf"}[field.kind]:
        message = f"{field.name} holds {value.dtype} values, but needs {field.kind}"
        raise input_error("wrong-type", message, field.name, help=_conversion_hint(kind, field))
    if field.kind == "booleans":
        return value
    if field.kind == "integers":
        return _convert_integers(value, field)
    converted = value.astype(np.float32 if kind == "f" and value.dtype.itemsize <= 4 else np.float64, copy=False)
    if value.dtype.itemsize > 8 and (np.isinf(converted) & np.isfinite(value)).any():
        raise input_error("not-finite", f"{field.name} holds a number too large for float64", field.name)
    return converted


def _conversion_hint(kind: str, field: Field) -> str:
    """How an array of another kind becomes one of the field's."""
    if kind == "c":
        return f"take its real part, {field.name}.real, or its magnitude, abs({field.name})"
    target = "int" if field.kind == "integers" else "float"
    if kind in "OSU":
        return f"{field.name}.astype({target}) converts it if every value is a number"
    return f"convert it to numbers first: {field.name}.astype({target})"


def _convert_integers(value: NumpyArray, field: Field) -> NumpyArray:
    """Return whole numbers, which may be held as floats, as 64-bit integers.

    Raises:
        InputError: a number is not whole, or so large that differences of two would not be exact; with its index.
    """
    if value.dtype.kind == "f":
        value = value.astype(np.float64)  # 2^53 is more than a float16 holds
    is_wrong = ~((value >= -_MAX_ABS_INTEGER) & (value <= _MAX_ABS_INTEGER))  # NaN is neither
    if not is_wrong.any() and value.dtype.kind == "f":
        is_wrong = value != np.floor(value)
    if is_wrong.any():
        index = _first_true_index(is_wrong)
        number = value[index].item()
        if math.isfinite(number) and number == math.floor(number):
            message = f"{field.name} holds {quote_value(number)}, beyond ±2^53"
            raise input_error("out-of-range", message, field.name, index)
        message = f"{field.name} holds {quote_value(number)} where an integer should be"
        raise input_error("wrong-type", message, field.name, index)
    return value.astype(np.int64, copy=False)


_LEAF_TYPES: dict[str, set[type]] = {"floats": {int, float}, "booleans": {bool}, "integers": {int}}
_DTYPE_OF_KIND: Json = {"floats": np.float64, "booleans": np.bool_, "integers": np.int64}
_OTHER_NONFINITE_SPELLINGS = {
    "nan": "NaN", "inf": "Infinity", "+inf": "Infinity", "infinity": "Infinity", "+infinity": "Infinity", "∞": "Infinity",
    "-inf": "-Infinity", "-infinity": "-Infinity", "−∞": "-Infinity", "-∞": "-Infinity",
}  # fmt: skip
_MAX_LIST_DEPTH = 8  # lists within lists; an array has at most four axes
_MAX_ABS_INTEGER = 2**53  # of positions and the like, so that differences of two never overflow


def _array_from_lists(value: object, field: Field) -> NumpyArray:
    value = _check_leaves(value, field, ())
    try:
        return np.array(value, dtype=_DTYPE_OF_KIND[field.kind])
    except OverflowError:
        raise _too_large_integer_error(value, field, ()) from None
    except (ValueError, TypeError):
        raise _ragged_row_error(value, field, ()) or input_error(
            "wrong-type", f"{field.name} is not an array", field.name
        ) from None


def _too_large_integer_error(value: object, field: Field, index: tuple[int, ...]) -> InputError:
    """Make the error for the first of nested integers that the field's dtype cannot hold."""
    for i, item in enumerate(value if isinstance(value, list | tuple) else ()):
        try:
            np.array(item, dtype=_DTYPE_OF_KIND[field.kind])
        except OverflowError:
            return _too_large_integer_error(item, field, (*index, i))
        except (ValueError, TypeError):  # ragged as well: of two faults this one is said
            continue
    if field.kind == "integers":
        return input_error("out-of-range", f"{field.name} holds {quote_value(value)}, beyond ±2^53", field.name, index)
    message = f"{field.name} holds an integer too large for float64"
    return input_error("not-finite", message, field.name, index)


def _check_leaves(value: object, field: Field, index: tuple[int, ...]) -> object:
    """Return lists in which every leaf is of the field's kind, and "NaN" and the like have become numbers.

    Raises:
        InputError: a leaf is of another kind; with its index.
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    if len(index) > _MAX_LIST_DEPTH:
        raise input_error("too-deep", f"{field.name} is nested deeper than any array", field.name)
    if isinstance(value, list | tuple):
        if set(map(type, value)) <= _LEAF_TYPES[field.kind]:  # a row of plain numbers, as nearly all are
            return value
        return [_check_leaves(item, field, (*index, i)) for i, item in enumerate(value)]
    if field.kind == "floats" and isinstance(value, str) and value in NONFINITE_SPELLINGS:
        return float(value)
    if type(value) in _LEAF_TYPES[field.kind]:
        return value
    if field.kind == "integers" and type(value) is float and value.is_integer():  # 3.0, which many programs print for 3
        if abs(value) > _MAX_ABS_INTEGER:
            message = f"{field.name} holds {quote_value(value)}, beyond ±2^53"
            raise input_error("out-of-range", message, field.name, index)
        return int(value)
    if field.kind == "booleans":
        if field.name == "mask" and isinstance(value, str) and not index:
            hint = f'name a mask under variant: "variant": {{"mask": "{shorten(value)}"}}'
            message = f"mask holds {quote_value(value)}, but a mask must hold booleans"
            raise input_error("wrong-type", message, field.name, help=hint)
        raise _numeric_mask_error(field, f"{field.name} holds {quote_value(value)}", index)
    if field.kind == "floats" and isinstance(value, str) and value.lower() in _OTHER_NONFINITE_SPELLINGS:
        message = f"{field.name} holds {quote_value(value)} where a number should be"
        hint = f'write "{_OTHER_NONFINITE_SPELLINGS[value.lower()]}"'
        raise input_error("not-a-number", message, field.name, index, help=hint)
    code, expected = ("not-a-number", "a number") if field.kind == "floats" else ("wrong-type", "an integer")
    message = f"{field.name} holds {quote_value(value)} where {expected} should be"
    raise input_error(code, message, field.name, index, help=_suggest_numbers(value, field.name))


def _suggest_numbers(value: object, name: str) -> str:
    """Say what to write instead of null or an object where numbers should be; of other values, nothing."""
    if name == "embeddings" and isinstance(value, Mapping):
        return 'write the tokens and their rows apart: "tokens": ["cat", …], "embeddings": [[0.1, 0.2], …]'
    if isinstance(value, Mapping):
        return f'write lists of numbers: "{name}": [[0.1, 0.2], …]'
    return "write a number in its place" if value is None else ""


def _numeric_mask_error(field: Field, statement: str, index: tuple[int, ...] = ()) -> InputError:
    hint = "write true where a key is visible and false where it is hidden; to add numbers to the scores use bias"
    return input_error("numeric-mask", f"{statement}, but a mask must hold booleans", field.name, index, help=hint)


def _ragged_row_error(items: object, field: Field, index: tuple[int, ...]) -> InputError | None:
    """Make the error for the first of some lists that is not as long as those before it; None where all are."""
    if not isinstance(items, list | tuple):
        return None
    lengths = [len(item) if isinstance(item, list | tuple) else None for item in items]
    for i, length in enumerate(lengths):
        if length != lengths[0]:
            has, first = ("one number" if n is None else pluralize(n, "value") for n in (length, lengths[0]))
            message = f"{field.name}: item {i} has {has}, but item 0 has {first}"
            hint = "all rows must have the same length; short rows are never padded"
            return input_error("ragged", message, field.name, (*index, i), help=hint)
        error = _ragged_row_error(items[i], field, (*index, i))
        if error:
            return error
    return None


def _rank_hint(shape: Sequence[int], field: Field) -> str:
    """Say how an array of one axis too few, or of too many, becomes one that the field can have; of others, nothing."""
    if len(shape) + 1 == min(field.ranks):
        return f"one more pair of brackets makes it {(1, *shape)}"
    if not shape:
        return "a number is no array: write rows of numbers, [[1, 2], [3, 4]]"
    surplus = len(shape) - max(field.ranks)
    if surplus <= 0:
        return ""
    if field.name == "lengths":
        return "it is one number for each item, the count of its keys that are no padding: attention_mask.sum(-1)"
    if any(n != 1 for n in shape[:surplus]):
        return f"it has {pluralize(surplus, 'axis', 'axes')} too many: write one problem for each part"
    return "remove the first axis" if surplus == 1 else f"remove the first {surplus} axes"


def _check_finite(value: Array, field: Field) -> None:
    """Check that a field which must be finite is, and that a bias holds neither NaN nor +∞.

    Raises:
        InputError: it is not; with the index of the first number.
    """
    is_bias = field.name == "bias"
    if (not field.finite and not is_bias) or 0 in shape_of(value):
        return
    detached = value.detach() if is_tensor(value) else value
    if not is_bias and not is_tensor(value) and has_finite_sum(value):
        return
    low, high = float(detached.min()), float(detached.max())  # NaN where there is one; nothing is copied
    if is_bias and math.isnan(low):
        raise input_error(
            "nan-bias",
            "bias holds NaN",
            "bias",
            _first_true_index(detached != detached),
            help="0 × −∞ is NaN: a mask multiplied by −∞, as in triu(ones) * -inf, has it wherever the mask is 0; fill with −∞ instead, or give a boolean mask",
        )
    if is_bias and high == math.inf:
        raise input_error(
            "not-finite",
            "bias holds +∞, which would leave no weight for any other key",
            "bias",
            help="use finite numbers, or -Infinity to hide a key",
        )
    if not is_bias and not (math.isfinite(low) and math.isfinite(high)):
        index = _first_true_index((detached != detached) | (abs(detached) == math.inf))
        message = f"{field.name} holds {float(detached[index])} at {list(index)}; it must be finite"
        hint = "replace it with a number, or leave its vector out; a mask does not make up for it, since 0 × NaN is NaN"
        raise input_error("not-finite", message, field.name, index, help=hint)


def _first_true_index(booleans: object) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(as_numpy(booleans))[0])


def validate_texts(value: object, field: Field) -> tuple[object, ...]:
    """Turn labels, T strings or B lists of T, into tuples.

    Raises:
        InputError: they are no lists of texts.
    """
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, list | tuple) and value and all(isinstance(item, list | tuple) for item in value):
        return tuple(_validate_labels(item, field, (b,)) for b, item in enumerate(value))
    return _validate_labels(value, field, ())


def _validate_labels(value: object, field: Field, index: tuple[int, ...]) -> tuple[str, ...]:
    """Turn a list of texts into a tuple.

    Raises:
        InputError: it is none, or empty, or one is no text of Unicode; with its index.
    """
    if not isinstance(value, list | tuple) or not value:
        message = f"{field.name} must be a list of texts, not {quote_value(value)}"
        raise input_error("wrong-type", message, field.name, index, help='write one text per token: ["the", "cat"]')
    with suppress(TypeError):
        if "".join(value).isascii():  # nearly always, and quickly seen; what is no text cannot be joined
            return tuple(value)
    for i, item in enumerate(value):
        if not isinstance(item, str):
            message = f"{field.name} holds {quote_value(item)} instead of a text"
            hint = "write a text for each token"
            if isinstance(item, int | float):
                hint = "put it in quotes; in Python, list(map(str, tokens))"
            elif isinstance(item, bytes):
                hint = "item.decode() makes a text of each"
            raise input_error("wrong-type", message, field.name, (*index, i), help=hint)
        if not item.isascii():
            try:
                item.encode()
            except UnicodeEncodeError:
                message = f"{field.name} holds half a character (a lone surrogate)"
                raise input_error("wrong-encoding", message, field.name, (*index, i)) from None
    return tuple(value)


def _validate_expected(value: Json) -> Json:
    """Validate the figures that a file expects, step by step: each becomes an object with `values`.

    Raises:
        InputError: there is no such step, or its figures are malformed.
    """
    validated: Json = {}
    for step, content in value.items():
        name = f"expected.{shorten(step)}"
        if find_figure_name(step) is None:
            message = f"there is no step called {shorten(step)!r}"
            raise input_error("unknown-step", message, name, help=suggestion(step, names_like(step)))
        validated[step] = _validate_figures(
            name, dict(content) if isinstance(content, Mapping) else {"values": content}
        )
    return validated


def _validate_figures(name: str, figures: Json) -> Json:
    """Validate the figures of one step: values, which rows and columns they are of, and how exact they are."""
    for key in figures:
        if key not in FIGURE_KEYS:
            raise input_error(
                "unknown-field", f"{name} has no {shorten(key)!r}", name, help=suggestion(key, FIGURE_KEYS)
            )
    if "values" not in figures:
        raise input_error("missing-field", f"{name} has no values", name)
    kind: FieldKind = "booleans" if are_booleans(figures["values"], allow_others=name == "expected.mask") else "floats"
    validated = {"values": validate_array(figures["values"], Field(f"{name}.values", kind, ("*",), finite=False))}
    for key in ("rows", "columns"):
        if key in figures:
            validated[key] = validate_array(figures[key], Field(f"{name}.{key}", "integers", ("n",)))
    for key in ("decimals", "rtol", "atol"):
        value = figures.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise input_error("wrong-type", f"{name}.{key} must be a number ≥ 0, not {quote_value(value)}", name)
    return figures | validated


def are_booleans(values: object, *, allow_others: bool = False) -> bool:
    """Tell whether an array or the leaves of nested lists are booleans; with `allow_others`, whether the first of them is."""
    if isinstance(values, np.ndarray):
        return bool(values.dtype == bool)
    leaves = _iter_leaves(values)
    return isinstance(next(leaves, None), bool) and (allow_others or all(isinstance(leaf, bool) for leaf in leaves))


def _iter_leaves(values: object) -> Iterator[object]:
    if isinstance(values, list | tuple):
        for item in values:
            yield from _iter_leaves(item)
    else:
        yield values
