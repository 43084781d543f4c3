"""Every worksheet can be filled in from what is printed on it: a pupil who reads nothing else does so."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.check import check_prepared, prepare
from attncli.check.worksheet import read_worksheet
from attncli.plan import make_plan
from attncli.presets import PRESETS, preset_choices
from attncli.types import Problem
from attncli.variant import Variant
from attncli.views.explain import steps_to_blank
from attncli.views.explain.worksheet import gap_lines
from tests.helpers import as_array, assert_close, draw_normal, rng
from tests.laws.problems import ANSWERS, parameters_for, preset_name
from tests.views.pages import page
from tests.worksheet_solver import Worksheet

TOKENS, KEYS, WIDTH, OUTPUT = 3, 2, 6, 5  # of a memory; of embeddings, of the output
WIDTHS = {"dims=64": 64, "fraction=": 8}  # of columns, so that there are two to turn
PRECISION = 12  # so that what is rounded on the sheet does not matter here

pytestmark = [pytest.mark.uncounted, pytest.mark.slow]


def problem_of(name: str) -> tuple[Problem, Variant]:
    """A named variant, and a problem for it: all sizes are different."""
    preset = PRESETS[name]
    chosen = preset_choices(preset, 3 if preset.layer_choices else None)
    answers = {k: v for ask in preset.required_choices for k, v in ANSWERS[ask].items()}
    heads = 1
    if "heads" in preset.required_choices:
        heads = 4 if chosen.get("head_mixing") else 2
        answers["heads"] = heads
    kv_heads = 1 if "kv_heads" in preset.required_choices else chosen.get("kv_heads", heads)
    answers |= {"kv_heads": 1} if "kv_heads" in preset.required_choices else {}
    width = next((n for word, n in WIDTHS.items() if word in str(chosen.get("position"))), 4)  # of a query of one head
    learned = parameters_for(Variant(**(chosen | answers)), heads * width)
    if name != "simplified":
        shapes = {"w_q": (WIDTH, heads * width), "w_k": (WIDTH, kv_heads * width), "w_v": (WIDTH, kv_heads * 7)}
        if chosen.get("head_mixing"):
            shapes["w_v"] = (WIDTH, kv_heads * width)
        shapes |= {"w_o": (shapes["w_v"][1] // kv_heads * heads, OUTPUT), "b_q": shapes["w_q"][1:], "b_o": (OUTPUT,)}
        learned |= {key: draw_normal(i, *shape) for i, (key, shape) in enumerate(shapes.items())}
    memory = {"embeddings": draw_normal(7, KEYS, WIDTH)} if "memory" in preset.required_choices else None
    mask = np.tri(TOKENS, dtype=bool) if "given" in str(chosen.get("mask")) else None
    problem = Problem(embeddings=draw_normal(6, TOKENS, WIDTH), memory=memory, mask=mask, parameters=learned)
    return problem, Variant(name=preset_name(preset), **answers, align="top-left")


def solve(name: str, blank: frozenset[str]) -> None:
    """Fill in a sheet, compare every gap with the cell that the sheet says it is, and have it marked."""
    problem, variant = problem_of(name)
    result = attncli.attend(problem, variant)
    sheet = page(problem, variant, precision=PRECISION, query=1, heads=tuple(range(variant["heads"] or 1)), blank=blank)

    found = Worksheet(sheet).solve()

    assert sheet["gaps"]
    assert [gap for gap in sheet["gaps"] if gap["gap"] not in found] == []
    for gap in sheet["gaps"]:
        expected = as_array(result[gap["step"]].values)[tuple(gap["index"])]
        assert_close(found[gap["gap"]], float(expected), rtol=1e-6, atol=1e-8)
    legend = gap_lines((gap["step"], tuple(gap["index"])) for gap in sheet["gaps"])
    answers = [f"⟨{gap}⟩{str(round(value, 5)).replace('-inf', '−∞')}" for gap, value in found.items()]
    figures = read_worksheet("sheet", "\n".join([*answers, *legend]))
    assert check_prepared(prepare(problem, variant, figures), identify=False).verdict in ("right", "too-loose")


NAMED_VARIANTS = [  # those whose queries are 64 wide take longer than a second
    pytest.param(name, marks=pytest.mark.slow if "dims=64" in str(preset.choices.get("position")) else ())
    for name, preset in PRESETS.items()
]


@pytest.mark.parametrize("name", NAMED_VARIANTS)
def test_a_sheet_of_a_named_variant_with_random_gaps_is_solved(name):
    steps = sorted(steps_to_blank(make_plan(*problem_of(name))))
    random = rng(len(name) + len(steps))

    solve(name, frozenset(steps))
    solve(name, frozenset(np.array(steps)[random.random(len(steps)) < 0.4].tolist() or steps[:1]))


def test_a_sheet_without_what_is_given_is_not_solved():
    """The pupil knows nothing but the sheet: without the box, the keys below the first stay open."""
    problem, variant = problem_of("causal")
    sheet = page(problem, variant, precision=PRECISION, query=1, heads=(0,), blank={"k"})
    assert sheet["sections"].pop(0)["title"] == "Given"

    found = Worksheet(sheet).solve()

    unsolved = {gap["index"][0] for gap in sheet["gaps"] if gap["gap"] not in found}
    assert unsolved == {1, 2}
