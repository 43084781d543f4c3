"""What explain prints can be worked with a pocket calculator, for every part, preset and published problem."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.plan import make_plan
from attncli.presets import PRESETS, preset_choices
from attncli.types import Problem
from attncli.variant import Variant
from tests.helpers import GOLDEN_PROBLEMS, draw_normal
from tests.laws.problems import ANSWERS, ONE_CHOICE, WIDE, H, M, N, parameters_for, preset_name, problem_for
from tests.views.pages import check_arithmetic, page

pytestmark = [pytest.mark.slow, pytest.mark.uncounted]


def parts_with_heads():
    """Each part without heads; with several, where the way back shows the same steps in more digits, every fourth one."""
    for i, choices in enumerate(ONE_CHOICE):
        yield pytest.param(choices, None)
        yield pytest.param(choices, H, marks=[pytest.mark.full] if i % 4 else [])


@pytest.mark.parametrize(("choices", "heads"), list(parts_with_heads()), ids=str)
def test_the_arithmetic_of_every_part_comes_out(choices, heads):
    variant = Variant(**{"heads": heads, "mask": "causal"} | choices)
    problem = problem_for(str(choices.get("mask")), variant=variant)

    precision, query = (4, 3) if heads else (7, N - 1)
    is_drawn = choices.get("projection", "given") != "given"  # thousands of lines alike
    full = not heads and not is_drawn
    record = page(problem, variant, precision=precision, query=query, heads=((variant["heads"] or 1) - 1,), full=full)

    check_arithmetic(record, precision)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda p: p.name)
def test_the_arithmetic_of_every_preset_comes_out(preset):
    answers = {k: v for ask in preset.required_choices for k, v in ANSWERS[ask].items()} | {"heads": 2}
    chosen = preset_choices(preset, 3 if preset.layer_choices else None) | answers
    memory = {"embeddings": draw_normal(7, M, WIDE)} if "memory" in preset.required_choices else None
    mask = np.tri(N, dtype=bool) if "given" in str(chosen.get("mask")) else None
    learned = parameters_for(Variant(**chosen), WIDE)
    if preset.choices.get("kv_heads") == 1:
        learned |= {"w_k": draw_normal(8, WIDE, 66), "w_v": draw_normal(9, WIDE, 66)}
    problem = Problem(embeddings=draw_normal(6, N, WIDE), memory=memory, mask=mask, parameters=learned)

    record = page(problem, Variant(name=preset_name(preset), **answers, align="top-left"), query=4, heads=(1,))

    check_arithmetic(record, 4)


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=str)
def test_the_arithmetic_of_the_way_back_comes_out(choices):
    variant = Variant(**{"heads": H, "mask": "causal"} | choices)
    problem = problem_for(str(choices.get("mask")), variant=variant)

    record = page(problem, variant, query=3, heads=(variant["heads"] - 1,), grad=4, precision=6)

    check_arithmetic(record, 6)


@pytest.mark.parametrize("path", GOLDEN_PROBLEMS, ids=lambda p: p.stem)
def test_the_arithmetic_of_every_published_problem_comes_out(path):
    problem = attncli.read(path)
    made = make_plan(problem)
    last = (made.size.queries - 1, (made.size.batch or 1) - 1)
    for query, batch in {(0, 0), last} if made.size.queries < 20 else {last}:
        check_arithmetic(page(problem, None, query=query, batch=batch, heads=(made.shapes.heads - 1,)), 4)
