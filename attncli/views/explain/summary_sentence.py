"""The sentence below the page: where the query looks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from attncli.types import NumpyArray
from attncli.views.explain.head_values import HeadValues

_MAX_KEYS_NAMED = 3  # keys of the largest weights that the sentence names
_OTHERS = "the other "
_MIN_SHARE_NAMED = 0.005  # a smaller weight would be 0 %


def summary_sentence(head: HeadValues) -> str:
    """Say which keys have the largest weights, as shares where weights sum to 1."""
    weights = np.array([head.weight_number(head.final_weights_step, j).value for j in range(head.plan.size.keys)])
    sink = 0.0
    if "sink_weights" in head.steps:
        sink = head.step_values.number_at("sink_weights", **head.indices).value
    query = f"“{head.step_values.token('query', head.focus.query)}”"
    if head.plan.shapes.heads > 1:
        query = f"In head {head.head} {query}"
    if not np.isfinite(weights).all():
        return f"{query} has weights that are not numbers."
    if not weights.any():
        if head.final_weights_step == "dropout_weights" and _has_weights_before_dropout(head):
            return f"{query} looks nowhere: all of its weights are dropped."
        return f"{query} looks nowhere."
    largest = [int(j) for j in np.argsort(-np.abs(weights), kind="stable")[:_MAX_KEYS_NAMED] if weights[j]]
    if (weights < 0).any() or abs(weights.sum() + sink - 1) >= 1e-3:
        return f"{query} weighs {', '.join(f'{_key_name(head, j)} by {weights[j]:.4g}' for j in largest)}."
    receivers = _largest_weights_by_name(head, weights, sink)
    has_others = receivers[-1][0].startswith(_OTHERS)
    percentages = _apportion([share for _, share in receivers], has_others=has_others)
    preposition = "to" if sink else "from"
    shares = [
        f"{percentage} % {preposition} {name}"
        for (name, _), percentage in zip(receivers, percentages, strict=True)
        if percentage
    ]
    if sink:
        return f"{query} gives {', '.join(shares)}."
    if "context" in head.steps:
        shares[0] = shares[0].replace(" % ", " % of its context ", 1)
    return f"{query} takes {', '.join(shares)}."


def _has_weights_before_dropout(head: HeadValues) -> bool:
    return any(head.weight_number("weights", j).value for j in range(head.plan.size.keys))


def _largest_weights_by_name(head: HeadValues, weights: NumpyArray, sink: float) -> list[tuple[str, float]]:
    """The keys of the largest weights by name, the sink, and all others together: each with its share."""
    order = [int(j) for j in np.argsort(-weights, kind="stable") if weights[j]]
    named = [j for n, j in enumerate(order[:_MAX_KEYS_NAMED]) if n == 0 or weights[j] >= _MIN_SHARE_NAMED]
    others = order[len(named) :]
    if len(others) == 1:
        named, others = order, []
    receivers = [(_key_name(head, j), float(weights[j])) for j in named] + ([("the sink", sink)] if sink else [])
    return [*receivers, (f"{_OTHERS}{len(others)}", float(weights[others].sum()))] if others else receivers


def _apportion(shares: Sequence[float], *, has_others: bool) -> list[int]:
    """Shares in whole percent, which sum to 100.

    Each is rounded, where the last one, that of all others together, can take the difference; else all are rounded down, and
    those up that lose the most (Hamilton's method).
    """
    total = sum(shares)
    exact = [100 * share / total for share in shares]
    if has_others and sum(map(round, exact[:-1])) <= 100:
        rounded = list(map(round, exact[:-1]))
        return [*rounded, 100 - sum(rounded)]
    percentages = [math.floor(x) for x in exact]
    by_loss = sorted(range(len(exact)), key=lambda i: percentages[i] - exact[i])
    for i in by_loss[: 100 - sum(percentages)]:
        percentages[i] += 1
    return percentages


def _key_name(head: HeadValues, key_index: int) -> str:
    """`itself` for the query's own token, which it can be only where queries and keys come from the same embeddings."""
    problem = head.plan.problem
    is_own_token = key_index == head.focus.query + head.plan.size.past
    if problem.embeddings is not None and problem.memory is None and is_own_token:
        return "itself"
    return f"“{head.key_label(key_index)}”"
