"""A short form of `tests.fuzz.kills`: sixty commands ended at random moments."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.helpers import ROOT, TIMEOUT

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("count", "seed", "words"), [(45, 1, []), (15, 2, ["named"])])
def test_whatever_ends_a_command_leaves_files_whole_and_nothing_beside_them(tmp_path, count, seed, words):
    line = [sys.executable, "-m", "tests.fuzz.kills", str(count), str(seed), *words]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)

    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads(done.stdout)
    assert sum(report["kills"].values()) == count
    assert report["too_late"] < count / 2
    print(report["kills"])
