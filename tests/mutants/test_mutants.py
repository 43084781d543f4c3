"""The mutants that are made and left out, and that a session finds what tests notice."""

from __future__ import annotations

import pytest

pytest.importorskip("cosmic_ray")

from tests.helpers import ROOT
from tests.mutants.line_map import LineMap
from tests.mutants.places import (
    ANNOTATION,
    CACHE,
    INTERCHANGEABLE,
    MESSAGE,
    TYPE_CHECKING,
    draw_mutants,
    find_invisible,
    list_places,
)
from tests.mutants.session import KILLED, NOT_BEGUN, SURVIVED, TIMED_OUT, changed_functions, order_tests, read_outcome

MASKS = "attncli/parts/masks.py"


def test_a_sample_is_the_same_each_time_and_starts_like_a_larger_one():
    small, _, places = draw_mutants(4, 1, [MASKS])
    large, _, _ = draw_mutants(8, 1, [MASKS])
    other, _, _ = draw_mutants(8, 2, [MASKS])

    assert small == large[:4]
    assert large != other
    assert places == len(list_places(MASKS))


def test_replacements_stay_within_a_kind():
    operators = [
        m.operator.partition("_")[2].split("_", 1)
        for ms in list_places(MASKS).values()
        for m in ms
        if "_" in m.operator
    ]
    pairs = {(old, new.replace("_", "")) for old, new in operators}

    assert ("Sub", "Add") in pairs
    assert all(any({old, new} <= group for group in INTERCHANGEABLE) for old, new in pairs)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(x: int | None = None): pass", ANNOTATION),
        ("def f(é) -> int | None: pass", ANNOTATION),
        ("x: int | None = 1", ANNOTATION),
        ("if TYPE_CHECKING:\n    x = 1", TYPE_CHECKING),
        ("raise ValueError(f'{n + 1} rows')", MESSAGE),
        ("@functools.cache\ndef f(): pass", CACHE),
        ("def f(x: Annotated[int, Range(low=1)]): pass", None),
        ("x = f'{n + 1} rows'", None),
    ],
)
def test_what_no_test_can_see_is_left_out_with_its_reason(source, reason):
    assert [found[-1] for found in find_invisible(source)] == ([reason] if reason else [])


def test_a_column_is_counted_in_characters():
    assert find_invisible("é = 1; x: int | None = 2")[0][:4] == (1, 10, 1, 20)


def test_only_the_functions_that_differ_are_exchanged():
    mutants = [m for place in list_places(MASKS).values() for m in place]
    inside = next(m for m in mutants if m.operator.endswith("Mod_Add") and "% rate" in m.change[0])
    at_import = next(m for m in mutants if m.operator.endswith("RemoveDecorator"))

    replaced = changed_functions(inside)

    assert replaced is not None
    assert [key[:2] for key in replaced] == [(str(ROOT / MASKS), "dilated")]
    assert changed_functions(at_import) is None


def test_what_is_declared_is_tried_with_the_tests_of_its_packages_folder():
    line_map = LineMap.__new__(LineMap)
    line_map.files = {
        "tests/parts/test_a.py#0": {"tests": [["a::x", 0.1, True], ["a::fails", 0.2, False]]},
        "tests/plan/test_b.py#0": {"tests": [["b::x", 0.3, True]]},
    }

    assert line_map.tests_in("tests/parts/") == {"a::x": 0.1}


def test_the_first_tests_are_quick_and_of_different_files_and_all_fit_the_limit():
    quick = {"tests/laws/a.py::x": 0.01, "tests/parts/b.py::y": 0.02, "tests/parts/b.py::z": 0.03}
    slow = {"tests/laws/a.py::slow": 3.0, "tests/parts/b.py::slow": 2.0, "tests/parts/b.py::slowest": 9.0}

    in_order = [*("tests/parts/b.py::y", "tests/laws/a.py::x", "tests/parts/b.py::z")]
    assert order_tests(quick | slow, "parts", 7.0) == (
        [*in_order, "tests/parts/b.py::slow", "tests/laws/a.py::slow"],
        1,
    )


@pytest.mark.parametrize(
    ("report", "outcome"),
    [
        ({"test": "t", "tests": 3, "failed": True, "status": 0, "late": False}, KILLED),
        ({"test": "t", "tests": 3, "status": -11, "late": False}, KILLED),
        ({"tests": 3, "done": True, "status": 0, "late": False}, SURVIVED),
        ({"tests": 3, "done": True, "status": -9, "late": True}, SURVIVED),
        ({"test": "t", "tests": 3, "status": -27, "late": False}, TIMED_OUT),
        ({"test": "t", "tests": 3, "status": -9, "late": True}, TIMED_OUT),
        ({"test": "", "status": -9, "late": False}, NOT_BEGUN),
    ],
)
def test_a_mutant_that_hangs_is_not_one_that_is_noticed(report, outcome):
    assert read_outcome(report).outcome == outcome
