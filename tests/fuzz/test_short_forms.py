"""The short form of every fuzzer: fixed seeds, some hundred inputs each. `python -m tests.fuzz SECONDS` is the long form."""

from __future__ import annotations

import pytest

from tests.fuzz.harness import MODULES, run_fuzzer

pytestmark = pytest.mark.slow

SEED = 1
# name → inputs, and how many of them are to be accepted and refused at least, so that the fuzzer tries what it should
COUNTS = {
    "readers": (3000, 300, 1000),
    "costs": (80, 3, 30),
    "parts": (3000, 800, 800),
    "schemas": (600, 200, 100),
    "schedules": (300, 150, 10),
    "figures": (1200, 20, 500),
    "verdicts": (400, 250, 10),
    "command-lines": (200, 10, 100),
    "manifests": (80, 30, 10),
    "kills": (60, 5, 25),
}


@pytest.mark.parametrize("name", MODULES)
def test_no_input_ends_as_a_bug_is_changed_hangs_or_costs_too_much(name, record_property):
    count, min_accepted, min_refused = COUNTS[name]

    tally = run_fuzzer(name, SEED, count=count)

    record_property("fuzz", f"{tally} in {tally.seconds:.0f} s")
    assert not tally.fault_counts, tally.describe_faults()
    assert tally.tried.total() == count
    assert tally.accepted.total() >= min_accepted
    assert tally.refused.total() >= min_refused
