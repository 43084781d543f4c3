"""Write NPZ: steps and drawn parameters as arrays under their names, and the rest of the record as JSON in `attn`."""

from __future__ import annotations

import io

import msgspec
import numpy as np

from attncli.output_formats import RenderOptions, output_format
from attncli.types import Attention, NumpyArray
from attncli.writers.record import to_record


def flatten_record(attention: Attention) -> tuple[dict[str, NumpyArray], str]:
    """Return the arrays of a result by dotted name, and the rest of its record as JSON."""
    record = to_record(attention, as_lists=False)
    parameters = record.pop("parameters", {})
    arrays = {name: value for name, value in record.items() if isinstance(value, np.ndarray)}
    rest = {name: value for name, value in record.items() if name not in arrays}
    arrays |= {f"parameters.{name}": value for name, value in parameters.items()}
    return arrays, msgspec.json.encode(rest).decode()


@output_format("npz", ".npz", is_binary=True, unsupported_dtypes=("bfloat16",))
def write_npz(attention: Attention, options: RenderOptions) -> bytes:
    """Write an archive of arrays; bfloat16 becomes float32, which numpy has."""
    arrays, rest = flatten_record(attention)
    file = io.BytesIO()
    np.savez(file, attn=np.array(rest), **arrays)  # type: ignore[arg-type]  # names are keywords here
    return file.getvalue()
