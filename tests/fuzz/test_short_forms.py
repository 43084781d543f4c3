"""The short form of every fuzzer: fixed seeds, some hundred inputs each. `python -m tests.fuzz SECONDS` is the long form."""

from __future__ import annotations

import pytest

from tests.fuzz.harness import MODULES, run_fuzzer

pytestmark = [pytest.mark.slow, pytest.mark.uncounted]

SEED = 1
# name → inputs, and how many of them are to be accepted and refused at least, so that the fuzzer tries what it should
COUNTS = {
    "readers": (1500, 150, 500),
    "costs": (50, 2, 20),
    "parts": (1500, 400, 400),
    "schemas": (200, 70, 40),
    "schedules": (200, 100, 7),
    "figures": (800, 12, 330),
    "verdicts": (200, 120, 5),
    "command-lines": (60, 2, 30),
    "manifests": (40, 16, 4),
    "kills": (24, 2, 8),
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
