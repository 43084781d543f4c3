"""A small map of where figures are wrong, in characters. `error_map_lines` is the entry."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from attncli.verdict import ErrorMap

_MAX_ROWS = 16
_SHADES = "░▒▓"
_NEARLY_ALL = 0.99  # a few wrong figures among many are right by chance


def error_map_lines(step: str, error_map: ErrorMap) -> Iterator[str]:
    """Draw a map: a line for each row, a character for each column, with the index at which every eighth column begins."""
    yield f"map of {step}: {error_map.row_axis} × {error_map.column_axis}   · right  ░▒▓ partly wrong  █ wrong"
    groups = _group_equal_rows(error_map)
    rows = groups[:_MAX_ROWS]
    width = max(len(label) for label, _ in rows)
    starts = (0, *error_map.column_ends[:-1])
    ruler = ""
    for column in range(0, len(starts), 8):
        label = str(starts[column])
        if len(ruler) <= column and column + len(label) <= len(starts) + 8:
            ruler = ruler.ljust(column) + label
    yield f"{'':{width}}  {ruler}"
    for label, shares in rows:
        yield f"{label:>{width}}  {''.join(map(_shade, shares))}"
    if len(groups) > len(rows):
        yield f"{'…':>{width}}  {len(groups) - len(rows)} more"


def _group_equal_rows(error_map: ErrorMap) -> list[tuple[str, tuple[float, ...]]]:
    """Rows that follow each other and look alike become one, with both their labels."""
    rows = zip(error_map.row_labels, error_map.shares, strict=True)
    groups = [[label for label, _ in group] for _, group in groupby(rows, key=lambda row: row[1])]
    patterns = [pattern for pattern, _ in groupby(error_map.shares)]
    labels = [group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}" for group in groups]
    return list(zip(labels, patterns, strict=True))


def _shade(share: float) -> str:
    if share == 0:
        return "·"
    return "█" if share >= _NEARLY_ALL else _SHADES[min(2, int(share * 3))]
