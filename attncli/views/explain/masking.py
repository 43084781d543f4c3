"""Which keys the mask hides from the query, and the predicate that hides each, with its numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from attncli.derivation import Equation, KeyCell
from attncli.plan.chain import Link
from attncli.registry import AnyPart
from attncli.text import pluralize
from attncli.types import Array, Grid
from attncli.validation.fields import as_numpy
from attncli.views.explain.head_values import HeadValues
from attncli.views.explain.page import Section, leave_out_middle

_CELL_FIELDS = ("q_pos", "k_pos", "q_idx", "k_idx", "q_seg", "k_seg")  # fields of the grid that a predicate reads


def mask_section(head: HeadValues, link: Link) -> Section:
    """The hidden keys, each with what hides it."""
    asked_keys = head.focus.keys
    cells = head.key_cells(link.step, head.previous_step(link.step), masked=True)
    hidden = [c for c in cells if c.is_hidden and (asked_keys is None or c.index in head.worked_keys)]
    if not hidden:
        keys = "the keys asked for"
        if asked_keys is None:
            keys = "the only key" if len(cells) == 1 else f"all {len(cells)} keys"
        return Section(
            f"{link.step}: {keys} {'is' if len(cells) == 1 and asked_keys is None else 'are'} visible", is_idle=True
        )
    lines = [Equation(c.label, ([c.value_after],), why_hidden(head, c)) for c in hidden]
    visible_count = sum(not c.is_hidden for c in cells)
    are = "is" if visible_count == 1 else "are"
    remark = f"{visible_count} of {pluralize(len(cells), 'key')} {are} visible; the scores of the others become −∞"
    return Section(link.step, link.formula, leave_out_middle(lines, head.focus.max_lines_per_vector), remark)


def why_hidden(head: HeadValues, cell: KeyCell) -> str:
    """Name what hides a key, with its numbers: “causal: 2 > 1”."""
    reasons = [*_mask_reasons(head, cell.index), *_input_reasons(head, cell.index)]
    return ", ".join(dict.fromkeys(reasons))


def _mask_reasons(head: HeadValues, key_index: int) -> Iterator[str]:
    """The masks of the expression that hide a key."""
    mask, grid = head.plan.mask, head.plan.make_grid().for_masks
    if mask is None:
        return
    cell_grid = Grid(
        **{name: _value_at_cell(head, getattr(grid, name), key_index) for name in _CELL_FIELDS},
        key_count=grid.key_count,
        head_count=grid.head_count,
    )
    intermediates = head.steps["mask"].intermediates

    def part_holds(part: AnyPart) -> bool:
        return bool(_value_at_cell(head, intermediates[str(part)].values, key_index))

    if mask.holds(part_holds):
        return
    for part, holds in mask.deciding_parts(part_holds):
        write_reason = part.traits.why_hidden
        reason = write_reason(cell_grid, part) if write_reason and not holds else _formula_in_numbers(part, cell_grid)
        negation = "not " if holds else ""
        yield f"{negation}{part.name}: {reason}"


def _input_reasons(head: HeadValues, key_index: int) -> Iterator[str]:
    """What the input itself hides a key by: its lengths, or a bias of −∞."""
    grid = head.plan.make_grid()
    if grid.lengths is not None:
        lengths = np.ravel(grid.lengths)
        length = int(lengths[head.indices["b"] % len(lengths)])
        if key_index >= length:
            yield f"padding: {key_index} ≥ {length}"
    if head.plan.problem.bias is not None and _value_at_cell(head, grid.bias, key_index) == -np.inf:
        yield "bias: −∞"


def _value_at_cell(head: HeadValues, values: Array, key_index: int) -> Array:
    """The value that holds at one query and key: values are (b, h, n, m), with axes of length 1 where they are shared."""
    if values is None:
        return None
    values = as_numpy(values)
    index = (head.indices["b"], head.indices["h"], head.indices["n"], key_index)
    lengths = zip(index, values.shape, strict=True)
    return values[tuple(i if length > 1 else 0 for i, length in lengths)].item()


def _formula_in_numbers(part: AnyPart, cell_grid: Grid) -> str:
    """A mask's formula with the numbers of one cell."""
    known = {"i": cell_grid.q_pos, "j": cell_grid.k_pos, "I": cell_grid.q_idx, "J": cell_grid.k_idx}
    known |= {option.name: part.option_value(option.name) for option in part.member.options}
    return re.sub(r"\b[A-Za-z-]+\b", lambda match: str(known.get(match[0], match[0])), part.member.formula)
