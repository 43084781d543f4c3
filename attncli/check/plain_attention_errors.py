"""The error of plain attention in a narrow dtype, by which `flash` and `close` judge what was computed in it.

`PlainErrors` computes the problem in the dtype, and where that says too little, with every intermediate rounded to it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from attncli.check import figure_precision
from attncli.check.faults.rounding import rounded_intermediates, rounded_qkv
from attncli.check.trials import StepArrays, Trials, compute_or_none
from attncli.plan import Plan
from attncli.types import NumpyArray, Tensor

_DRAWS = 24  # of roundings up and down: so many meet what other libraries are off by
_MAX_DRAWN_SCORES = 1 << 16  # on a larger problem one computation meets every case
_INTERMEDIATES = ("scores", "chain", "exponentials", "shifted", "weights", "context")


class PlainErrors:
    """The largest errors of plain attention, by step and dtype; each computation runs once, when it is needed."""

    def __init__(self, trials: Trials, reference: Mapping[str, NumpyArray], score_count: int) -> None:
        self.trials = trials
        self.reference = reference
        self.score_count = score_count
        self._computed: dict[tuple[str, int], StepArrays] = {}

    def largest_error(self, step: str, dtype: str, *, is_drawn: bool = False) -> float:
        """Return the largest error of a step that is computed in a dtype.

        Args:
            step: of the plan.
            dtype: float32, float16 or bfloat16.
            is_drawn: other libraries round other intermediates, and on a small problem chance decides by how much: the
                largest error of some such computations.
        """
        draws = range(_DRAWS + 1) if is_drawn and self.score_count <= _MAX_DRAWN_SCORES else range(1)
        return max(self._error(step, self._steps(dtype, draw)) for draw in draws)

    def _error(self, step: str, steps: StepArrays) -> float:
        if step not in steps:
            return 0.0
        values, reference = steps[step], self.reference[step]
        is_finite = np.isfinite(values) & np.isfinite(reference)
        return float(np.abs(values[is_finite] - reference[is_finite]).max(initial=0.0))

    def _steps(self, dtype: str, draw: int) -> StepArrays:
        """Compute the problem in a dtype, or draw how each intermediate is rounded to it; nothing where it cannot be."""
        if (dtype, draw) not in self._computed:
            plan = compute_or_none(lambda: self._plan(dtype, draw))
            steps = None if plan is None else compute_or_none(lambda: self.trials.compute_steps(plan))
            self._computed[dtype, draw] = steps or {}
        return self._computed[dtype, draw]

    def _plan(self, dtype: str, draw: int) -> Plan | None:
        if draw == 0:
            return self.trials.with_choices(dtype=dtype)
        normalizer, sink = self.trials.plan.variant.normalizer, self.trials.plan.variant.sink
        has_exponentials = normalizer.traits.is_exponential and sink.is_none
        names = [x for x in _INTERMEDIATES if has_exponentials or x not in ("exponentials", "shifted")]
        rounding = _DrawnRounding(dtype, draw)
        return rounded_qkv(self.trials, rounding, names) or rounded_intermediates(self.trials, rounding, names)


class _DrawnRounding:
    """Rounds up or down to a neighbour in a dtype, by chance."""

    def __init__(self, dtype: str, seed: int) -> None:
        self.dtype = dtype
        self.random = np.random.default_rng(seed)

    def __call__(self, x: Tensor) -> Tensor:
        import torch

        values = x.detach().numpy()
        with np.errstate(all="ignore"):
            off = figure_precision.spacing(self.dtype, values) * self.random.uniform(-0.5, 0.5, values.shape)
            return x + torch.as_tensor(np.where(np.isfinite(values) & (values != 0), off, 0.0))
