"""Read results that were written as JSON, NPZ or safetensors. Entries: `read_result`, `parse_result`."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from attncli.errors import InputError, Location, OptionError, json_path
from attncli.readers.base import merge_fields, nest_fields
from attncli.readers.compression import unpack
from attncli.readers.files import read_bytes
from attncli.readers.read import InputFile
from attncli.readers.recorded_hidden_keys import RecordedHiddenKeys
from attncli.text import join_names, printable, shorten, suggestion
from attncli.types import AXES, Array, Attention, Field, FieldKind, Json, Labels, Step

if TYPE_CHECKING:
    import msgspec

_INTEGER_STEPS = ("top_keys", "visible_keys")  # in the others 1 stands for 1.0
RESULT_SUFFIXES = (".json", ".npz", ".safetensors")  # of the formats that results are read back from
_DtypeName: TypeAlias = Literal["float64", "float32", "float16", "bfloat16"]


def read_result(path: str | Path, data: bytes | None = None) -> Attention:
    """Read a result file as the attention that it was: the same steps, labels and choices.

    bfloat16 comes back as float32 of the same values.

    Args:
        path: the file.
        data: its JSON, where it has been read already.

    Raises:
        OptionError: the suffix is none of .json, .npz, .safetensors.
        InputError: it cannot be read, or is no result.
    """
    path = str(path)
    try:
        return parse_result(_read_fields(path, data))
    except InputError as error:
        raise error.add_location(file=path) from None


def read_saved_result(input_file: InputFile) -> Attention:
    """As `read_result`, of an input whose reader has found that it is a result.

    Raises:
        InputError: it cannot be read, or a field of it is wrong.
    """
    try:
        data = read_bytes(input_file.path) if input_file.data is None else input_file.data
        if input_file.reader.is_text:
            data, _ = unpack(data, input_file.display_name)
        return parse_result(_decode_fields(f".{input_file.reader.name}", data))
    except InputError as error:
        raise error.add_location(file=input_file.display_name) from None


def parse_result(fields: object) -> Attention:
    """Make the attention that the record of a result describes, with its steps as nested lists or arrays.

    Raises:
        InputError: it is no result, a field of it is missing or of another type, or fields disagree.
    """
    import numpy as np

    from attncli.validation.fields import find_field, validate_array
    from attncli.validation.identification import validate_id, validate_meta

    if not isinstance(fields, dict) or not isinstance(fields.get("schema"), str) or fields["schema"] != "attn.result/1":
        raise InputError("not-a-result", 'this is not a result: "schema" is not "attn.result/1"')
    dtype = _typed_field(fields, "dtype", _DtypeName)
    axes = _typed_field(fields, "axes", dict[str, list[str]])
    formulas = _typed_field(fields, "formulas", dict[str, str])
    index_type = Annotated[int, _integer_constraint(0)]
    at = _typed_field(fields, "at", dict[str, list[index_type]], default={})
    parameters = _typed_field(fields, "parameters", dict[str, Any], default={})
    for axis in (*itertools.chain(*axes.values()), *at):
        if axis not in AXES:
            message = f"there is no axis called {printable(shorten(axis))!r}"
            raise InputError("unknown-axis", message, location=Location(path="$.axes"), help=suggestion(axis, AXES))
    parameters_dtype = "float64" if dtype == "float64" else "float32"
    with np.errstate(all="ignore"):
        attention = Attention(
            variant=_typed_field(fields, "variant", dict[str, Any]),
            tokens=_read_labels(fields, "tokens"),
            k_tokens=_read_labels(fields, "k_tokens"),
            steps=tuple(
                Step(
                    name,
                    _typed_field(formulas, name, str, group="formulas"),
                    tuple(step_axes),
                    _step_values(name, fields, tuple(step_axes), dtype),
                )
                for name, step_axes in axes.items()
            ),
            warnings=tuple(_typed_field(fields, "warnings", list[str])),
            parameters={
                name: validate_array(values, find_field(f"parameters.{name}")).astype(parameters_dtype)
                for name, values in parameters.items()
            },
            about=fields.get("about"),
            source=_typed_field(fields, "source", str, default=""),
            line=_typed_field(fields, "line", Annotated[int, _integer_constraint(1)], default=None),
            id=None if (name := fields.get("id")) is None else validate_id(name),
            meta=None if (meta := fields.get("meta")) is None else validate_meta(meta),
            settings=_typed_field(fields, "settings", dict[str, str], default={}),
            layout=_typed_field(fields, "layout", str),
            dtype=dtype,
            at={axis: tuple(indices) for axis, indices in at.items()},
        )
    hidden_keys = RecordedHiddenKeys(attention)
    return replace(attention, hidden_keys=hidden_keys) if hidden_keys.is_known else attention


def _integer_constraint(minimum: int) -> msgspec.Meta:
    """Return the bounds of an index or of a line's number, as msgspec understands them."""
    import msgspec

    return msgspec.Meta(ge=minimum, lt=2**53)


_REQUIRED = object()


def _typed_field(fields: Json, name: str, type_: object, *, group: str = "", default: object = _REQUIRED) -> Any:
    """Return a field of a record, which must be of a type.

    Args:
        fields: the record, or one object in it.
        name: the field's.
        type_: as msgspec understands it.
        group: the name of the object that the field is in.
        default: what stands for a field that is missing; without it, it must be there.

    Raises:
        InputError: it is missing, or of another type.
    """
    import msgspec

    path = f"{group}.{name}" if group else name
    if name not in fields:
        if default is not _REQUIRED:
            return default
        raise InputError(
            "missing-field",
            f"the result lacks {printable(shorten(path))}",
            location=Location(path=json_path(shorten(path))),
            help="attn compute … -o result.json writes whole results",
        )
    try:
        return msgspec.convert(fields[name], type_)
    except Exception as error:  # whatever the library raises, the field is bad
        reason, _, place = str(error).partition(" - at ")
        raise InputError(
            "wrong-type",
            f"{printable(shorten(path))} of the result is not as attn writes it: {shorten(reason)}",
            location=Location(path=json_path(shorten(path)) + shorten(place.strip("`").removeprefix("$"))),
            help="attn compute … -o result.json writes whole results",
        ) from None


def _read_fields(path: str, data: bytes | None) -> object:
    """Read the record of a result by the suffix of its file.

    Raises:
        OptionError: no results are read by that suffix.
        InputError: it cannot be read, or a key stands twice.
    """
    suffix = Path(path).suffix.lower()
    if data is None and suffix not in RESULT_SUFFIXES:
        raise OptionError(
            "unknown-format",
            f"{path} is not a result that can be read back",
            help=f"results are read from {join_names(RESULT_SUFFIXES)}",
        )
    return _decode_fields(".json" if data is not None else suffix, read_bytes(path) if data is None else data)


def _decode_fields(suffix: str, data: bytes) -> object:
    """Decode the record of a result, by one of `RESULT_SUFFIXES`.

    Raises:
        InputError: it cannot be decoded, or a key stands twice.
    """
    from attncli.readers.npz import read_archive
    from attncli.readers.safetensors import read_tensors

    if suffix == ".json":
        return _decode_result(data)
    arrays, metadata = read_archive(data) if suffix == ".npz" else read_tensors(data)[:2]
    return merge_fields(nest_fields(arrays), metadata)


def _decode_result(data: bytes) -> object:
    """Decode the JSON of a result.

    Raises:
        InputError: it is no JSON, or an object has a key twice.
    """
    import msgspec

    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        record: object = msgspec.json.decode(data)
    except Exception as error:  # whatever the library raises, the file is bad
        raise InputError("bad-json", f"this is not valid JSON: {shorten(str(error))}") from None
    _check_keys_differ(data)
    return record


def _check_keys_differ(data: bytes) -> None:
    """Check that no object of a well-formed JSON text has a key twice; numbers are passed over, so that this costs little.

    Raises:
        InputError: one has.
    """
    open_objects: list[set[bytes]] = []
    for token in re.finditer(rb'[{}]|"((?:[^"\\]|\\.)*+)"(\s*+:)?', data, re.DOTALL):
        if token[0] == b"{":
            open_objects.append(set())
        elif token[0] == b"}":
            open_objects.pop()
        elif token[2]:
            key = (
                token[1]
                if b"\\" not in token[1]
                else json.loads(b'"' + token[1] + b'"').encode("utf-8", "surrogatepass")
            )
            if key in open_objects[-1]:
                name = printable(shorten(key.decode("utf-8", "replace")))
                raise InputError("two-sources", f"{name!r} occurs twice in one object", help="remove one of them")
            open_objects[-1].add(key)


def _step_values(name: str, fields: Json, axes: tuple[str, ...], dtype: str) -> Array:
    """Return the values of a step as an array of the dtype it was computed with.

    Raises:
        InputError: there are none, they are no array of numbers, or have not as many axes as are named.
    """
    import numpy as np

    from attncli.validation.fields import to_bfloat16, validate_array

    values = _typed_field(fields, name, Any)
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "fbiu":
            raise _wrong_step_error(name, f"holds {values.dtype}, not numbers")
        array = values
    else:
        kinds: dict[type, FieldKind] = {bool: "booleans", int: "integers"}
        kind = kinds.get(type(_first_leaf(values)), "floats")
        if kind == "integers" and name not in _INTEGER_STEPS:
            kind = "floats"
        array = validate_array(values, Field(name, kind, ("*",), finite=False))
        if kind == "floats":
            array = to_bfloat16(array) if dtype == "bfloat16" else array.astype(dtype)
    if array.ndim != len(axes) or len(set(axes)) < len(axes):
        raise _wrong_step_error(name, f"has shape {array.shape}, but its axes are {', '.join(axes) or 'none'}")
    return array


def _wrong_step_error(name: str, statement: str) -> InputError:
    return InputError(
        "wrong-shape",
        f"{printable(shorten(name))} of the result {statement}",
        location=Location(path=json_path(shorten(name))),
    )


def _read_labels(fields: Json, name: str) -> Labels:
    """Read labels: a tuple of texts, or of a batch a tuple of tuples.

    Raises:
        InputError: they are neither.
    """
    labels = _typed_field(fields, name, list[Any])
    is_batch = bool(labels) and isinstance(labels[0], list)
    labels = _typed_field(fields, name, list[list[str]] if is_batch else list[str])
    return tuple(map(tuple, labels)) if is_batch else tuple(labels)


def _first_leaf(values: object) -> object:
    while isinstance(values, list) and values:
        values = values[0]
    return values
