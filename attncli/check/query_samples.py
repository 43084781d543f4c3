"""A sample of queries, on which large problems are searched: which queries, and their part of claims, steps and figures.

`choose_queries` is the entry. A computation that gives all figures gives those of the sample, too; what is found on it
is confirmed on all queries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from attncli.check.claims import Claim
from attncli.check.task import CheckTask
from attncli.plan import Plan
from attncli.types import NumpyArray

_MAX_SAMPLED_SCORES = 1 << 18
_MIN_QUERIES, _MAX_QUERIES = 4, 64
_SHARE_OF_WRONG = 0.75  # of the sample, if there are so many


def choose_queries(task: CheckTask, are_wrong: Sequence[NumpyArray]) -> NumpyArray:
    """Choose queries for a sample: wrong ones first, from the first to the last of them, and some of the others.

    Args:
        task: with its claims.
        are_wrong: for each claim, which of its figures are.

    Returns:
        Ascending indices.
    """
    plan = task.plan
    scores_of_query = (plan.size.batch or 1) * plan.shapes.heads * plan.size.keys
    count = min(max(_MAX_SAMPLED_SCORES // scores_of_query, _MIN_QUERIES), _MAX_QUERIES, plan.size.queries)
    claimed, wrong = np.zeros((2, plan.size.queries), bool)
    chosen: list[NumpyArray] = []
    for claim, is_wrong in zip(task.claims, are_wrong, strict=True):
        queries = _queries_of(claim)
        if queries is None:
            continue
        claimed[queries] = True
        wrong[np.broadcast_to(queries, is_wrong.shape)[is_wrong]] = True
    wrong_count = int(count * _SHARE_OF_WRONG) if not wrong[claimed].all() else count
    chosen.append(_spread(np.flatnonzero(wrong), wrong_count))
    if not claimed.any():  # there are figures of keys and values alone
        claimed[:] = True
    for candidates in (claimed & ~wrong, wrong):
        taken = np.unique(np.concatenate(chosen))
        candidates[taken] = False
        chosen.append(_spread(np.flatnonzero(candidates), count - len(taken)))
    return np.unique(np.concatenate(chosen))


def choose_large_queries(plan: Plan, steps: Mapping[str, NumpyArray]) -> NumpyArray:
    """Choose queries with the largest figures, whose roundings are the largest, and some others.

    Args:
        plan: of the problem.
        steps: steps that have queries, on all their axes.

    Returns:
        Ascending indices.
    """
    chosen = [_spread(np.arange(plan.size.queries), _MAX_QUERIES // 2)]
    for step, values in steps.items():
        axis = plan.steps[step].index("query")
        others = tuple(i for i in range(values.ndim) if i != axis)
        largest = np.abs(np.where(np.isfinite(values), values, 0)).max(axis=others)
        chosen.append(np.argsort(-largest, kind="stable")[: _MAX_QUERIES // 2 // len(steps)])
    return np.unique(np.concatenate(chosen))


def _spread(indices: NumpyArray, count: int) -> NumpyArray:
    """Choose so many of ascending indices, at equal distances from the first to the last."""
    if len(indices) <= count:
        return indices
    return indices[np.unique(np.linspace(0, len(indices) - 1, max(count, 0)).astype(int))]


def _query_axis(claim: Claim) -> int | None:
    return claim.axes.index("query") if "query" in claim.axes else None


def _is_list_of_cells(claim: Claim) -> bool:
    return claim.step_figures.cells is not None or claim.step_figures.cell_indices is not None


def _queries_of(claim: Claim) -> NumpyArray | None:
    """Return the query of each figure, in a shape that broadcasts to the claim's; None where there are no queries."""
    axis = _query_axis(claim)
    return None if axis is None else claim.index[axis]


def restrict_step(plan: Plan, step: str, values: NumpyArray, queries: NumpyArray) -> NumpyArray:
    """Return the part of a step, on all its axes, that is of some queries."""
    axes = plan.steps.get(step, ())
    return values.take(queries, axes.index("query")) if "query" in axes else values


def restrict_figures(claim: Claim, figures: NumpyArray, queries: NumpyArray) -> NumpyArray:
    """Return those of some queries of figures in the shape of a claim."""
    axis = _query_axis(claim)
    if axis is None:
        return figures
    is_in = np.isin(claim.index[axis].ravel(), queries)
    return figures[is_in] if _is_list_of_cells(claim) else figures.compress(is_in, axis)


def restrict_claim(claim: Claim, queries: NumpyArray) -> Claim:
    """Return the figures of a claim that are of some queries, at their cells in what is computed of these alone."""
    axis = _query_axis(claim)
    if axis is None:
        return claim
    own = claim.index[axis].ravel()
    is_in = np.isin(own, queries)
    if _is_list_of_cells(claim):
        index = tuple(side[is_in] for side in claim.index)
    else:
        index = tuple(side.compress(is_in, axis) if i == axis else side for i, side in enumerate(claim.index))
    positions = np.searchsorted(queries, index[axis])
    return dataclasses.replace(
        claim,
        values=restrict_figures(claim, claim.values, queries),
        index=(*index[:axis], positions, *index[axis + 1 :]),
        decimals=None if claim.decimals is None else restrict_figures(claim, claim.decimals, queries),
    )
