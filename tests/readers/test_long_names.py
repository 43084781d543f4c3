"""Very long names and labels: each is looked at once, not from each of its characters on."""

from __future__ import annotations

import json
import time

import pytest

from tests.readers.test_costs import MAX_CPU_SECONDS

DIGITS = "1" * 100_000 + "x"  # of which an expression such as \d+$ tries every digit as the first
WEIGHTS = "0.5,0.5\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", f"token,{DIGITS},{DIGITS}y\ncat,1,2\ndog,3,4\n", ("compute", "a.csv")),
        ("a.json", json.dumps([{DIGITS: 1, DIGITS + "y": 2}, {DIGITS: 1, DIGITS + "y": 3}]), ("compute", "a.json")),
        ("a.json", json.dumps({DIGITS: [1, 2], "b": [3, 4]}), ("compute", "a.json")),
        ("f.csv", f"token,a,b\n{DIGITS},{WEIGHTS}{DIGITS}y,{WEIGHTS}", ("check", "p.json", "--step", "weights", "--figures", "f.csv")),
        ("f.csv", f"token,{DIGITS},{DIGITS}y\na,{WEIGHTS}b,{WEIGHTS}", ("check", "p.json", "--step", "weights", "--figures", "f.csv")),
        ("a.json", json.dumps({"tokens": [DIGITS, DIGITS + "y"], "embeddings": [[1], [2]]}), ("plot", "a.json", "-o", "a.svg")),
    ],
)  # fmt: skip
def test_a_long_name_takes_no_longer_than_its_length(attn, tmp_path, name, content, words):
    (tmp_path / "p.json").write_text('{"tokens": ["a", "b"], "embeddings": [[1, 0], [0, 1]]}')
    (tmp_path / name).write_text(content)
    attn("compute", "p.json")  # which loads what is loaded once

    began = time.process_time()
    done = attn(*words)

    assert time.process_time() - began < MAX_CPU_SECONDS
    assert done.status in (0, 3)
    assert words[0] != "check" or done.err.startswith("error[unknown-label]: ")
