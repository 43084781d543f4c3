"""Where a kernel is wrong in a part of the items, heads, rows or dims is told in the table, in JSON and on the map."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from tests.check.partial_faults import complaints, make_kernel, partial_faults, report_of


def test_the_place_of_a_fault_is_told_in_table_json_and_map():
    kernel = make_kernel(0)
    faults = list(partial_faults())

    assert len(faults) > 250
    for fault in itertools.islice(faults, 0, None, 13):
        assert (fault.name, list(complaints(fault, report_of(fault, kernel)))) == (fault.name, [])


def test_a_place_that_is_told_wrong_is_noticed():
    kernel = make_kernel(0)
    fault = next(fault for fault in partial_faults() if "a tail of one head" in fault.name)
    report = report_of(fault, kernel)
    elsewhere = dataclasses.replace(fault, mine=np.roll(fault.mine, 1, axis=1), right=np.roll(fault.right, 1, axis=1))

    said = "; ".join(complaints(elsewhere, report))

    assert "JSON says head [1], not [2]" in said
    assert "the table does not say head [2]" in said
    assert "the map shows other shares" in said
