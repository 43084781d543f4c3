"""Write safetensors: steps and drawn parameters as tensors, and the rest of the record as JSON in the metadata `attn`.

Entries: `write_safetensors`; `stream_safetensors` for results that are larger than memory. The format is a length, a JSON
header and the tensors' bytes, so that arrays are written as they lie in memory, or computed in the file in the first place.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import IO

import msgspec
import numpy as np

from attncli.output_formats import RenderOptions, output_format
from attncli.plan import Plan
from attncli.types import SAFETENSORS_DTYPES, Attention, Json, NumpyArray, Step, Tensor
from attncli.validation.fields import shape_of
from attncli.writers.npz import flatten_record

_DTYPE_NAMES = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}  # of <u2 it is BF16
_NUMPY_DTYPES = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}  # of bfloat16 its bits
_BYTES_FOR_REST = 2**18  # of a header, for formulas, warnings and names, which are a few lines


class SafetensorsFile:
    """A file in the making: large steps are computed in it; the others, and the header before them, are written by `finish`."""

    def __init__(self, file: IO[bytes], dtype: str, attention: Attention) -> None:
        self.file, self.dtype = file, dtype
        _, rest = _pack_arrays(attention)  # of a result without steps: its labels may make the header long
        self.start = len(_encode_header({}, rest)) + _BYTES_FOR_REST  # of the tensors, in the file
        self.start += -self.start % 8
        self.entries: Json = {}  # of the header, by the tensor's name
        self.end = 0  # of the tensors so far, from their start

    def allocate_tensor(self, name: str, lengths: Sequence[int]) -> Tensor:
        """Return a new tensor of these lengths, whose memory is the file."""
        import torch

        is_mask = name == "mask"
        dtype = np.dtype("?" if is_mask else _NUMPY_DTYPES[self.dtype])
        self.entries[name] = _make_entry(np.broadcast_to(np.zeros((), dtype), lengths), self.end)
        begin, self.end = self.start + self.end, self.end + math.prod(lengths) * dtype.itemsize
        if hasattr(os, "posix_fallocate"):  # a full disk is met here, and not when a page is written
            os.posix_fallocate(self.file.fileno(), 0, self.start + self.end)
        else:
            self.file.truncate(self.start + self.end)
        tensor = torch.from_numpy(np.memmap(self.file, dtype, "r+", begin, tuple(lengths)))
        return tensor.view(torch.bfloat16) if self.dtype == "bfloat16" and not is_mask else tensor

    def finish(self, attention: Attention) -> None:
        """Write the steps that are in memory, and the header."""
        steps = tuple(_without_values(step) if step.name in self.entries else step for step in attention.steps)
        arrays, rest = _pack_arrays(dataclasses.replace(attention, steps=steps))
        self.file.seek(self.start + self.end)
        for name in _aligned_order(arrays):
            if name not in self.entries:
                self.entries[name] = _make_entry(arrays[name], self.end)
                self.file.write(_array_bytes(arrays[name]))
                self.end += arrays[name].nbytes
        self.file.seek(0)
        self.file.write(_encode_header(self.entries, rest, self.start))


def _without_values(step: Step) -> Step:
    """Return a step with zeros of no memory in place of its values."""
    return dataclasses.replace(step, values=np.broadcast_to(np.float32(0), shape_of(step.values)))


def stream_safetensors(file: IO[bytes], plan: Plan, compute: Callable[..., Attention]) -> Attention:
    """Compute a long run whose matrices go straight to a file, tile by tile.

    Args:
        file: open for writing and reading.
        plan: what is computed.
        compute: (name, lengths) → tensor or None: which allocates steps → the result.
    """
    problem = plan.problem
    without_steps = Attention(
        plan.variant.describe(),
        plan.tokens,
        plan.k_tokens,
        (),
        about=problem.about,
        source=problem.source,
        line=problem.line,
        id=problem.id,
        meta=problem.meta,
        settings=plan.settings,
    )
    output = SafetensorsFile(file, plan.variant.dtype, without_steps)
    tensors = {
        name: output.allocate_tensor(name, [plan.axis_length(name, axis) for axis in plan.present_axes(name)])
        for name in plan.matrix_steps
    }
    attention = compute(lambda name, lengths: tensors.get(name))
    output.finish(attention)
    return attention


@output_format("safetensors", ".safetensors", is_binary=True, stream_writer=stream_safetensors)
def write_safetensors(attention: Attention, options: RenderOptions) -> list[bytes | memoryview]:
    """Write tensors in their own dtype; bfloat16 is kept."""
    return pack_tensors(*_pack_arrays(attention))


def pack_tensors(arrays: Mapping[str, NumpyArray], rest: str) -> list[bytes | memoryview]:
    """Return a file of arrays under their names, and the JSON beside them, in pieces."""
    names = _aligned_order(arrays)
    entries: Json = {}
    end = 0
    for name in names:
        entries[name] = _make_entry(arrays[name], end)
        end += arrays[name].nbytes
    return [_encode_header(entries, rest), *(_array_bytes(arrays[name]) for name in names)]


def _aligned_order(arrays: Mapping[str, NumpyArray]) -> list[str]:
    """Return the names of arrays with the largest items first, so that each array is aligned."""
    return sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)


def _pack_arrays(attention: Attention) -> tuple[dict[str, NumpyArray], str]:
    """Return every array as it is written, and the rest of the record as JSON; of a bfloat16 the upper half of its float32."""
    arrays, rest = flatten_record(attention)
    if attention.dtype == "bfloat16":
        for step in attention.steps:
            values = arrays[step.name]
            is_in_file = values.strides == (0,) * values.ndim  # see `_without_values`
            if values.dtype.kind == "f" and not is_in_file:
                arrays[step.name] = (values.astype("<f4").view("<u4") >> 16).astype("<u2")
    return arrays, rest


def _array_bytes(x: NumpyArray) -> memoryview:
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8).data if x.size else memoryview(b"")


def _make_entry(x: NumpyArray, start: int) -> Json:
    """Make the entry of the header for an array that begins at an offset."""
    return {"dtype": _DTYPE_NAMES[x.dtype.str], "shape": list(x.shape), "data_offsets": [start, start + x.nbytes]}


def _encode_header(entries: Json, rest: str, size: int = 0) -> bytes:
    """Return the length and the header, filled up with spaces to `size` bytes, or else to a multiple of eight."""
    text = msgspec.json.encode({"__metadata__": {"attn": rest}, **entries})
    size = size or (len(text) + 8 + 7) // 8 * 8
    assert len(text) + 8 <= size, "the header is longer than the bytes that were reserved for it"
    return (size - 8).to_bytes(8, "little") + text.ljust(size - 8)
