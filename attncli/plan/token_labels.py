"""The labels of queries and keys: those of the file, or numbers. Entry: `token_labels`."""

from __future__ import annotations

from functools import cache

from attncli.types import Labels, Problem
from attncli.validation import ProblemSize

_MAX_REMEMBERED_LABELS = 2**15  # they take longer to make than a small context, and some 2 MB


def token_labels(problem: Problem, size: ProblemSize) -> tuple[Labels, Labels]:
    """Return labels of queries and of keys: the file's, or their numbers; a batch has one tuple of labels an item."""
    has_batch = size.batch is not None

    def per_item(labels: Labels) -> Labels:
        is_nested = bool(labels) and isinstance(labels[0], tuple)
        if is_nested == has_batch:
            return labels
        return (labels,) * (size.batch or 1) if has_batch else labels[0]

    tokens = per_item(_number_labels(0, size.queries) if problem.tokens is None else problem.tokens)
    new = _new_key_labels(problem, size)
    if new is not None and len(new[0] if isinstance(new[0], tuple) else new) == size.keys:
        return tokens, per_item(new)  # they name the keys of the past too
    past = (problem.past or {}).get("tokens")
    past = per_item(_number_labels(0, size.past) if past is None else past)
    new = per_item(_number_labels(size.past, size.past + size.new_keys) if new is None else new)
    keys = tuple(a + b for a, b in zip(past, new, strict=True)) if has_batch else past + new
    return tokens, keys


def _number_labels(first: int, end: int) -> Labels:
    """Return the numbers from `first` to `end - 1` as labels."""
    if end > _MAX_REMEMBERED_LABELS:
        return tuple(map(str, range(first, end)))
    return _remembered_number_labels(1 << end.bit_length())[first:end]


@cache
def _remembered_number_labels(count: int) -> Labels:
    return tuple(map(str, range(count)))


def _new_key_labels(problem: Problem, size: ProblemSize) -> Labels | None:
    """Return the file's labels of the keys that are not in the cache, if it has any."""
    if problem.q is None:
        return problem.memory.get("tokens") if problem.memory else problem.tokens
    if problem.k_tokens is not None:
        return problem.k_tokens
    return problem.tokens if size.queries == size.new_keys else None
