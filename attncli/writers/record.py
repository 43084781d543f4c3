"""A result as one record of named fields (DESIGN §3.3): the same for JSON, NPZ and safetensors.

Version 1 of the schema: see `attn schema result`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attncli import __version__
from attncli.types import Attention, Json, NumpyArray
from attncli.validation.fields import as_numpy, to_bfloat16

RESULT_SCHEMA_ID = "attn.result/1"


def to_record(attention: Attention, *, as_lists: bool) -> Json:
    """Every field in order; steps and drawn parameters as numpy arrays (`parameters` as lists, if `in_lists`)."""
    steps = {step.name: as_numpy(step.values) for step in attention.steps}
    drawn = {name: as_numpy(x) for name, x in attention.parameters.items()}
    parameters: Json = {name: to_json_numbers(x, str(x.dtype)) for name, x in drawn.items()} if as_lists else drawn
    return {
        "schema": RESULT_SCHEMA_ID,
        "attn_version": __version__,
        "variant": dict(attention.variant),
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


def to_json_numbers(values: NumpyArray, dtype: str) -> Any:
    """An array → nested lists whose numbers print as the shortest text of their dtype; non-finite ones as strings."""
    if values.dtype.kind != "f":
        return values.tolist()
    short = (
        _shortest_bfloat16(values)
        if dtype == "bfloat16"
        else values.astype(np.float64)
        if values.dtype == np.float64
        else values.astype("U").astype(np.float64)
    )
    finite = np.isfinite(short)
    if finite.all():
        return short.tolist()
    spelled = short.astype(object)
    spelled[np.isnan(short)] = "NaN"
    spelled[short == np.inf] = "Infinity"
    spelled[short == -np.inf] = "-Infinity"
    return spelled.tolist()


def _shortest_bfloat16(values: NumpyArray) -> NumpyArray:
    """The shortest decimal that rounds to the same bfloat16: at most four digits are needed."""
    out = values.astype(np.float64)
    todo = np.isfinite(out)
    for digits in range(1, 5):
        trial = np.array([float(f"{x:.{digits - 1}e}") for x in out[todo]])
        rounded = to_bfloat16(trial)
        same = rounded == values[todo]
        where = np.flatnonzero(todo)[same] if out.ndim == 1 else tuple(axis[same] for axis in np.nonzero(todo))
        out[where] = trial[same]
        todo[where] = False
    return out
