"""What is shown of many: the first, the last, and those with the largest weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from attncli.types import NumpyArray


def leading_and_trailing(length: int, max_shown: int) -> list[int | None]:
    """Indices of the first and last of so many, with None for the gap between."""
    if length <= max_shown:
        return list(range(length))
    leading_count = max(1, max_shown // 2)
    trailing_count = max_shown - leading_count
    return [*range(leading_count), None, *range(length - trailing_count, length)]


def leading_trailing_and_strongest(
    length: int, max_shown: int, ranking: Sequence[int], shown_per_strongest: int
) -> list[int | None]:
    """Indices of the first, the last and the strongest of so many, with None for each gap between.

    Args:
        length: how many there are.
        max_shown: how many are shown.
        ranking: their indices from the strongest to the weakest; empty: none is stronger.
        shown_per_strongest: of so many shown, one is there for its strength.
    """
    strongest_count = max_shown // shown_per_strongest if ranking and length > max_shown else 0
    shown = leading_and_trailing(length, max_shown - strongest_count)
    if not strongest_count:
        return shown
    indices = {i for i in shown if i is not None}
    indices |= set(islice((i for i in ranking if i not in indices), strongest_count))
    with_gaps: list[int | None] = []
    for i in sorted(indices):
        if i and i - 1 not in indices:
            with_gaps.append(None)
        with_gaps.append(i)
    return with_gaps


def rank_by_strength(strengths: NumpyArray) -> list[int]:
    """Indices from the strongest to the weakest; of equal ones the first comes first, and NaN counts as 0."""
    ranking: list[int] = np.argsort(-np.nan_to_num(strengths), kind="stable").tolist()
    return ranking


def count_shown(noun: str, count: int, shown: int) -> list[str]:
    """`300 rows (40 shown)`; nothing if all are."""
    return [f"{count} {noun} ({shown} shown)"] if shown < count else []
