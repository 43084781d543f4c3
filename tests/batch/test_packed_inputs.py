"""`attn batch` of packed files, and of text files, which are inputs only where they are named."""

from __future__ import annotations

import json

import pytest
import zstandard

from tests.batch.helpers import GOOD, failure_codes, lines, names, results_by_input, write
from tests.helpers import pack_gzip


def test_packed_files_give_the_results_of_what_they_hold(attn, tmp_path):
    write(tmp_path, {"plain/a.json": GOOD, "plain/sub/b.csv": "cat,1,2\nsat,3,4\n", "plain/c.jsonl": f"{GOOD}\n\n{GOOD}\n", "in/d.txt": "notes"})  # fmt: skip
    for name in ("a.json", "sub/b.csv", "c.jsonl"):
        path = tmp_path / "in" / f"{name}.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pack_gzip((tmp_path / "plain" / name).read_bytes()))

    plain = attn("batch", "plain", "-o", "x", "--only", "weights")
    packed = attn("batch", "in", "-o", "y", "--only", "weights")
    again = attn("batch", "in", "-o", "y", "--only", "weights")

    assert (plain.status, packed.status) == (0, 0)
    assert names(tmp_path / "y") == ["a.json", "c.ndjson", "manifest.ndjson", "sub/b.json"]
    for name in ("a.json", "c.ndjson", "sub/b.json"):
        of_plain, of_packed = (lines(tmp_path / folder / name) for folder in "xy")
        assert [record | {"source": ""} for record in of_packed] == [record | {"source": ""} for record in of_plain]
        assert of_packed[0]["source"].endswith(".gz")
    assert "3 skipped" in again.err


def test_a_packed_stream_answers_each_line(attn, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl.zst").write_bytes(zstandard.compress(f"{GOOD}\n[[1\n{GOOD}".encode()))

    done = attn("batch", "in", "-o", "out", "--only", "q")

    first, bad, last = lines(tmp_path / "out/a.ndjson")
    assert done.status == 1
    assert first["q"] == last["q"]
    assert (first["line"], last["line"]) == (1, 3)
    assert (bad["error"]["code"], bad["error"]["location"]["row"]) == ("bad-json", 2)
    checked = attn("batch", "in", "-o", "out", "--only", "q", "--dry-run")
    assert "1 of 3 lines failed" in checked.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("a.jsonl.gz", pack_gzip(GOOD.encode())[:-5], "bad-file"),
        ("a.jsonl.gz", pack_gzip(b"[" * 10**7), "too-compressed"),
        ("a.jsonl.zst", zstandard.compress(b"\n" * 10**8), "too-compressed"),
        ("a.csv.gz", b"a,1\nb,2\n", "bad-file"),
    ],
)
def test_a_damaged_or_hostile_packed_file_costs_itself_alone(attn, tmp_path, name, data, code):
    write(tmp_path, {"in/b.json": GOOD})
    (tmp_path / "in" / name).write_bytes(data)

    done = attn("batch", "in", "-o", "out", "--only", "q")

    assert done.status == 1
    assert "1 done, 1 failed" in done.err
    assert failure_codes(tmp_path / "out") == {f"in/{name}": code}
    assert json.loads((tmp_path / "out/b.json").read_text())["tokens"] == ["a", "b"]


def test_text_files_are_inputs_where_they_are_named(attn, tmp_path):
    write(
        tmp_path,
        {"d/notes.txt": "read me", "d/x.vec": "2 2\na 1 2\nb 3 4\n", "d/y.json": GOOD, "d/glove.txt": "a 1 2\nb 3 4\n"},
    )

    assert results_by_input("d") == {"d/x.vec": "x.json", "d/y.json": "y.json"}
    assert results_by_input("d/glove.txt") == {"d/glove.txt": "glove.json"}
    assert results_by_input("d/g*.txt") == {"d/glove.txt": "glove.json"}


def test_a_file_and_its_packed_copy_would_have_one_result(attn, tmp_path):
    write(tmp_path, {"d/a.csv": "a,1\nb,2\n"})
    (tmp_path / "d/a.csv.gz").write_bytes(pack_gzip(b"a,1\nb,2\n"))

    refused = attn("batch", "d", "-o", "out")
    kept = attn("batch", "d", "-o", "out", "--keep-suffix")

    assert (refused.status, "--keep-suffix tells them apart" in refused.err) == (2, True)
    assert names(tmp_path / "out") == ["a.csv.gz.json", "a.csv.json", "manifest.ndjson"]
    assert kept.status == 0
