"""A fuzzer that finds something says so: each kind of fault is planted, and counted."""

from __future__ import annotations

import dataclasses
import io
import time

import polars
import pytest
import zstandard

from tests.fuzz import harness, mutate_inputs, verdicts
from tests.fuzz.command_lines import find_fault
from tests.fuzz.harness import Outcome, Tally, run_fuzzer, try_inputs
from tests.helpers import pack_gzip

pytestmark = pytest.mark.uncounted


def planted(fault):
    """A fuzzer whose inputs are good, but for the fourth."""

    def fuzz(seed, indices, folder):
        for i in indices:
            if i == 3:
                fault()
            yield Outcome("number", "" if i % 2 else "odd", content=b"x")

    return fuzz


def raise_error():
    raise ZeroDivisionError("planted")


def take_memory():
    b"x" * (200 << 20)


def take_time():
    """Compute for a second of this process's own time, however long that takes on a busy machine."""
    end = time.process_time() + 1
    while time.process_time() < end:
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "kind"),
    [(raise_error, "bug"), (lambda: time.sleep(60), "hang"), (take_memory, "cost"), (take_time, "cost")],
    ids=["exception", "sleep", "memory", "time"],
)
def test_a_fault_is_counted_and_the_others_are_tried_all_the_same(tmp_path, monkeypatch, fault, kind):
    monkeypatch.setattr(harness, "HANG_SECONDS", 2 if kind == "hang" else 300)  # others may have the machine
    if fault is take_time:
        monkeypatch.setattr(harness, "MAX_CPU_SECONDS", 0.5)

    tally = try_inputs("readers", planted(fault), 1, iter(range(8)), tmp_path)

    assert tally.fault_counts == {kind: 1}
    assert [index for index, _ in tally.faults] == [3]
    assert (tally.tried.total(), tally.accepted.total(), tally.refused["odd"]) == (8, 3, 4)
    assert "--only readers --seed 1 --first 3 --count 1" in tally.describe_faults()


def test_without_a_fault_nothing_is_counted(tmp_path):
    tally = try_inputs("readers", planted(lambda: None), 1, iter(range(8)), tmp_path)

    assert not tally.fault_counts
    assert (tally.accepted.total(), tally.refused.total()) == (4, 4)


@pytest.mark.slow
def test_a_process_that_dies_is_a_fault():
    tally = run_fuzzer("a fuzzer that there is not", 1, count=4)

    assert tally.fault_counts == {"bug": 1}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["readers", "parts", "schemas", "schedules", "figures", "verdicts"])
def test_an_input_is_the_same_whichever_process_tries_it(name, tmp_path):
    fuzz = harness.load_fuzz(name)

    together = list(fuzz(3, iter(range(6)), tmp_path))
    alone = [next(fuzz(3, iter([i]), tmp_path)) for i in range(6)]

    assert [(o.kind, o.code) for o in alone] == [(o.kind, o.code) for o in together]
    assert name == "readers" or [o.content for o in alone] == [o.content for o in together]  # archives hold the time


def test_faults_of_processes_are_added_up():
    one, other = Tally("readers", 1), Tally("readers", 1)
    one.add(0, Outcome("json", "empty"))
    other.add(1, Outcome("json", fault_kind="bug", fault="x"))

    one.merge(other)

    assert (one.tried["json"], one.refused["empty"], one.fault_counts["bug"]) == (2, 1, 1)


def table_bytes(method: str) -> bytes:
    out = io.BytesIO()
    getattr(polars.DataFrame({"token": ["a", "b"], "d0": [1.0, 2.0]}), method)(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        ("json", b'{"embeddings": [[1, 2]]}'),
        ("csv", b"a,1\nb,2\n"),
        ("txt", b"2 2\na 1 2 \nb 2 3 \n"),
        ("csv.gz", pack_gzip(b"a,1\nb,2\n")),
        ("json.zst", zstandard.compress(b"[[1], [2]]")),
        ("parquet", lambda: table_bytes("write_parquet")),
        ("arrow", lambda: table_bytes("write_ipc")),
    ],
)
def test_a_changed_number_is_noticed(suffix, data, tmp_path, monkeypatch):
    import attncli

    read = attncli.read

    def read_wrongly(path):
        problem = read(path)
        return dataclasses.replace(problem, embeddings=problem.embeddings + 1e-12)

    data = data() if callable(data) else data  # Polars begins threads, which forks of other tests lack
    assert mutate_inputs.try_input(suffix, data, tmp_path).fault_kind is None
    monkeypatch.setattr("attncli.read", read_wrongly, raising=False)

    assert mutate_inputs.try_input(suffix, data, tmp_path).fault_kind == "wrong"


def test_an_exception_that_is_no_error_of_ours_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("attncli.readers.json.make_problem", lambda fields: 1 / 0)

    outcome = mutate_inputs.try_input("json", b"[[1]]", tmp_path)

    assert (outcome.fault_kind, outcome.fault.split(" at ")[0]) == ("bug", "ZeroDivisionError")


@pytest.mark.slow
def test_a_verdict_that_is_not_as_wanted_is_noticed(tmp_path):
    trials = (verdicts.draw_trial(13, i) for i in range(50))
    trial = next(trial for trial in trials if trial.wanted == "right")

    assert verdicts.is_as_wanted(trial, verdicts.outcome(trial, tmp_path))
    assert not verdicts.is_as_wanted(trial, "wrong")


@pytest.mark.parametrize(
    ("status", "out", "err", "fault"),
    [
        (70, b"", b"error[bug]: a bug", "status 70"),
        (-14, b"", b"", "it hangs"),
        (-11, b"", b"", "status -11"),
        (3, b"", b"Traceback (most recent call last):", "a traceback"),
        (0, b"", b"x.py:1: RuntimeWarning: overflow", "a warning of a library"),
        (2, b"a table", b"error[usage]: x", "it refuses, and has written b'a table'"),
        (4, b"", b"no space", "an error without a code"),
        (2, b"", b"error[usage]: x", ""),
        (0, b"a table", b"", ""),
    ],
)
def test_faults_of_command_lines_are_noticed(status, out, err, fault):
    assert find_fault(("compute", "x.csv"), status, out, err) == fault


def test_a_result_that_differs_and_a_file_outside_are_noticed(tmp_path):
    from tests.fuzz import manifests

    for name in ("out/p00000.json", "victim.json", "elsewhere/x.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("precious")
    results, words = {"p00000.json": b"precious"}, manifests.COMMANDS[0]

    assert manifests.find_fault(0, "", tmp_path, results, words) == ""
    assert manifests.find_fault(70, "", tmp_path, results, words) == "status 70"
    (tmp_path / "out/p00000.json").write_text("other")
    assert "is not what" in manifests.find_fault(0, "", tmp_path, results, words)
    (tmp_path / "stranger").touch()
    assert "outside of the folder" in manifests.find_fault(0, "", tmp_path, results, words)
    (tmp_path / "victim.json").write_text("{}")
    assert manifests.find_fault(0, "", tmp_path, results, words) == "victim.json was written to"
