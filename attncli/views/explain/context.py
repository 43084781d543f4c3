"""The sections of the context: weight times value, the norm of a mixed head, heads side by side, and W_o."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from attncli.derivation import Equation, Number, RowDerivation, Vector, derived_number, scale_vector
from attncli.parts.projections import derive_linear
from attncli.views.explain.head_values import HeadValues
from attncli.views.explain.page import Section, leave_out_middle
from attncli.views.explain.step_values import StepValues
from attncli.views.explain.worksheet import CONTEXT_STEPS


def context_section(head: HeadValues) -> Section:
    """Weight × value of every key, and their sum."""
    weights_step = head.final_weights_step
    out_step = "head_context" if "head_context" in head.steps else "context"
    formula = "Σ weight × value"
    out = head.step_values.vector_at(out_step, **head.cell_indices("head_context"))
    lines: list[Equation] = []
    left_out: list[tuple[Number, Vector]] = []
    for j in range(head.plan.size.keys):
        weight, v = head.weight_number(weights_step, j), head.final_vector("v", j)
        if j in head.worked_keys and (weight.value != 0 or not head.is_hidden(j)):
            lines.append(Equation(head.key_label(j), ([weight, " × ", v], [scale_vector(weight, v)])))
        elif weight.value:
            left_out.append((weight, v))
    if left_out:
        total = np.sum([[weight.value * x.value for x in v] for weight, v in left_out], axis=0)
        total_vector = Vector(derived_number(float(x)) for x in total)
        lines.append(Equation(f"{len(left_out)} more", (["…"], [total_vector])))
    if not lines:
        return Section(out_step, formula, (Equation("sum", ([out],)),), "no key has any weight")
    lines.append(Equation("sum", ([], [out])))
    used_steps = head.earlier_steps("mixed_weights") | {"mixed_weights", "v", "present_v"}
    return Section(out_step, formula, tuple(lines), used_steps=used_steps)


def normed_context_section(head: HeadValues) -> Section:
    """The norm that head mixing applies to the context of one mixed head."""
    step_name, mixing = "normed_context", head.plan.variant.head_mixing
    indices = head.cell_indices(step_name)
    row = RowDerivation(
        get_intermediate=head.step_values.intermediates_at(step_name, **indices),
        q=head.step_values.vector_at("head_context", **indices),
        output_vector=head.step_values.vector_at(step_name, **indices),
        part=mixing,
    )
    derivation = mixing.traits.context_derivation
    lines = leave_out_middle(list(derivation(row)) if derivation else [], head.focus.max_lines_per_vector)
    return Section(step_name, head.steps[step_name].formula, lines, used_steps=frozenset({"head_context"}))


def merged_sections(step_values: StepValues) -> Iterator[Section]:
    """Heads side by side, and the output projection."""
    focus, plan, steps = step_values.focus, step_values.plan, step_values.steps
    if focus.blank_steps & CONTEXT_STEPS and len(focus.heads) < plan.shapes.heads:
        return  # the other heads' part would be left blank, and their working is not on the page
    indices = {"batch": focus.batch, "query": step_values.query_row}
    head_step = next((name for name in ("normed_context", "head_context") if name in steps), "")
    if head_step and "context" in steps:
        lines = [
            Equation(f"head {h}", ([step_values.vector_at(head_step, head=h, **indices)],))
            for h in range(plan.shapes.mixed_heads)
        ]
        shown = tuple(lines) if focus.blank_steps & CONTEXT_STEPS else leave_out_middle(lines, step_values.max_terms)
        whole = Equation("context", ([step_values.vector_at("context", **indices)],))
        yield Section("context", "heads side by side", (*shown, whole), used_steps=CONTEXT_STEPS)
    if "output" in steps:
        yield _output_section(step_values, indices)
    elif "context" in steps and focus.full:
        yield Section("no output projection", is_idle=True)


def _output_section(step_values: StepValues, indices: dict[str, int]) -> Section:
    """context W_o, entry by entry."""
    output = step_values.vector_at("output", **indices)
    row = RowDerivation(
        get_intermediate=step_values.intermediates_at("output"),
        q=step_values.vector_at("context", **indices),
        output_vector=output,
        max_terms=step_values.max_terms,
        label="output",
    )
    lines = leave_out_middle(list(derive_linear(row)), step_values.focus.max_lines_per_vector)
    formula = step_values.steps["output"].formula
    return Section("output", formula, (*lines, Equation("output", ([output],))), used_steps=CONTEXT_STEPS)
