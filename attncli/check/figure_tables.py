"""Claimed figures as tables beside the reference, for a report that marks each of them. Entry: `make_figure_tables`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

import numpy as np

from attncli.check.claims import Claim, describe_cell
from attncli.plan import Plan
from attncli.types import NumpyArray
from attncli.verdict import FigureTable
from attncli.views.verdicts.gap_marks import MAX_SHOWN_DECIMALS, format_number

_OUTER_AXES = ("batch", "head", "kv_head")
_MAX_FIGURES = 10_000  # of one step, that are shown
_DEFAULT_DECIMALS = 4  # of figures that are no decimals as written
_REFERENCE_DECIMALS = 2  # that the reference has beyond a figure


def make_figure_tables(
    plan: Plan, claim: Claim, reference: NumpyArray, is_right: NumpyArray, decimals: NumpyArray | None
) -> Iterator[FigureTable]:
    """Yield the tables of a claim: one for each batch item and head; none where the figures are too many to be shown.

    Args:
        plan: its problem has the tokens.
        claim: the figures and their cells.
        reference: at the cells of the claim.
        is_right: each figure.
        decimals: that each figure was written with; None: they are no decimals.
    """
    if not 0 < claim.values.size <= _MAX_FIGURES:
        return
    is_mesh = claim.values.ndim == len(claim.axes)
    has_columns = is_mesh and len(claim.axes) > 1 and claim.axes[-1] != "query"
    table_rank = 2 if has_columns else min(claim.values.ndim, 1)
    if decimals is None:
        decimals = np.full(claim.values.shape, _DEFAULT_DECIMALS)
    for outer in np.ndindex(claim.values.shape[: claim.values.ndim - table_rank]):
        rows, columns = (*claim.values[outer].shape, 1, 1)[:2]
        if not has_columns:
            columns = 1
        positions = [[(*outer, *(r, c)[:table_rank]) for c in range(columns)] for r in range(rows)]
        cells = [[claim.cell_at(position) for position in row] for row in positions]
        row_axes = ({claim.axes[-2]} if has_columns else {claim.axes[-1]}) if is_mesh and claim.axes else {*claim.axes}
        yield FigureTable(
            title=_describe_axes(plan, cells[0][0], set(_OUTER_AXES)) if is_mesh else "",
            row_labels=tuple(_describe_axes(plan, row[0], row_axes) for row in cells),
            column_labels=(
                tuple(_describe_axes(plan, cell, {claim.axes[-1]}) for cell in cells[0])
                if has_columns
                else (claim.step,)
            ),
            figures=tuple(tuple(_figure_text(claim.values[p], int(decimals[p])) for p in row) for row in positions),
            reference=tuple(
                tuple(_figure_text(reference[p], int(decimals[p]) + _REFERENCE_DECIMALS) for p in row)
                for row in positions
            ),
            is_right=tuple(tuple(bool(is_right[p]) for p in row) for row in positions),
        )


def _describe_axes(plan: Plan, cell: Mapping[str, int], axes: Set[str]) -> str:
    """Describe where a cell is on some of its axes: `sat`."""
    needed = axes | {"batch"}  # a token's label is that of its batch item
    text = describe_cell(plan, {axis: i for axis, i in cell.items() if axis in needed})
    return text if "batch" in axes or "batch" not in cell else text.partition(", ")[2]


def _figure_text(value: np.generic, decimals: int) -> str:
    if isinstance(value, np.bool_):
        return "yes" if value else "no"
    if isinstance(value, np.integer):
        return str(value)
    return format_number(float(value), min(max(decimals, 0), MAX_SHOWN_DECIMALS))
