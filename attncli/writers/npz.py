"""NPZ: steps and drawn parameters as arrays under their names, the rest of the record as JSON in `attn`."""

from __future__ import annotations

import io

import msgspec
import numpy as np

from attncli.output_formats import RenderOptions, output_format
from attncli.types import Attention, NumpyArray
from attncli.writers.record import to_record


def flatten_record(attention: Attention) -> tuple[dict[str, NumpyArray], str]:
    """(arrays by dotted name, the rest as JSON)"""
    fields = to_record(attention, as_lists=False)
    parameters = fields.pop("parameters", {})
    arrays = {k: v for k, v in fields.items() if isinstance(v, np.ndarray)}
    rest = {k: v for k, v in fields.items() if k not in arrays}
    return arrays | {f"parameters.{k}": v for k, v in parameters.items()}, msgspec.json.encode(rest).decode()


@output_format("npz", ".npz", is_binary=True, unsupported_dtypes=("bfloat16",))
def write_npz(attention: Attention, options: RenderOptions) -> bytes:
    """An archive of arrays; bfloat16 becomes float32, which numpy has."""
    arrays, rest = flatten_record(attention)
    out = io.BytesIO()
    np.savez(out, attn=np.array(rest), **arrays)  # type: ignore[arg-type]  # names are keywords here
    return out.getvalue()
