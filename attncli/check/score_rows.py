"""A few rows of scores and the values that they meet, on which many ways of getting from one to the other are compared cheaply.

`ScoreRows(trials)` is the entry. What does not come nearer to the claimed figures on these rows is no cause, and is not computed as a whole.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from attncli.check.claims import to_step_array
from attncli.check.plan_edits import with_mixed_weights, with_normalizer
from attncli.check.trials import Trials, compute_or_none
from attncli.plan import Plan
from attncli.plan.head_shapes import kv_head_of
from attncli.registry import AnyPart
from attncli.types import NumpyArray, Tensor

_MAX_QUERIES = 6  # those whose figures are furthest off
_MAX_NUMBERS = 1 << 24  # scores, keys and values: a larger problem is searched on a sample, or not for this
_MIN_SHARE_LEFT = 0.25  # of the reference's error, below which a way is worth computing as a whole
# weights by which exponentials are divided, and weights that meet the values: (b, h, n, m) each
WeightPair: TypeAlias = tuple[Tensor, Tensor]


class ScoreRows:
    """The scores that the normaliser takes for some queries, the values of all keys, and what is claimed of the result."""

    def __init__(self, trials: Trials) -> None:
        """Run the plan once, and keep the rows whose figures are furthest off.

        Raises:
            ValueError: no claim is made from these scores in a way that is known here.
        """
        self.plan = trials.plan
        self.step = _most_informative_step(trials)
        captured: list[Tensor] = []

        def capture(normalizer: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
            captured[:] = [s.masked_fill(~visible, -math.inf)]
            w: Tensor = normalizer(s, visible)
            return w

        keep = {"weights", "present_v" if "present_v" in self.plan.steps else "v"} & set(self.plan.steps)
        steps = trials.compute_steps(_with_kept_steps(with_normalizer(self.plan, capture), keep | trials.claimed_steps))
        if not captured:
            raise ValueError("the scores are computed in tiles")
        self.scores = captured[0]  # (b, h, n, m), or m + 1 with a sink
        claim = next(claim for claim in trials.claims if claim.step == self.step)
        claimed = np.full(steps[self.step].shape, np.nan)
        claimed[claim.index] = to_step_array(claim, steps[self.step].shape)[claim.index]
        with np.errstate(all="ignore"):
            error = np.abs(claimed - steps[self.step])
        axis = self.plan.steps[self.step].index("query")
        by_query = np.nan_to_num(np.moveaxis(error, axis, 0).reshape(error.shape[axis], -1), posinf=0).max(-1)
        self.queries = np.sort(np.argsort(-by_query, kind="stable")[:_MAX_QUERIES])
        self.scores = self.scores[:, :, self.queries]
        self.claimed = np.take(claimed, self.queries, axis)
        self.error_before = _root_mean_square(np.take(error, self.queries, axis))
        self.values = None if self.step in ("weights", "log_sum_exp") else self._values_of_heads(steps)

    def _values_of_heads(self, steps: dict[str, NumpyArray]) -> Tensor:
        import torch

        v = steps.get("present_v", steps.get("v"))
        assert v is not None
        x = torch.as_tensor(v)
        x = x if self.plan.size.batch is not None else x[None]
        x = x if self.plan.shapes.has_head_axis else x[:, None]
        heads = self.plan.shapes.heads
        return x[:, [kv_head_of(head, heads, x.shape[1], self.plan.variant.kv_map) for head in range(heads)]]

    def is_nearer(self, pair: WeightPair) -> bool:
        """Tell whether weights take off most of the error that the reference has on these rows."""
        with np.errstate(all="ignore"):
            error = _root_mean_square(np.abs(self._figures(pair) - self.claimed))
        return error < _MIN_SHARE_LEFT * self.error_before

    def _figures(self, pair: WeightPair) -> NumpyArray:
        """Compute the claimed step of these rows from weights."""
        divided, summed = pair
        x: Tensor = divided
        if self.step == "log_sum_exp":
            x = self.scores.amax(-1) - divided.amax(-1).log()
        elif self.values is not None:
            x = summed[..., : self.values.shape[-2]] @ self.values  # (b, h, n, c)
            if self.step in ("context", "output"):
                x = x.transpose(1, 2).flatten(2)
            if self.step == "output":
                parameters = self.plan.problem.parameters
                w_o = np.asarray(parameters["w_o"], np.float64)
                x = x @ x.new_tensor(w_o.T if self.plan.projection_sizes().out_in else w_o)
                x = x + x.new_tensor(np.asarray(parameters["b_o"])) if "b_o" in parameters else x
        figures: NumpyArray = x.numpy()
        return figures.reshape(self.claimed.shape) if figures.size == self.claimed.size else figures


def _most_informative_step(trials: Trials) -> str:
    """Return the claimed step that tells most of how scores become a context."""
    plan = trials.plan
    is_plain = plan.variant.head_mixing.is_none and plan.variant.dropout.is_none and plan.size.queries > 0
    size = (plan.size.batch or 1) * plan.shapes.heads * plan.axis_length("scores", "query") * plan.size.keys
    if not is_plain or plan.shapes.has_paired_heads or size > _MAX_NUMBERS:
        raise ValueError("not plain attention, or too large")
    claimed = [claim.step for claim in trials.claims]
    for step in ("head_context", "context", "output", "log_sum_exp", "weights"):
        if step in claimed and (step != "output" or "w_o" in plan.problem.parameters):
            return step
    raise ValueError("nothing is claimed that follows from the weights")


def _with_kept_steps(plan: Plan, steps: frozenset[str] | set[str]) -> Plan:
    return dataclasses.replace(plan, keep=frozenset(steps) & frozenset(plan.steps))


def _root_mean_square(x: NumpyArray) -> float:
    finite = x[np.isfinite(x)]
    return float(np.sqrt((finite**2).mean())) if finite.size else math.inf


_ROWS_OF_TRIALS: WeakKeyDictionary[Trials, ScoreRows | None] = WeakKeyDictionary()


def score_rows(trials: Trials) -> ScoreRows | None:
    """Return the rows of trials, computed once; None where there are none."""
    if trials not in _ROWS_OF_TRIALS:
        _ROWS_OF_TRIALS[trials] = compute_or_none(lambda: ScoreRows(trials))
    return _ROWS_OF_TRIALS[trials]


def with_weights_of_scores(plan: Plan, weigh: Callable[[Tensor], WeightPair]) -> Plan | None:
    """Make the plan whose exponentials are divided, and values summed, as weigh(scores, −∞ where hidden) says.

    Args:
        plan: without mixing of heads.
        weigh: (b, h, n, m) → the weights, and those that meet the values.
    """
    summed: list[Tensor] = []

    def normalize(_: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
        divided, met = weigh(s.masked_fill(~visible, -math.inf))
        summed[:] = [met]
        return divided

    return with_mixed_weights(with_normalizer(plan, normalize), lambda w: summed[0][..., : w.shape[-1]])
