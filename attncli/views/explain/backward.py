"""The way back of one query in one head: from the gradient that arrives at the context to those of q and k.

`gradient_sections` is the entry. The numbers are autograd's; each line works one of them from the numbers above it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from attncli.derivation import (
    Equation,
    EquationSide,
    IntermediateNumbers,
    KeyCell,
    Number,
    RowDerivation,
    Vector,
    derived_number,
    scale_vector,
)
from attncli.parts.traits import PartTraits
from attncli.plan.chain import Link
from attncli.registry import Part
from attncli.types import NumpyArray
from attncli.views.explain.head_values import HeadValues, letter_of
from attncli.views.explain.page import Section

if TYPE_CHECKING:
    from attncli.core.gradients import Gradients

FROM_AUTOGRAD = "taken from autograd"


class HeadGradients:
    """The values of one query in one head, and the gradient of each."""

    def __init__(self, head: HeadValues, gradients: Gradients) -> None:
        self.head, self.of_plan = head, gradients

    def vector_at(self, step_name: str, **indices: int) -> Vector:
        """The gradient of a row of a step."""
        axes = self.head.steps[step_name].axes[:-1]
        return derived_vector(self.of_plan.steps[step_name][tuple(indices[axis] for axis in axes)])

    def row_vector(self, step_name: str, row: int) -> Vector:
        """The gradient of one row of a step of vectors."""
        return self.vector_at(step_name, **self.head.row_indices(step_name, row))

    def number(self, step_name: str, key_index: int) -> Number:
        """The gradient of one cell of scores or weights."""
        indices = {**self.head.cell_indices(step_name), "key": key_index}
        index = tuple(indices[axis] for axis in self.head.steps[step_name].axes)
        return derived_number(float(self.of_plan.steps[step_name][index]))


def derived_vector(values: NumpyArray) -> Vector:
    """An array as a vector of results on the way."""
    return Vector(derived_number(float(x)) for x in values)


def gradient_sections(gradients: HeadGradients) -> Iterator[Section]:
    """From the context back to q and k of this head."""
    head = gradients.head
    if not np.any(gradients.of_plan.upstream):
        yield Section("the gradient that arrives is zero", is_idle=True)
    weights_step = head.final_weights_step
    dz = _upstream_gradient(gradients)
    remark = f"query {head.indices['query']}"
    yield Section("gradient of the context", "dz, as it arrives", (Equation("dz", ([dz],)),), remark)
    if "normed_context" in head.steps:
        dz = gradients.vector_at("head_context", **head.cell_indices("head_context"))
        yield Section("gradient before the norm", "dz through the norm", (Equation("dz", ([dz],)),), FROM_AUTOGRAD)
    yield _value_section(gradients, weights_step, dz)
    yield _weights_section(gradients, weights_step, dz)
    yield from _mixing_and_dropout_sections(gradients)
    yield _normalizer_section(gradients)
    for link in reversed(head.plan.chain):
        yield _link_section(gradients, link)
    yield _query_section(gradients)
    yield _key_section(gradients)
    yield from _earlier_vector_sections(gradients)


def _upstream_gradient(gradients: HeadGradients) -> Vector:
    """The gradient that arrives at the context of this head."""
    head = gradients.head
    for step_name in ("normed_context", "head_context"):
        if step_name in head.steps:
            return gradients.vector_at(step_name, **head.cell_indices(step_name))
    return gradients.vector_at("context", **head.indices)


def _value_section(gradients: HeadGradients, weights_step: str, dz: Vector) -> Section:
    """dV: every query that looks at a key adds its weight times its dz."""
    head = gradients.head
    step_name = "present_v" if "present_v" in head.steps else "v"
    first_key = 0 if step_name == "present_v" else head.plan.size.past
    lines = []
    for j in head.worked_keys:
        weight = head.weight_number(weights_step, j)
        if weight.value:
            lines.append(Equation(head.key_label(j), ([weight, " × ", dz], [scale_vector(weight, dz)])))
    lines += [
        Equation(f"dv {head.key_label(j)}", ([gradients.row_vector(step_name, j - first_key)],))
        for j in head.worked_keys
    ]
    remark = f"these lines are this query's share, dv is {_summed_over(head)}"
    return Section("gradient of v", "dvⱼ = Σ wᵢⱼ dzᵢ", tuple(lines), remark)


def _summed_over(head: HeadValues) -> str:
    """What the gradient of a key or a value is the sum of."""
    is_shared = head.plan.shapes.kv_heads < head.plan.shapes.heads
    return "of all queries and of the heads that share it" if is_shared else "of all queries"


def _weights_section(gradients: HeadGradients, weights_step: str, dz: Vector) -> Section:
    """The gradient of each weight: dz times the key's value."""
    head = gradients.head
    writer = RowDerivation(max_terms=head.step_values.max_terms)
    lines = []
    for j in _visible_worked_keys(head):
        products = writer.write_dot_product(dz, head.final_vector("v", j))
        lines.append(Equation(head.key_label(j), (products, [gradients.number(weights_step, j)])))
    return Section(f"gradient of {weights_step}", "dwⱼ = dz·vⱼ", tuple(lines))


def _visible_worked_keys(head: HeadValues) -> list[int]:
    return [j for j in head.worked_keys if not head.is_hidden(j)]


def _mixing_and_dropout_sections(gradients: HeadGradients) -> Iterator[Section]:
    """Back through head mixing and dropout."""
    head, variant = gradients.head, gradients.head.plan.variant
    parts: tuple[tuple[str, str, Part[PartTraits]], ...] = (
        ("mixed_weights", "head mixing", variant.head_mixing),
        ("dropout_weights", "dropout", variant.dropout),
    )
    for step_name, name, part in parts:
        if step_name in head.steps:
            factors = _gradient_factors(head, step_name, part, None, part.traits.gradient_factor)
            yield _per_key_section(gradients, step_name, name, factors)


def _gradient_factors(
    head: HeadValues,
    step_name: str,
    part: Part[PartTraits] | None,
    link_value: float | None,
    gradient_factor: Callable[[RowDerivation, KeyCell], EquationSide] | None,
) -> dict[int, EquationSide] | None:
    """d(after)/d(before) of each key shown, as the part writes it; None if it declares none."""
    if gradient_factor is None:
        return None
    row = head.row_derivation(step_name, head.previous_step(step_name), part, link_value)
    return {j: gradient_factor(row, row.all_cells[j]) for j in _visible_worked_keys(head)}


def _per_key_section(
    gradients: HeadGradients, step_name: str, name: str, factors: dict[int, EquationSide] | None
) -> Section:
    """Back through a step that is made key by key."""
    head = gradients.head
    before = head.previous_step(step_name)
    lines = []
    for j in _visible_worked_keys(head):
        sides: list[EquationSide] = [[gradients.number(before, j)]]
        if factors is not None:
            sides.insert(0, [gradients.number(step_name, j), " × ", *factors[j]])
        lines.append(Equation(head.key_label(j), tuple(sides)))
    remark = FROM_AUTOGRAD if factors is None else ""
    return Section(f"gradient of {before}", f"back through {name}", tuple(lines), remark)


def _normalizer_section(gradients: HeadGradients) -> Section:
    """Through the normaliser's Jacobian, to the scores it saw."""
    head = gradients.head
    part, scores_step = head.plan.variant.normalizer, head.step_values.score_steps[-1]
    row = head.row_derivation("weights", scores_step, part)

    def with_gradients(cell: KeyCell) -> KeyCell:
        numbers = {"dw": gradients.number("weights", cell.index), "ds": gradients.number(scores_step, cell.index)}

        def get_number(name: str) -> IntermediateNumbers:
            return numbers[name] if name in numbers else cell.get_intermediate(name)

        return dataclasses.replace(cell, get_intermediate=get_number)

    row = dataclasses.replace(
        row,
        shown_cells=tuple(map(with_gradients, row.shown_cells)),
        all_cells=tuple(map(with_gradients, row.all_cells)),
    )
    title, formula = f"gradient of {scores_step}", part.traits.jacobian
    if part.traits.gradient_derivation and row.unhidden_cells:
        return Section(title, formula, tuple(part.traits.gradient_derivation(row)))
    lines = tuple(Equation(c.label, ([c["ds"]],)) for c in row.unhidden_cells)
    return Section(title, formula, lines, "" if formula else FROM_AUTOGRAD)


def _link_section(gradients: HeadGradients, link: Link) -> Section:
    """Back through one link of the chain."""
    head = gradients.head
    before = head.previous_step(link.step)
    title = f"gradient of {before}"
    if link.is_mask:
        return Section(f"{title}: that of {link.step}; hidden keys get none", is_idle=True)
    factors = _gradient_factors(head, link.step, link.part, link.value, link.gradient_factor)
    if factors is None and all(
        gradients.number(before, j).value == gradients.number(link.step, j).value for j in _visible_worked_keys(head)
    ):
        return Section(f"{title}: that of {link.step}; what {link.name} adds does not change it", is_idle=True)
    return _per_key_section(gradients, link.step, link.name, factors)


def _query_section(gradients: HeadGradients) -> Section:
    """dq: every key pulls at the query, as strongly as the gradient of its score."""
    head, score = gradients.head, gradients.head.plan.variant.score
    step_name = head.steps_of("q")[-1]
    result = Equation("dq", ([], [gradients.row_vector(step_name, head.focus.query)]))
    if score.traits.gradient_derivation is None:
        return Section(f"gradient of {step_name}", "", (result,), FROM_AUTOGRAD)
    row = head.row_derivation("scores", "scores", score)

    def with_gradient(cell: KeyCell) -> KeyCell:
        ds = gradients.number("scores", cell.index)
        return dataclasses.replace(cell, get_intermediate=lambda name: ds, is_hidden=head.is_hidden(cell.index))

    row = dataclasses.replace(row, shown_cells=tuple(map(with_gradient, row.shown_cells)))
    lines = list(score.traits.gradient_derivation(row))
    left_out = [c for c in row.all_cells if c.index not in head.worked_keys and not head.is_hidden(c.index)]
    if left_out:
        total = np.sum([[gradients.number("scores", c.index).value * x.value for x in c.k] for c in left_out], axis=0)
        lines.append(Equation(f"{len(left_out)} more", (["…"], [derived_vector(total)])))
    return Section(f"gradient of {step_name}", "dq = Σⱼ dsⱼ kⱼ", (*lines, result))


def _key_section(gradients: HeadGradients) -> Section:
    """dk: this query's share, and that of all queries."""
    head = gradients.head
    step_name = head.steps_of("k")[-1]
    first_key = 0 if step_name.startswith("present") else head.plan.size.past
    lines = []
    has_dot_products = head.plan.variant.score.traits.gradient_derivation is not None
    if has_dot_products:
        q = head.final_query_vector()
        for j in _visible_worked_keys(head):
            ds = gradients.number("scores", j)
            lines.append(Equation(head.key_label(j), ([ds, " × ", q], [scale_vector(ds, q)])))
    lines += [
        Equation(f"dk {head.key_label(j)}", ([gradients.row_vector(step_name, j - first_key)],))
        for j in head.worked_keys
        if j >= first_key
    ]
    formula, remark = "", FROM_AUTOGRAD
    if has_dot_products:
        formula = "dkⱼ = Σ dsᵢⱼ qᵢ"
        remark = f"these lines are this query's share, dk is {_summed_over(head)}"
    return Section(f"gradient of {step_name}", formula, tuple(lines), remark)


def _earlier_vector_sections(gradients: HeadGradients) -> Iterator[Section]:
    """Back through positions and norms, to q and k as they were projected."""
    head = gradients.head
    order = [name for name in head.steps if letter_of(name) in ("q", "k") and name in gradients.of_plan.steps]
    shown_already = {[name for name in order if letter_of(name) == letter][-1] for letter in "qk"}
    for step_name in reversed([name for name in order if name not in shown_already]):
        letter = letter_of(step_name)
        lines = []
        # A gradient has a row of every query, of a long run too.
        for row in [head.focus.query] if letter == "q" else head.worked_rows("k"):
            label = "dq" if letter == "q" else f"dk {head.row_label(letter, row)}"
            lines.append(Equation(label, ([gradients.row_vector(step_name, row)],)))
        if lines:
            yield Section(f"gradient of {step_name}", "", tuple(lines), FROM_AUTOGRAD)
