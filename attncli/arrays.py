"""NumPy arrays and tensors alike, without loading torch: `is_tensor`, `as_numpy`, `has_finite_sum`; and what else can be an array, as types."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard

_MIN_BLAS_SIZE = 2**20  # numbers, for which BLAS is worth its memory
_MAX_DOT_SIZE = 2**12  # numbers, for which it takes no memory, and less time than a sum

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

    NumpyArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]
    AnyNumpyArray: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.generic]]


class SupportsDLPack(Protocol):
    """An array of another library, such as JAX or CuPy."""

    def __dlpack__(self) -> object: ...


class SupportsArray(Protocol):
    """Whatever NumPy makes an array of: a data frame's column, a step of a result."""

    def __array__(self) -> AnyNumpyArray: ...


if TYPE_CHECKING:
    # Lists of numbers within each other, a NumPy array, a tensor, an array of another library, a step of a result.
    ArrayLike: TypeAlias = Sequence[object] | AnyNumpyArray | Tensor | SupportsArray | SupportsDLPack
    ArrayOrTensor: TypeAlias = AnyNumpyArray | Tensor


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Whether a value is a torch tensor, without loading torch."""
    return hasattr(value, "requires_grad")


def as_numpy(value: object) -> NumpyArray:
    """Return the values of an array or tensor outside its graph, in the nearest dtype that numpy has."""
    if not is_tensor(value):
        import numpy as np

        return np.asarray(value)
    detached = value.detach() if value.is_cpu else value.detach().cpu()
    if detached.element_size() == 2 and str(detached.dtype) == "torch.bfloat16":
        detached = detached.float()
    array: NumpyArray = detached.numpy()
    return array


def has_finite_sum(array: NumpyArray) -> bool:
    """Tell whether an array is known to hold neither NaN nor infinities, by a sum; False says only that it may hold some."""
    import numpy as np

    # BLAS takes half the time, and some memory of its own.
    has_size = array.size <= _MAX_DOT_SIZE or array.size >= _MIN_BLAS_SIZE
    if has_size and array.dtype.kind == "f" and array.flags.c_contiguous:
        return math.isfinite(np.vdot(array, array))  # which, as all of BLAS, warns of nothing
    with np.errstate(all="ignore"):
        return math.isfinite(array.sum())
