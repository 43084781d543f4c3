"""safetensors: steps and drawn parameters as tensors, the rest of the record as JSON in the metadata `attn`."""

from __future__ import annotations

from typing import Any

import numpy as np

from attncli.formats import Look, output_format
from attncli.types import Attention
from attncli.writers.numpy import flat

_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "bool": "BOOL"}


@output_format("safetensors", ".safetensors", binary=True)
def write_safetensors(attention: Attention, look: Look) -> bytes:
    """Tensors in their own dtype; bfloat16 is kept."""
    from safetensors import serialize

    arrays, rest = flat(attention)
    return bytes(serialize({name: _tensor(x, attention.dtype, name) for name, x in arrays.items()}, {"attn": rest}))


def _tensor(x: np.ndarray, dtype: str, name: str) -> Any:
    if dtype == "bfloat16" and x.dtype == np.float32 and not name.startswith("parameters."):
        return {
            "dtype": "BF16",
            "shape": x.shape,
            "data": (np.ascontiguousarray(x).view("<u4") >> 16).astype("<u2").tobytes(),
        }
    return {"dtype": _NAMES[str(x.dtype)], "shape": x.shape, "data": np.ascontiguousarray(x).tobytes()}
