"""Pages of explain as records, and the check of their arithmetic."""

from __future__ import annotations

import json

from attncli.derivation import recording_intermediates
from attncli.output_formats import RenderOptions
from attncli.plan import make_plan
from attncli.types import Problem
from attncli.variant import Variant
from attncli.views.board import RENDERERS, Worksheet, render_page
from attncli.views.explain import Focus, explain_query
from tests.calculator import adds_up, comes_out
from tests.helpers import draw_normal


def page(
    problem: Problem, variant: Variant | None, *, precision=4, blank=(), answers=False, form="json", grad=None, **place
):
    """The page of one query, as `form` writes it."""
    from attncli.core.attention import run_plan
    from attncli.core.gradients import run_plan_with_gradients

    made = make_plan(problem, variant)
    with recording_intermediates():
        result, gradients = (
            (run_plan(made), None) if grad is None else run_plan_with_gradients(made, arriving(made, grad))
        )
    where = Focus(**{"query": made.size.queries - 1, "blank_steps": frozenset(blank), **place})
    board = explain_query(made, result, where, gradients)
    look = RenderOptions(precision=precision)
    sheet = Worksheet(frozenset(blank), answers)
    text = RENDERERS[form](render_page(board, look, sheet, result.dtype, full=where.full), look)
    return json.loads(text) if form == "json" else text


def arriving(made, seed: int):
    """A gradient of the context, drawn."""
    return draw_normal(seed, *(made.axis_length("context", axis) for axis in made.steps["context"]))


def equations(record) -> list[str]:
    """Every line of a page that says that something equals something."""
    lines = [line for section in record["sections"] for line in section["lines"]]
    return [line["text"] for line in lines if " = " in line["text"] and not line["text"].startswith("…")]


def sums(record) -> list[tuple[str, list[str]]]:
    """Every line that is the sum of the lines above it, with what they end in."""
    out = []
    for section in record["sections"]:
        above = [line["text"].rpartition(" = ")[2] for line in section["lines"] if " = [" in line["text"]]
        out += [(line["text"], above) for line in section["lines"] if line["label"] in ("sum", "dq") and above]
    return out


def check_arithmetic(record, precision: int) -> None:
    found = equations(record)
    assert found
    for equation in found:
        assert comes_out(equation, precision), equation
    for total, terms in sums(record):
        assert total.startswith("[") == all(term.startswith("[") for term in terms)
        assert not total.startswith("[") or adds_up(terms, total, precision), total
