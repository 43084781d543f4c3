"""A result and what is asked of it → the page of one query. `explain_query` is the entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attncli.plan import Plan
from attncli.text import join_names, printable
from attncli.types import Attention
from attncli.views.explain.backward import HeadGradients, gradient_sections
from attncli.views.explain.context import merged_sections
from attncli.views.explain.forward import head_sections
from attncli.views.explain.head_values import HeadValues
from attncli.views.explain.input_gradients import input_gradient_sections
from attncli.views.explain.inputs import inputs_section
from attncli.views.explain.page import ExplanationPage, ExplanationScope, Section
from attncli.views.explain.reasons import with_reason
from attncli.views.explain.step_values import StepValues
from attncli.views.explain.summary_sentence import summary_sentence

if TYPE_CHECKING:
    from attncli.core.gradients import Gradients


def explain_query(
    plan: Plan, attention: Attention, focus: ExplanationScope, gradients: Gradients | None = None
) -> ExplanationPage:
    """The page of one query; with gradients, the way back too.

    Nothing is computed here but sums of what a line leaves out: numbers are cells of the steps, and what parts recorded
    on their way to them. How a line is written its part says (`derivation`, `gradient_derivation`, `gradient_factor`).

    Args:
        plan: it keeps every step.
        attention: its result, computed while intermediates were recorded.
        focus: which query, heads and keys are explained.
        gradients: of the same plan.
    """
    step_values = StepValues(plan, attention, focus)
    heads = [HeadValues(step_values, head) for head in focus.heads]
    sections = [inputs_section(heads)] if focus.blank_steps else []
    for head in heads:
        if len(heads) > 1:
            sections.append(Section(f"head {head.head}", is_heading=True))
        sections += head_sections(head)
    sections += merged_sections(step_values)
    if gradients is not None:
        for head in heads:
            if len(heads) > 1:
                sections.append(Section(f"back through head {head.head}", is_heading=True))
            sections += gradient_sections(HeadGradients(head, gradients))
        sections += input_gradient_sections(heads[0], gradients)
    if focus.has_reasons:
        sections = [with_reason(section, plan) for section in sections]
    return ExplanationPage(
        title=printable(focus.title) or _page_title(step_values),
        summary=" · ".join(map(printable, attention.summary)),
        sections=tuple(map(_as_idle_if_empty, sections)),
        closing=" ".join(map(summary_sentence, heads)),
        step_axes={step.name: step.axes for step in attention.steps},
        tokens=frozenset([step_values.token("query", focus.query), *step_values.token_counts]),
        settings=attention.settings,
    )


def _page_title(step_values: StepValues) -> str:
    """Which query, of which batch item and heads where there are several."""
    focus, plan = step_values.focus, step_values.plan
    items = [f"Attention of query {step_values.token_label('query', focus.query)}"]
    if plan.size.batch is not None:
        items.append(f"batch {focus.batch}")
    if plan.shapes.has_head_axis and plan.shapes.heads > len(focus.heads):
        items.append(f"head {join_names(focus.heads)} of {plan.shapes.heads}")
    return " · ".join(items)


def _as_idle_if_empty(section: Section) -> Section:
    """A section without a line becomes a grey line."""
    if section.lines or section.is_idle or section.is_heading:
        return section
    return Section(f"{section.title}: {section.remark or 'nothing'}", is_idle=True)
