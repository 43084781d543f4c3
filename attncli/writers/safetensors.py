"""safetensors: steps and drawn parameters as tensors, the rest of the record as JSON in the metadata `attn`.

The format is a length, a JSON header and the tensors' bytes, so that arrays go to the file as they lie in memory, and
what is larger than memory is made there in the first place.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import IO, Any

import msgspec
import numpy as np

from attncli.output_formats import RenderOptions, output_format
from attncli.plan import Plan
from attncli.plan.schedule import matrix_steps
from attncli.types import Attention, Json, NumpyArray
from attncli.validation.fields import shape_of
from attncli.writers.npz import flatten_record

_SAFETENSORS_DTYPES = {
    "<f8": "F64",
    "<f4": "F32",
    "<f2": "F16",
    "<i8": "I64",
    "<i4": "I32",
    "|b1": "BOOL",
    "<u2": "BF16",
}


class SafetensorsFile:
    """A file that is being made: some steps are computed straight into it, the others and the header follow."""

    def __init__(self, file: IO[bytes], dtype: str, attention: Attention) -> None:
        self.file, self.dtype = file, dtype
        _, rest = _pack_arrays(attention)  # of a result without steps: its labels make the header long
        self.start = len(_encode_header({}, rest)) + 2**18  # and formulas, warnings and names are a few lines
        self.start += -self.start % 8
        self.entries: Json = {}
        self.end = 0

    def allocate_tensor(self, name: str, lengths: Sequence[int]) -> Any:
        """A tensor of those lengths that lies in the file."""
        import torch

        kind = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}[self.dtype]
        held = np.dtype("?" if name == "mask" else kind)
        self.entries[name] = _make_entry(np.broadcast_to(np.zeros((), held), lengths), self.end)
        begin, self.end = self.start + self.end, self.end + math.prod(lengths) * held.itemsize
        if hasattr(os, "posix_fallocate"):  # a full disk is met here, and not when a page is written
            os.posix_fallocate(self.file.fileno(), 0, self.start + self.end)
        else:
            self.file.truncate(self.start + self.end)
        array = np.memmap(self.file, held, "r+", begin, tuple(lengths))
        tensor = torch.from_numpy(array)
        return tensor.view(torch.bfloat16) if self.dtype == "bfloat16" and name != "mask" else tensor

    def finish(self, attention: Attention) -> None:
        """The steps that lie in memory, and the header."""
        shapes = {step.name: shape_of(step.values) for step in attention.steps}
        steps = (
            dataclasses.replace(s, values=np.broadcast_to(np.float32(0), shapes[s.name]))
            if s.name in self.entries
            else s
            for s in attention.steps
        )
        arrays, rest = _pack_arrays(dataclasses.replace(attention, steps=tuple(steps)))
        self.file.seek(self.start + self.end)
        for name, x in sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize):
            if name not in self.entries:
                self.entries[name] = _make_entry(x, self.end)
                self.file.write(_array_bytes(x))
                self.end += x.nbytes
        self.file.seek(0)
        self.file.write(_encode_header(self.entries, rest, self.start))


def stream_safetensors(file: IO[bytes], plan: Plan, compute: Callable[..., Attention]) -> Attention:
    """A long run whose matrices are computed straight into the file, tile by tile."""
    labels = Attention(plan.variant.describe(), plan.tokens, plan.k_tokens, (), about=plan.problem.about)
    spool, large = SafetensorsFile(file, plan.variant.dtype, labels), matrix_steps(plan)
    attention = compute(lambda name, lengths: spool.allocate_tensor(name, lengths) if name in large else None)
    spool.finish(attention)
    return attention


@output_format("safetensors", ".safetensors", is_binary=True, stream_writer=stream_safetensors)
def write_safetensors(attention: Attention, options: RenderOptions) -> list[bytes | memoryview]:
    """Tensors in their own dtype; bfloat16 is kept."""
    arrays, rest = _pack_arrays(attention)
    order = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)  # so that each lies where its items may
    places: Json = {}
    at = 0
    for name in order:
        places[name] = _make_entry(arrays[name], at)
        at += arrays[name].nbytes
    return [_encode_header(places, rest), *(_array_bytes(arrays[name]) for name in order)]


def _pack_arrays(attention: Attention) -> tuple[dict[str, NumpyArray], str]:
    """Every array as its bytes shall be, and the rest of the record; of a bfloat16 the upper half of its float32."""
    arrays, rest = flatten_record(attention)
    for step in attention.steps if attention.dtype == "bfloat16" else ():
        if arrays[step.name].dtype.kind == "f" and arrays[step.name].strides != (0,) * arrays[step.name].ndim:
            arrays[step.name] = (arrays[step.name].astype("<f4").view("<u4") >> 16).astype("<u2")
    return arrays, rest


def _array_bytes(x: NumpyArray) -> memoryview:
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8).data if x.size else memoryview(b"")


def _make_entry(x: NumpyArray, at: int) -> Json:
    return {"dtype": _SAFETENSORS_DTYPES[x.dtype.str], "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}


def _encode_header(places: Json, rest: str, size: int = 0) -> bytes:
    """The length and the header, filled up with spaces to a multiple of eight or to a size."""
    text = msgspec.json.encode({"__metadata__": {"attn": rest}, **places})
    size = size or (len(text) + 8 + 7) // 8 * 8
    assert len(text) + 8 <= size, "the header has outgrown the room that was left for it"
    return (size - 8).to_bytes(8, "little") + text.ljust(size - 8)
