"""NumPy arrays and tensors alike, without loading torch: `is_tensor`, `as_numpy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    NumpyArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def is_tensor(value: object) -> bool:
    """Whether a value is a torch tensor, without loading torch."""
    return hasattr(value, "requires_grad")


def as_numpy(value: Any) -> NumpyArray:
    """Return the values of an array or tensor outside its graph, in the nearest dtype that numpy has."""
    if not is_tensor(value):
        import numpy as np

        return np.asarray(value)
    detached = value.detach().cpu()
    if str(detached.dtype) == "torch.bfloat16":
        detached = detached.float()
    array: NumpyArray = detached.numpy()
    return array
