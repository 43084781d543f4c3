"""Whatever is given as an input becomes a `Problem`: a file, an array, a data frame, a dict. Entry: `to_problem`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeGuard

from attncli.api.frames import find_frame
from attncli.api.keywords import Keywords, describe_type, is_path
from attncli.arrays import is_tensor
from attncli.errors import InputError, OptionError, input_error
from attncli.request import ReadOptions
from attncli.text import quote_value, shorten
from attncli.types import FIELDS, INPUT_NAMES, NESTED_FIELDS, Array, Attention, Json, Problem, Step

if TYPE_CHECKING:
    import polars
    from torch import Tensor

    from attncli.readers.read import InputFile

_ACCEPTED = (
    "an input is an array (T, d) or (B, T, d), a data frame, lists of numbers, the name of a file or an open one, "
    "a dict of a problem's fields, or a Problem; q, k and v are keywords: q=q, k=k, v=v"
)
_NAME = "the input"  # in the notes of what has no name of its own


def to_problem(source: object, fields: Json, read_options: ReadOptions, *, has_read_options: bool = False) -> Problem:
    """Return what is given as a problem.

    Args:
        source: a file by its name or open, an array of any library, a data frame, lists, a dict of fields, a problem; None:
            the fields are all.
        fields: of the problem; they replace the source's own. A path stands for the file that holds the field.
        read_options: how a file or a data frame is read.
        has_read_options: whether they say anything.

    Raises:
        InputError: it is something else, cannot be read or makes no sense.
        OptionError: the format is not known, or the options are for files and this is none.
    """
    paths = {name: str(value) for name, value in fields.items() if _is_field_file(name, value)}
    values: Json = {name: _to_field(name, value) for name, value in fields.items() if name not in paths}
    if is_path(source) or _is_open_file(source):
        replacing = tuple(f"{name}={path}" for name, path in paths.items())
        problem, is_bare = _read_file(source, dataclasses.replace(read_options, replacing=replacing))
        paths = {}
    else:
        problem, is_bare = _problem_in_memory(source, read_options, has_read_options)
    if is_bare and "k" in fields and "q" not in fields and problem.embeddings is not None:  # an array without a name: q
        problem = dataclasses.replace(problem, q=problem.embeddings, embeddings=None, validated=False)
    if values:
        if isinstance(values.get("parameters"), Mapping):  # one by one beside those of the source
            values["parameters"] = {**problem.parameters, **values["parameters"]}
        problem = dataclasses.replace(problem, **values, validated=False)
    if paths:
        from attncli.readers.with_field import replace_field

        for name, path in paths.items():
            problem = replace_field(problem, f"{name}={path}", read_options.header)
    return problem


def read_file(source: object, keywords: Keywords, replacing: tuple[str, ...] = ()) -> Problem:
    """Read a file that is named or open.

    Raises:
        InputError: it is neither, cannot be read or makes no sense.
        OptionError: the format is not known, or a keyword is not for files.
    """
    if not is_path(source) and not _is_open_file(source):
        hint = "the name of a file, a Path or an open file; attend takes arrays as they are"
        raise InputError("wrong-type", f"{_describe(source)} is not a file", help=hint)
    if keywords.fields or keywords.request.choices or keywords.request.extra_masks:
        named = next(iter((*keywords.fields, *keywords.request.choices, *keywords.request.extra_masks)))
        message = f"read only reads, and {shorten(str(named))} is for what is computed"
        raise OptionError("bad-option", message, help="attend takes it")
    problem, _ = _read_file(source, dataclasses.replace(keywords.read_options, replacing=replacing))
    return problem


# ── files ────────────────────────────────────────────────────────────────────────────────────────
def _read_file(source: str | PathLike[str] | IO[bytes] | IO[str], options: ReadOptions) -> tuple[Problem, bool]:
    """Read a file that is named or open: its problem, and whether it is an array without a name."""
    from attncli.readers import find_input, read

    if isinstance(source, str | PathLike):
        path = str(source.__fspath__() if isinstance(source, PathLike) else source)
        if isinstance(source, str) and re.match(r"\s*[\[{]", path) and not _is_there(path):
            hint = "json.loads(text), or io.StringIO(text) in place of the text"
            raise InputError("no-such-file", f"{quote_value(source)} is not the name of a file", help=hint)
        input_file = find_input(path, options.input_format)
    else:
        input_file = _open_file(source, options.input_format)
    problem = read(input_file, **options.reader_keywords)
    return problem, input_file.reader.holds_one_array and problem.q is None


def _is_open_file(value: object) -> TypeGuard[IO[bytes] | IO[str]]:
    return hasattr(value, "read")


def _is_there(path: str) -> bool:
    """Whether there is a file of that name."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # it is too long for a name, or holds a NUL
        return False


def _open_file(file: IO[bytes] | IO[str], format: str | None) -> InputFile:
    """Read an open file whole, and find its format: what is named, that of its name's suffix, or what it holds."""
    from attncli.readers.base import find_reader, load_reader
    from attncli.readers.format_detection import FORMAT_TITLES, detect_format
    from attncli.readers.read import InputFile

    try:
        data = file.read()
    except (OSError, ValueError, UnicodeError) as error:  # ValueError: it is closed
        raise InputError("cannot-read", f"the file cannot be read: {shorten(str(error))}") from None
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InputError("wrong-type", f"what is read from the file is {type(data).__name__}, neither bytes nor text")
    name = getattr(file, "name", None)
    display_name = name if isinstance(name, str) and name else "<file>"
    if not data:
        raise InputError("empty", f"{display_name} is empty, or was read to its end before", help="file.seek(0)")
    if format is not None:
        return InputFile(display_name, find_reader(display_name, format), bytes(data))
    if isinstance(name, str) and Path(name).suffix:
        return InputFile(display_name, find_reader(display_name), bytes(data))
    found = detect_format(bytes(data))
    note = f"{display_name}: recognised as {FORMAT_TITLES.get(found, found)}"
    return InputFile(display_name, load_reader(found), bytes(data), note)


def _is_field_file(name: str, value: object) -> bool:
    """Whether a field is given as the file that holds it, as by `--with`.

    Raises:
        OptionError: it is a text that could be a token or the name of a file.
    """
    if name not in FIELDS and name not in NESTED_FIELDS:
        return False
    kind = FIELDS[name].kind if name in FIELDS else "floats"
    if isinstance(value, PathLike):
        return kind in ("floats", "booleans", "integers", "texts")
    if not isinstance(value, str) or kind not in ("floats", "booleans", "integers", "texts"):
        return False
    if kind == "texts":
        hint = f"{name}='the cat sat'.split(), or {name}=pathlib.Path('tokens.txt') for a file of them"
        raise OptionError(
            "bad-option", f"{name} is the text {quote_value(value)}: is it one token, or the name of a file?", help=hint
        )
    return True


# ── values ───────────────────────────────────────────────────────────────────────────────────────
def _problem_in_memory(source: object, options: ReadOptions, has_read_options: bool) -> tuple[Problem, bool]:
    """Return a value as a problem, and whether it is an array without a name."""
    if source is None:
        problem, is_bare = Problem(), False
    elif isinstance(source, Problem):
        problem, is_bare = source if source.validated else _convert_fields(source), False
    elif isinstance(source, Attention):
        known = "result.explain('cat') explains it, result.problem is what it was computed from"
        hint = f"{known if hasattr(source, 'problem') else ''}, its context can be the next input: result['context']"
        hint = hint.removeprefix(", ")
        raise InputError("not-a-problem", "this is a result, not a problem", help=hint)
    elif (frame := find_frame(source)) is not None:
        return _problem_of_frame(frame, options), True
    elif isinstance(source, Mapping):
        problem, is_bare = _problem_of_mapping(source), False
    elif isinstance(source, list | tuple):
        problem, is_bare = _problem_of_list(source), True
    elif _is_array(source):
        problem, is_bare = Problem(embeddings=to_array("embeddings", source)), True
    else:
        raise InputError("wrong-type", f"attn cannot compute {_describe(source)}", help=_help_with(source))
    if options.state_dict:
        from attncli.readers.state_dict import add_layer

        problem = dataclasses.replace(add_layer(problem, options.state_dict), validated=False)
    elif has_read_options:
        hint = "leave input_format, token_column, columns, drop, header and separator out"
        raise OptionError(
            "bad-option",
            f"options of reading are for files and data frames, and this is {_describe(source)}",
            help=hint,
        )
    return problem, is_bare


def _describe(value: object) -> str:
    if value is None or isinstance(value, bool | int | float | bytes | bytearray):
        return quote_value(value)
    return describe_type(value)


def _help_with(value: object) -> str:
    if isinstance(value, bytes | bytearray):
        return "io.BytesIO(data) is read as a file is"
    if hasattr(value, "__next__"):
        return "list(…) makes a list of what it yields"
    return _ACCEPTED


def _is_array(value: object) -> bool:
    if isinstance(value, type | str | bytes):
        return False
    return is_tensor(value) or any(
        hasattr(value, name) for name in ("__array__", "__dlpack__", "__array_interface__", "toarray")
    )


def to_array(name: str, value: object) -> Array:
    """Return an array of another library, or a step of a result, as one of NumPy's or torch's; what is one stays as it is.

    Raises:
        InputError: it is sparse or masked, or its library does not hand it over.
    """
    import numpy as np

    if isinstance(value, Step):
        value = value.values
    if is_tensor(value):
        if getattr(value, "is_sparse", False) or "sparse" in str(getattr(value, "layout", "")):
            raise input_error("wrong-type", f"{name} is a sparse tensor", name, help=f"{name}.to_dense()")
        return value
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            hint = "fill them, or hide keys by mask= or lengths="
            raise input_error("wrong-type", f"{name} is a masked array, in which numbers are missing", name, help=hint)
        return np.asarray(value)
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "toarray") and not hasattr(value, "__array__"):
        raise input_error("wrong-type", f"{name} is a sparse array", name, help=f"{name}.toarray()")
    frame = find_frame(value)
    if frame is not None:
        return _problem_of_frame(frame, ReadOptions()).embeddings
    try:
        if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
            return np.asarray(value)
        return np.array(np.from_dlpack(value))  # type: ignore[arg-type]  # what has no method for it is refused below
    except Exception as error:  # each library has its own
        reason = shorten(str(error).partition("\n")[0])
        message = f"{name} is {_describe(value)}, which gives no array: {reason}"
        raise input_error(
            "wrong-type", message, name, help="give a NumPy array, in the memory of this computer"
        ) from None


def _to_field(name: str, value: object) -> object:
    """Return the value of a field as validation takes it: lists, arrays, tensors; labels as lists.

    Raises:
        InputError: it is a function, a generator, or a layer of a network.
    """
    value = list(value) if isinstance(value, range) else value
    if callable(value) and not _is_array(value) and not isinstance(value, Mapping):
        raise InputError("wrong-type", f"{name} is {_describe(value)}", help=_help_with_callable(name, value))
    if hasattr(value, "__next__"):
        raise InputError("wrong-type", f"{name} is {_describe(value)}", help=f"{name}=list(…) makes a list of it")
    if name in NESTED_FIELDS or name in ("variant", "expected", "meta"):
        if name == "memory" and not isinstance(value, Mapping):
            value = {"embeddings": value}
        if name in NESTED_FIELDS and isinstance(value, Mapping):
            return {str(key): _to_field(f"{name}.{key}", inner) for key, inner in value.items() if inner is not None}
        return value
    if name in FIELDS and FIELDS[name].kind == "texts":
        return value.tolist() if hasattr(value, "tolist") else value.to_list() if hasattr(value, "to_list") else value
    is_numbers = name not in FIELDS or FIELDS[name].kind in ("floats", "booleans", "integers")
    if is_numbers and isinstance(value, list | tuple):
        return _stack_tensors(name, value)
    return to_array(name, value) if is_numbers and _is_array(value) else value


def _help_with_callable(name: str, value: object) -> str:
    if hasattr(value, "state_dict") and name.startswith("parameters"):
        inner = name.partition(".")[2] or "w_q"
        return f"parameters={{{inner!r}: layer.weight.T}}, or all of a layer: parameters=layer.state_dict()"
    if name == "mask":
        return (
            "a mask by name, mask='causal', or booleans: mask=[[j <= i for j in range(keys)] for i in range(queries)]"
        )
    return "give the array that it returns"


def _stack_tensors(name: str, items: Sequence[object]) -> Tensor | Sequence[object]:
    """Return a list of tensors as one tensor, which keeps their graph; of anything else, the list."""
    tensors = [item for item in items if is_tensor(item)]
    if not items or len(tensors) < len(items):
        return items
    import torch

    shapes = [tuple(item.shape) for item in tensors]
    for i, shape in enumerate(shapes):
        if shape != shapes[0]:
            message = f"{name}: tensor {i} has shape {shape}, but tensor 0 has {shapes[0]}"
            raise input_error(
                "ragged", message, name, (i,), help="all must have the same shape; short ones are never padded"
            )
    return torch.stack(tensors)


def _problem_of_list(items: Sequence[object]) -> Problem:
    """Make a problem of lists of numbers, of vectors, or of tokens with their vectors."""
    if (
        isinstance(items, tuple)
        and 2 <= len(items) <= 3
        and all(_is_array(item) and getattr(item, "ndim", 0) > 1 for item in items)
    ):
        names = ("q", "k", "v")[: len(items)]
        spelled = ", ".join(f"{name}={name}" for name in names)
        raise InputError(
            "two-readings",
            f"a tuple of {len(items)} arrays: {', '.join(names)}, or a batch?",
            help=f"attncli.attend({spelled}); a list of arrays is a batch",
        )
    if items and all(map(is_tensor, items)):
        return Problem(embeddings=_stack_tensors("embeddings", items))
    if items and (
        isinstance(items[0], dict) or any(isinstance(item, str) for item in items) or _holds_labels(items[0])
    ):
        if all(isinstance(item, str) for item in items):
            hint = "give a vector for each of them: attncli.attend(vectors, tokens=tokens)"
            raise input_error("not-a-number", "tokens alone have no numbers to compute with", "embeddings", help=hint)
        return _problem_of_value(list(map(_to_plain_lists, items)))
    return Problem(embeddings=[to_array("embeddings", item) if _is_array(item) else item for item in items])


def _holds_labels(row: object) -> bool:
    return isinstance(row, list | tuple) and any(isinstance(cell, str) for cell in row)


def _to_plain_lists(value: object) -> object:
    """Return a value with every array in it as lists, as JSON would hold it."""
    if isinstance(value, Mapping):
        return {str(key): _to_plain_lists(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain_lists(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _problem_of_mapping(mapping: Mapping[object, object]) -> Problem:
    """Make a problem of a dict of its fields, with dotted names too, or of tokens with their vectors."""
    from attncli.readers.base import make_problem, nest_fields
    from attncli.readers.json_shapes import is_problem

    fields: Json = {}
    for key, value in mapping.items():
        if not isinstance(key, str):
            hint = '{"embeddings": […]}, or {"cat": [0.1, 0.2], …}'
            raise InputError("wrong-type", f"the dict has the key {quote_value(key)}, which is not a text", help=hint)
        fields[key] = value
    fields = nest_fields(fields) if any("." in key for key in fields) else fields
    has_rows = isinstance(fields.get("embeddings"), Mapping) or _holds_records(fields.get("embeddings"))
    if not fields or (is_problem(fields) and not has_rows):
        return make_problem(
            {name: value if name == "variant" else _to_field(name, value) for name, value in fields.items()}
        )
    return _problem_of_value({name: _to_plain_lists(value) for name, value in fields.items()})


def _convert_fields(problem: Problem) -> Problem:
    """Return a problem whose fields hold what validation takes: of other libraries' arrays, those of NumPy."""
    fields = {
        name: value for name in INPUT_NAMES if (value := getattr(problem, name)) is not None and name != "variant"
    }
    converted = {name: _to_field(name, value) for name, value in fields.items() if type(value) not in (list, str)}
    changed: Json = {
        name: value
        for name, value in converted.items()
        if value is not fields[name] and not (isinstance(value, dict) and not value)
    }
    return dataclasses.replace(problem, **changed) if changed else problem


def _holds_records(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _problem_of_value(value: object) -> Problem:
    from attncli.readers.json import make_problem_of_value
    from attncli.readers.source import Source

    return make_problem_of_value(value, Source(_NAME, value, "json", is_value=True))


def _problem_of_frame(frame: polars.DataFrame, options: ReadOptions) -> Problem:
    from attncli.readers.arrow import make_problem_of_frame
    from attncli.readers.source import Source

    source = Source(
        "the data frame", frame, "arrow", options.token_column, options.columns, options.drop, is_value=True
    )
    problem = make_problem_of_frame(frame, source)
    if options.state_dict:
        from attncli.readers.state_dict import add_layer

        problem = add_layer(problem, options.state_dict)
    return problem
