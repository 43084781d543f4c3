"""The sections of scores and weights: one step key by key, the normaliser, and the statistics of the row."""

from __future__ import annotations

import math
from collections.abc import Iterator

from attncli.derivation import Derivation, Equation, KeyCell, Number, RowDerivation, Vector, derived_number
from attncli.parts.traits import PartTraits
from attncli.registry import Part
from attncli.views.explain.head_values import HeadValues
from attncli.views.explain.page import Section
from attncli.views.explain.reasons import STEP_REASONS
from attncli.views.explain.vectors import equations_of_part
from attncli.views.explain.worksheet import EXPONENTIALS

_STATISTIC_LABELS = {
    "max_score": "largest score",
    "log_sum_exp": "ln Σ e^s",
    "entropy": "entropy in bits",
    "visible_keys": "visible keys",
}
_MAX_UNSHIFTED_SCORE = 20  # beyond it e^s has many digits
_MAX_UNSHIFTED_KEYS = 8


def per_key_section(
    head: HeadValues,
    step_name: str,
    part: Part[PartTraits] | None,
    derivation: Derivation | None,
    link_value: float | None = None,
) -> Section:
    """A step of scores or weights that is made key by key; without a derivation its results stand alone."""
    row = head.row_derivation(step_name, head.previous_step(step_name), part, link_value)
    lines = tuple(derivation(row) if derivation else row.equation_per_key(lambda cell: ()))
    used_steps = head.earlier_steps(step_name)
    return Section(step_name, head.steps[step_name].formula, lines, _left_out_remark(row), used_steps=used_steps)


def _left_out_remark(row: RowDerivation) -> str:
    """How many visible keys are not worked out."""
    shown = {c.index for c in row.shown_cells}
    left_out = [c for c in row.all_cells if not c.is_hidden and c.index not in shown]
    works = "key works" if len(left_out) == 1 else "keys work"
    return f"{len(left_out)} more {works} the same way" if left_out else ""


def weights_section(head: HeadValues) -> Section:
    """From what the normaliser sees to the weights, and their sum."""
    part, formula = head.plan.variant.normalizer, head.steps["weights"].formula
    row = head.row_derivation("weights", head.step_values.score_steps[-1], part, extra_cells=_sink_cells(head))
    if all(c.is_hidden for c in row.all_cells if c.index < head.plan.size.keys):
        lines = tuple(Equation(c.label, ([c.value_after],)) for c in row.shown_cells)
        remark = f"the query sees no key: empty rows are {head.plan.variant.empty_rows}"
        return Section("weights", formula, lines, remark)
    lines = tuple(equations_of_part(part, row))
    if part.traits.is_distribution:
        total = row.write_sum_over_keys(lambda c: [c.value_after], lambda c: c.value_after.value)
        unshifted = _unshifted_softmax_lines(head, row) if part.traits.is_exponential else ()
        lines = (
            *lines,
            *unshifted,
            Equation("check", (total, [derived_number(sum(c.value_after.value for c in row.all_cells))])),
        )
    hidden_count = sum(c.is_hidden for c in row.all_cells)
    remarks = [f"{hidden_count} hidden: weight 0" if hidden_count else "", _left_out_remark(row)]
    used_steps = head.earlier_steps("weights") | {EXPONENTIALS}
    return Section("weights", formula, lines, "; ".join(filter(None, remarks)), used_steps=used_steps)


def _sink_cells(head: HeadValues) -> tuple[KeyCell, ...]:
    """The sink as one more key, if there is one."""
    if "sink_weights" not in head.steps:
        return ()
    values, sink_index = head.step_values, head.plan.size.keys
    logit = values.intermediate_at("weights", "sink", **head.indices)
    weight = values.number_at("sink_weights", **head.indices)
    get_intermediate = values.intermediates_at("weights", **head.indices, m=sink_index)
    return (KeyCell("sink", sink_index, logit, weight, get_intermediate),)


def statistics_section(head: HeadValues) -> Section:
    """The statistics of the whole row, and what each of them is."""
    traits = head.plan.variant.normalizer.traits
    does_not_apply = set()
    if not traits.is_exponential:
        does_not_apply.add("log_sum_exp")
    if not traits.is_distribution:
        does_not_apply.add("entropy")
    lines = [
        Equation(label, ([head.step_values.number_at(name, **head.indices)],), STEP_REASONS[name])
        for name, label in _STATISTIC_LABELS.items()
        if name not in does_not_apply
    ]
    return Section("the row in numbers", lines=tuple(lines), is_numbered=False)


def _unshifted_softmax_lines(head: HeadValues, row: RowDerivation) -> Iterator[Equation]:
    """The textbook's softmax, e^s / Σ e^s, which gives the same weights: its sum, and the weight of one key.

    Nothing where it would say no more, or could not be computed: the largest score is 0 or far from it, or keys are left out.
    """
    cells = [cell for cell in row.all_cells if not cell.is_hidden]
    scores = [cell.value_before.value for cell in cells]
    largest = max(scores)
    is_ordinary = all(map(math.isfinite, scores)) and 0 < abs(largest) <= _MAX_UNSHIFTED_SCORE
    if not is_ordinary or len(cells) > _MAX_UNSHIFTED_KEYS or head.focus.keys is not None or head.focus.blank_steps:
        return
    exponentials = [derived_number(math.exp(score)) for score in scores]
    total = derived_number(sum(number.value for number in exponentials))
    powers: list[str | Number | Vector] = []
    terms: list[str | Number | Vector] = []
    for cell, exponential in zip(cells, exponentials, strict=True):
        separator = " + " if powers else ""
        powers += [f"{separator}e^(", cell.value_before, ")"]
        terms += [separator, exponential] if separator else [exponential]
    yield Equation("Σ e^s", (powers, terms, [total]), "without − max s")
    position = scores.index(largest)
    quotient: list[str | Number | Vector] = [exponentials[position], " / ", total]
    yield Equation(cells[position].label, (quotient, [cells[position].value_after]), "the same weight")
