"""Make one record of named fields of a result: the same for JSON, NPZ and safetensors. Entry: `to_record`.

It follows version 1 of the schema, which `attn schema result` prints.
"""

from __future__ import annotations

import numpy as np

from attncli import __version__
from attncli.text import replace_undecodable
from attncli.types import Attention, Json, NumpyArray, Problem, to_json_number
from attncli.validation.fields import as_numpy, to_bfloat16

RESULT_SCHEMA_ID = "attn.result/1"


def to_record(attention: Attention, *, as_lists: bool) -> Json:
    """Return every field in order, with steps and drawn parameters as numpy arrays.

    Args:
        attention: the result.
        as_lists: whether `parameters` are nested lists instead.
    """
    steps = {step.name: as_numpy(step.values) for step in attention.steps}
    drawn = {name: as_numpy(x) for name, x in attention.parameters.items()}
    parameters: Json = {name: to_json_numbers(x, str(x.dtype)) for name, x in drawn.items()} if as_lists else drawn
    return {
        "schema": RESULT_SCHEMA_ID,
        "attn_version": __version__,
        **identify(attention),
        "variant": dict(attention.variant),
        **({"settings": dict(attention.settings)} if attention.settings else {}),
        **({"about": attention.about} if attention.about is not None else {}),
        "layout": attention.layout,
        "dtype": attention.dtype,
        "tokens": attention.tokens,
        "k_tokens": attention.k_tokens,
        **({"at": {axis: list(indices) for axis, indices in attention.at.items()}} if attention.at else {}),
        "axes": {step.name: list(step.axes) for step in attention.steps},
        "shapes": {name: list(values.shape) for name, values in steps.items()},
        "formulas": {step.name: step.formula for step in attention.steps},
        **steps,
        **({"parameters": parameters} if parameters else {}),
        "warnings": list(attention.warnings),
    }


def identify(subject: Attention | Problem) -> Json:
    """Return what tells a problem's record from others: `source`, `line`, `id` and `meta`, those that there are."""
    fields: Json = {
        "source": replace_undecodable(subject.source) or None,
        "line": subject.line,
        "id": subject.id,
        "meta": subject.meta,
    }
    return {name: value for name, value in fields.items() if value is not None}


def to_json_numbers(values: NumpyArray, dtype: str) -> object:
    """Turn an array into nested lists whose numbers print as the shortest text of their dtype; those not finite are strings."""
    if values.dtype.kind != "f":
        return values.tolist()
    short = shortest_numbers(values, dtype)
    finite = np.isfinite(short)
    if finite.all():
        return short.tolist()
    spelled = short.astype(object)
    spelled[~finite] = [to_json_number(x) for x in short[~finite]]
    return spelled.tolist()


def shortest_numbers(values: NumpyArray, dtype: str) -> NumpyArray:
    """Return floats as the float64 numbers whose text is the shortest that reads back to the same value of their dtype."""
    if dtype == "bfloat16":
        return _shortest_bfloat16(values)
    return values if values.dtype == np.float64 else values.astype("U").astype(np.float64)


def _shortest_bfloat16(values: NumpyArray) -> NumpyArray:
    """Return the shortest decimals that round to the same bfloat16: at most four digits are needed."""
    shortest = values.astype(np.float64).reshape(-1)
    pending = np.flatnonzero(np.isfinite(shortest))  # indices
    for digits in range(1, 5):
        trial = np.array([float(f"{x:.{digits - 1}e}") for x in shortest[pending]])
        is_same = to_bfloat16(trial) == values.reshape(-1)[pending]
        shortest[pending[is_same]] = trial[is_same]
        pending = pending[~is_same]
    return shortest.reshape(values.shape)
