"""`attn batch`: JSON lines, and standard output."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.batch.helpers import GOOD, lines, names, peak_kibibytes, write
from tests.helpers import ROOT, TIMEOUT

pytestmark = pytest.mark.slow


def test_json_lines_become_json_lines(attn, tmp_path):
    write(tmp_path, {"in/l.jsonl": f"{GOOD}\n\n[[1, 2], [3\n{GOOD}\n", "in/one.json": GOOD})

    done = attn("batch", "in", "-o", "out", "--only", "weights")

    assert done.status == 1
    assert names(tmp_path / "out") == ["failed.txt", "l.ndjson", "manifest.ndjson", "one.json"]
    first, bad, last = lines(tmp_path / "out/l.ndjson")
    one = json.loads((tmp_path / "out/one.json").read_text())
    assert first == one | {"source": "in/l.jsonl", "line": 1}
    assert last == one | {"source": "in/l.jsonl", "line": 4}
    assert (bad["source"], bad["line"], bad["error"]["code"]) == ("in/l.jsonl", 3, "bad-json")
    assert bad["error"]["location"]["row"] == 3
    assert "failed[lines-failed]: in/l.jsonl: 1 of 3 lines failed: 1 bad-json" in done.err
    write(tmp_path, {"in/l.jsonl": f"{GOOD}\n{GOOD}\n"})
    assert "1 done, 0 failed, 1 skipped" in attn("batch", "in", "-o", "out", "--only", "weights").err
    assert "2 skipped" in attn("batch", "in", "-o", "out", "--only", "weights").err


@pytest.mark.parametrize("jobs", [1, 2])
def test_standard_output_is_json_lines_in_the_order_of_the_inputs(attn, tmp_path, jobs):
    count = 60
    write(tmp_path, {f"in/p{i:02d}.json": GOOD.replace("0.5", f"{i}.25") for i in range(count)})
    write(tmp_path, {"in/p07.json": "[[1,", "in/p30.ndjson": f"{GOOD}\nnope\n{GOOD}\n"})

    done = attn("batch", tmp_path / "in", "-o", "-", "-j", jobs, "--only", "q")

    assert done.status == 1
    out = [json.loads(line) for line in done.out.splitlines()]
    firsts = [line["q"][0][1] if "q" in line else line["error"]["code"] for line in out]
    wanted = [i + 0.25 if i != 7 else "bad-json" for i in range(count)]
    wanted[31:31] = [0.5, "bad-json", 0.5]
    assert firsts == wanted
    folder = tmp_path / "in"
    sources = [(f"{folder}/p{i:02d}.json", None) for i in range(count) if i != 30]
    sources[30:30] = [(f"{folder}/p30.json", None), *((f"{folder}/p30.ndjson", line) for line in (1, 2, 3))]
    assert [(line["source"], line.get("line")) for line in out] == sources
    assert names(tmp_path / "in") == names(tmp_path)[: count + 1] or not (tmp_path / "manifest.ndjson").exists()


def test_a_pipe_that_closes_ends_the_batch(tmp_path):
    write(tmp_path, {f"in/p{i:03d}.json": GOOD for i in range(400)})
    command = [sys.executable, "-m", "attncli", "batch", str(tmp_path / "in"), "-o", "-"]
    piped = subprocess.run(
        ["bash", "-c", f"{' '.join(command)} | head -2 | wc -l; exit ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT, check=False,
    )  # fmt: skip

    assert (piped.stdout.strip(), piped.returncode) == ("2", 141)


def test_a_long_stream_takes_no_more_memory_than_a_short_one(tmp_path):
    used = []
    for count in (20, 1000):
        path = tmp_path / f"{count}.ndjson"
        path.write_text((GOOD[:-1] + f', "about": "{"x" * 60_000}"}}\n') * count)
        used.append(peak_kibibytes("batch", path, "-o", tmp_path / f"out{count}", "-q"))
        assert len(lines(tmp_path / f"out{count}" / f"{count}.ndjson")) == count

    assert used[1] - used[0] < 20_000  # KiB; the input alone is three times as large
