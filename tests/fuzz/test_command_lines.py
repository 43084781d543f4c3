"""A short form of `tests.fuzz.command_lines`: random command lines, none of which ends as a bug."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fuzz.command_lines import find_fault
from tests.helpers import ROOT, TIMEOUT


@pytest.mark.slow
def test_no_command_line_is_a_bug():
    line = [sys.executable, "-m", "tests.fuzz.command_lines", "250", "1"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)

    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads(done.stdout)
    assert sum(report["statuses"].values()) == 250
    assert {"0", "2", "3", "4"} <= {*report["statuses"]}
    assert {"compute", "explain", "check", "batch", "demo", "list", "schema"} <= {*report["commands"]}
    print(report["statuses"])


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
def test_faults_are_noticed(status, out, err, fault):
    assert find_fault(("compute", "x.csv"), status, out, err) == fault
