"""The page of one query: what it prints can be worked with a pocket calculator, for every part, preset and published problem."""

from __future__ import annotations

import json

import numpy as np
import pytest

import attncli
from attncli.formats import Look
from attncli.plan import plan
from attncli.presets import PRESETS, choices_of
from attncli.types import Problem
from attncli.variant import Variant
from attncli.views.board import WRITERS, Sheet, page_of
from attncli.views.explain import Place, explain
from attncli.worked import noting
from tests.calculator import comes_out
from tests.test_golden import FILES
from tests.test_laws import ANSWERS, ONE_CHOICE, WIDE, H, M, N, draws, named, parameters_for, problem_for


def page(
    problem: Problem, variant: Variant | None, *, precision=4, blank=(), answers=False, form="json", grad=None, **place
):
    """The page of one query, as `form` writes it."""
    from attncli.core.attend import follow
    from attncli.core.back import follow_back

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
    return draws(seed, *(made.length("context", axis) for axis in made.steps["context"]))


def equations(record) -> list[str]:
    """Every line of a page that says that something equals something."""
    lines = [line for section in record["sections"] for line in section["lines"]]
    return [line["text"] for line in lines if " = " in line["text"]]


def check(record, precision: int) -> None:
    found = equations(record)
    assert found
    for equation in found:
        assert comes_out(equation, precision), equation


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=str)
@pytest.mark.parametrize("heads", [None, H])
def test_the_arithmetic_of_every_part_comes_out(choices, heads):
    variant = Variant(**{"heads": heads, "mask": "causal"} | choices)
    problem = problem_for(str(choices.get("mask")), variant=variant)

    for precision, query, full in ((4, 3, False), (7, N - 1, True)):
        record = page(
            problem, variant, precision=precision, query=query, heads=((variant["heads"] or 1) - 1,), full=full
        )
        check(record, precision)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda p: p.name)
def test_the_arithmetic_of_every_preset_comes_out(preset):
    answers = {k: v for ask in preset.asks for k, v in ANSWERS[ask].items()} | {"heads": 2}
    chosen = choices_of(preset, 3 if preset.layers else None) | answers
    memory = {"embeddings": draws(7, M, WIDE)} if "memory" in preset.asks else None
    mask = np.tri(N, dtype=bool) if "given" in str(chosen.get("mask")) else None
    learned = parameters_for(Variant(**chosen), WIDE)
    if preset.choices.get("kv_heads") == 1:
        learned |= {"w_k": draws(8, WIDE, 66), "w_v": draws(9, WIDE, 66)}
    problem = Problem(embeddings=draws(6, N, WIDE), memory=memory, mask=mask, parameters=learned)

    record = page(problem, Variant(name=named(preset), **answers, align="top-left"), query=4, heads=(1,))

    check(record, 4)


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=str)
@pytest.mark.parametrize("heads", [None, H])
def test_the_arithmetic_of_the_way_back_comes_out(choices, heads):
    variant = Variant(**{"heads": heads, "mask": "causal"} | choices)
    problem = problem_for(str(choices.get("mask")), variant=variant)
    heads = variant["heads"] or 1

    record = page(problem, variant, query=3, heads=(heads - 1,), grad=4, precision=6)

    check(record, 6)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_arithmetic_of_every_published_problem_comes_out(path):
    problem = attncli.read(path)
    made = plan(problem)
    for query in {0, made.size.queries - 1}:
        for batch in range(min(made.size.batch or 1, 2)):
            check(page(problem, None, query=query, batch=batch, heads=(made.shapes.heads - 1,)), 4)
