"""Pages of explain as records, and the check of their arithmetic."""

from __future__ import annotations

import json

from attncli.derivation import noting
from attncli.output_formats import Look
from attncli.plan import plan
from attncli.types import Problem
from attncli.variant import Variant
from attncli.views.board import WRITERS, Sheet, page_of
from attncli.views.explain import Place, explain
from tests.calculator import adds_up, comes_out
from tests.helpers import draw_normal


def page(
    problem: Problem, variant: Variant | None, *, precision=4, blank=(), answers=False, form="json", grad=None, **place
):
    """The page of one query, as `form` writes it."""
    from attncli.core.attention import follow
    from attncli.core.gradients import follow_back

    made = plan(problem, variant)
    with noting():
        result, gradients = (follow(made), None) if grad is None else follow_back(made, arriving(made, grad))
    where = Place(**{"query": made.size.queries - 1, "blank": frozenset(blank), **place})
    board = explain(made, result, where, gradients)
    look = Look(precision=precision)
    sheet = Sheet(frozenset(blank), answers)
    text = WRITERS[form](page_of(board, look, sheet, result.dtype, full=where.full), look)
    return json.loads(text) if form == "json" else text


def arriving(made, seed: int):
    """A gradient of the context, drawn."""
    return draw_normal(seed, *(made.length("context", axis) for axis in made.steps["context"]))


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
