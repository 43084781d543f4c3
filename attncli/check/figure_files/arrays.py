"""Figures in files of arrays: NPY, NPZ and safetensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from attncli.check.figure_files.problem import figures_from_problem, has_problem_fields
from attncli.check.figures import Figures, figures_from_named_arrays, figures_from_result
from attncli.errors import InputError
from attncli.readers.base import merge_fields, nest_fields
from attncli.step_names import STEP_NAMES
from attncli.text import printable, shorten
from attncli.types import Json, NumpyArray

T = TypeVar("T")


def figures_from_npy(path: str, data: bytes) -> Figures:
    """Read one array."""
    from attncli.readers.npz import read_npy_array

    return figures_from_named_arrays(path, {"": _parse_arrays(lambda: read_npy_array(data, "figures"))})


def figures_from_npz(path: str, data: bytes) -> Figures:
    """Read an array for each step, a result or a problem."""
    from attncli.readers.npz import read_archive

    arrays, metadata = _parse_arrays(lambda: read_archive(data))
    return _figures_from_archive(path, arrays, metadata)


def figures_from_safetensors(path: str, data: bytes) -> Figures:
    """Read a tensor for each step, a result or a problem."""
    from attncli.readers.safetensors import read_tensors

    arrays, metadata, dtypes = _parse_arrays(lambda: read_tensors(data))
    return _figures_from_archive(
        path, arrays, metadata, {name: "bfloat16" for name, x in dtypes.items() if x == "BF16"}
    )


def _parse_arrays(parse: Callable[[], T]) -> T:
    """Parse a file of arrays; whatever its parser raises, the file is bad.

    Raises:
        InputError: it is.
    """
    try:
        return parse()
    except InputError:
        raise
    except Exception as error:
        message = shorten(str(error).partition("\n")[0] or type(error).__name__)
        raise InputError(
            "bad-file", f"these arrays cannot be read: {message}", help="was the copy cut short?"
        ) from None


def _figures_from_archive(
    path: str, arrays: Mapping[str, NumpyArray], metadata: Json, dtypes: Mapping[str, str] | None = None
) -> Figures:
    if "schema" in {*arrays, *metadata}:
        from attncli.readers.results import parse_result

        return figures_from_result(parse_result(merge_fields(nest_fields(dict(arrays)), metadata)), path)
    if has_problem_fields({*arrays, *metadata} - set(STEP_NAMES)):
        return figures_from_problem(path)
    twice = next((name for name in metadata if name in arrays), None)
    if twice is not None:
        message = f"{printable(shorten(twice))} occurs twice: as an array and in the JSON text beside the arrays"
        raise InputError("two-sources", message, help="remove one of them")
    if metadata:
        message = f"{printable(shorten(next(iter(metadata))))} is in the text beside the arrays, not an array"
        raise InputError("no-figures", message, help="save every step as an array of numbers")
    return figures_from_named_arrays(path, arrays, dtypes)
