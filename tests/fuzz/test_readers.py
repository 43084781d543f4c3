"""Broken inputs end in an error with a code, and what is accepted is what another library reads. `mutate_inputs` has the long form."""

from __future__ import annotations

import pytest

from tests.fuzz.mutate_inputs import MAKERS, Report, fuzz_readers, try_input

pytestmark = pytest.mark.slow

INPUT_COUNT = 1800


@pytest.mark.parametrize("format_name", MAKERS)
def test_no_broken_input_ends_in_a_bug_or_is_changed(format_name, tmp_path):
    report = fuzz_readers(iter(range(INPUT_COUNT // len(MAKERS))), seed=1, formats=(format_name,))

    assert report.failures == {}
    assert report.accepted[format_name] > 10
    assert report.refused.total() > 50


@pytest.mark.parametrize(
    ("format_name", "data", "fault"),
    [("json", b'{"embeddings": [[1, 2]]}', "AssertionError"), ("csv", b"a,1\nb,2\n", "AssertionError")],
)
def test_a_changed_number_is_noticed(format_name, data, fault, tmp_path, monkeypatch):
    import attncli

    read = attncli.read

    def read_wrongly(path):
        problem = read(path)
        problem.embeddings[0, 0] += 1e-12
        return problem

    monkeypatch.setattr("attncli.read", read_wrongly, raising=False)
    report = Report()

    try_input(report, format_name, data, tmp_path / f"x.{format_name}")

    assert [name.split(" at ")[0] for name in report.failures] == [fault]


def test_an_exception_that_is_no_error_of_ours_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("attncli.readers.json.make_problem", lambda fields: 1 / 0)
    report = Report()

    try_input(report, "json", b"[[1]]", tmp_path / "x.json")

    assert [name.split(" at ")[0] for name in report.failures] == ["ZeroDivisionError"]
