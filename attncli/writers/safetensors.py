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

from attncli.output_formats import Look, output_format
from attncli.plan import Plan
from attncli.plan.schedule import matrices
from attncli.types import Attention, Json, NumpyArray
from attncli.validation.fields import shape_of
from attncli.writers.npz import flat

_NAMES = {"<f8": "F64", "<f4": "F32", "<f2": "F16", "<i8": "I64", "<i4": "I32", "|b1": "BOOL", "<u2": "BF16"}


class Spool:
    """A file that is being made: some steps are computed straight into it, the others and the header follow."""

    def __init__(self, file: IO[bytes], dtype: str, attention: Attention) -> None:
        self.file, self.dtype = file, dtype
        _, rest = _packed(attention)  # of a result without steps: its labels make the header long
        self.start = len(_header({}, rest)) + 2**18  # and formulas, warnings and names are a few lines
        self.start += -self.start % 8
        self.places: Json = {}
        self.end = 0

    def room(self, name: str, lengths: Sequence[int]) -> Any:
        """A tensor of those lengths that lies in the file."""
        import torch

        kind = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}[self.dtype]
        held = np.dtype("?" if name == "mask" else kind)
        self.places[name] = _place(np.broadcast_to(np.zeros((), held), lengths), self.end)
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
            if s.name in self.places
            else s
            for s in attention.steps
        )
        arrays, rest = _packed(dataclasses.replace(attention, steps=tuple(steps)))
        self.file.seek(self.start + self.end)
        for name, x in sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize):
            if name not in self.places:
                self.places[name] = _place(x, self.end)
                self.file.write(_bytes(x))
                self.end += x.nbytes
        self.file.seek(0)
        self.file.write(_header(self.places, rest, self.start))


def stream(file: IO[bytes], plan: Plan, compute: Callable[..., Attention]) -> Attention:
    """A long run whose matrices are computed straight into the file, tile by tile."""
    labels = Attention(plan.variant.describe(), plan.tokens, plan.k_tokens, (), about=plan.problem.about)
    spool, large = Spool(file, plan.variant.dtype, labels), matrices(plan)
    attention = compute(lambda name, lengths: spool.room(name, lengths) if name in large else None)
    spool.finish(attention)
    return attention


@output_format("safetensors", ".safetensors", binary=True, streams=stream)
def write_safetensors(attention: Attention, look: Look) -> list[bytes | memoryview]:
    """Tensors in their own dtype; bfloat16 is kept."""
    arrays, rest = _packed(attention)
    order = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)  # so that each lies where its items may
    places: Json = {}
    at = 0
    for name in order:
        places[name] = _place(arrays[name], at)
        at += arrays[name].nbytes
    return [_header(places, rest), *(_bytes(arrays[name]) for name in order)]


def _packed(attention: Attention) -> tuple[dict[str, NumpyArray], str]:
    """Every array as its bytes shall be, and the rest of the record; of a bfloat16 the upper half of its float32."""
    arrays, rest = flat(attention)
    for step in attention.steps if attention.dtype == "bfloat16" else ():
        if arrays[step.name].dtype.kind == "f" and arrays[step.name].strides != (0,) * arrays[step.name].ndim:
            arrays[step.name] = (arrays[step.name].astype("<f4").view("<u4") >> 16).astype("<u2")
    return arrays, rest


def _bytes(x: NumpyArray) -> memoryview:
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8).data if x.size else memoryview(b"")


def _place(x: NumpyArray, at: int) -> Json:
    return {"dtype": _NAMES[x.dtype.str], "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}


def _header(places: Json, rest: str, size: int = 0) -> bytes:
    """The length and the header, filled up with spaces to a multiple of eight or to a size."""
    text = msgspec.json.encode({"__metadata__": {"attn": rest}, **places})
    size = size or (len(text) + 8 + 7) // 8 * 8
    assert len(text) + 8 <= size, "the header has outgrown the room that was left for it"
    return (size - 8).to_bytes(8, "little") + text.ljust(size - 8)
