"""safetensors: steps and drawn parameters as tensors, the rest of the record as JSON in the metadata `attn`."""

from __future__ import annotations

from attncli.formats import Look, output_format
from attncli.types import Attention
from attncli.writers.numpy import flat


@output_format("safetensors", ".safetensors", binary=True)
def write_safetensors(attention: Attention, look: Look) -> bytes:
    """Tensors in their own dtype; bfloat16 is kept."""
    import torch  # loaded by then: a result has been computed
    from safetensors.torch import save

    arrays, rest = flat(attention)
    tensors = {name: torch.from_numpy(x.copy()) for name, x in arrays.items()}  # a copy: contiguous, and no other's
    if attention.dtype == "bfloat16":
        steps = {step.name for step in attention.steps}
        tensors = {name: x.bfloat16() if name in steps and x.is_floating_point() else x for name, x in tensors.items()}
    return bytes(save(tensors, {"attn": rest}))
