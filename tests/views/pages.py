"""Pages of explain as records, and the check of their arithmetic."""

from __future__ import annotations

import json

from attncli.derivation import recording_intermediates
from attncli.output_formats import RenderOptions
from attncli.plan import make_plan
from attncli.types import Problem
from attncli.variant import Variant
from attncli.views.explain import RENDERERS, ExplanationScope, Worksheet, explain_query, render_page
from tests.calculator import equation_holds, terms_add_up
from tests.helpers import draw_normal


def page(
    problem: Problem,
    variant: Variant | None,
    *,
    precision=4,
    has_unicode=True,
    blank=(),
    answers=False,
    form="json",
    grad=None,
    **focus,
):
    """The page of one query in one format; a record where that is JSON. `grad` is the seed of the upstream gradient."""
    explanation, scope, dtype = explain(problem, variant, grad, blank_steps=frozenset(blank), **focus)
    render_options = RenderOptions(precision=precision, has_unicode=has_unicode)
    worksheet = Worksheet(frozenset(blank), answers)
    text = RENDERERS[form](
        render_page(explanation, render_options, worksheet, dtype, full=scope.shows_whole_vectors), render_options
    )
    return json.loads(text) if form == "json" else text


def explain(problem: Problem, variant: Variant | None, grad: int | None, **focus):
    """The page of one query before its numbers are printed, what it is of, and the dtype of the result."""
    from attncli.core.attention import run_plan
    from attncli.core.gradients import run_plan_with_gradients

    plan = make_plan(problem, variant)
    gradients = None
    with recording_intermediates():
        if grad is None:
            result = run_plan(plan)
        else:
            result, gradients = run_plan_with_gradients(plan, draw_upstream_gradient(plan, grad))
    scope = ExplanationScope(**{"query": plan.size.queries - 1, **focus})
    return explain_query(plan, result, scope, gradients), scope, result.dtype


def draw_upstream_gradient(plan, seed: int):
    """A gradient of the context, drawn."""
    return draw_normal(seed, *(plan.axis_length("context", axis) for axis in plan.steps["context"]))


def equations(record) -> list[str]:
    """Every line of a page with an equals sign."""
    lines = [line for section in record["sections"] for line in section["lines"]]
    return [line["text"] for line in lines if " = " in line["text"] and not line["text"].startswith("…")]


def sums(record) -> list[tuple[str, list[str]]]:
    """Every line that is the sum of the lines above it, with the vectors that those end in."""
    totals = []
    for section in record["sections"]:
        terms = [line["text"].rpartition(" = ")[2] for line in section["lines"] if " = [" in line["text"]]
        totals += [(line["text"], terms) for line in section["lines"] if line["label"] in ("sum", "dq") and terms]
    return totals


def check_arithmetic(record, precision: int) -> None:
    """Every equation and every sum of the page can be worked with a calculator."""
    assert equations(record)
    for equation in equations(record):
        assert equation_holds(equation, precision), equation
    for total, terms in sums(record):
        assert total.startswith("[") == all(term.startswith("[") for term in terms)
        assert not total.startswith("[") or terms_add_up(terms, total, precision), total
