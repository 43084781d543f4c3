"""Large files: mapped, read by Polars where that reads the same, written as they are computed; and the bar on a terminal."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attncli
from attncli import readers
from attncli.errors import InputError
from attncli.plan import schedule
from attncli.readers import Source, csv, slurp
from attncli.readers.results import read_result
from attncli.readers.safetensors import tensors
from tests.conftest import ROOT
from tests.test_laws import draws


# ── CSV: one grammar, two readers ────────────────────────────────────────────────────────────────
def outcome(text: bytes, **said):
    """What reading comes to: the problem, or the error with its place."""
    try:
        problem = csv.read_csv(Source("x.csv", text, "csv", **said))
    except InputError as error:
        return error.code, error.message, str(error.place), error.help
    return problem.embeddings.tolist(), problem.tokens, problem.notes


CELLS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-99, 99).map(str),
    st.sampled_from([
        "cat", "sat", "", " ", " 1.5", "2 ", "+1", "1.", ".5", "-.5E+3", "1e400", "1e-400", "nan", "inf", "-Infinity", "1_0", "0x1",
        "٣", "1,5", "null", "NA", "é", '"a"', '"1"', "\ufeff", "- 1", "1e", "d0", "0", "-0", "4.9e-324", "0.1e-5", "\x0b", "\x85",
    ]),
)  # fmt: skip


@given(
    cells=st.lists(st.lists(CELLS, min_size=1, max_size=4), min_size=1, max_size=5),
    plain=st.booleans(),
    separator=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    last=st.sampled_from(["", "\n", "\n\n\n", " \n"]),
    header=st.sampled_from([None, "yes", "no"]),
    column=st.sampled_from([None, "none", "0", "1"]),
    before=st.sampled_from(["", "\ufeff", "\n"]),
    head=st.sampled_from([6, 2**16]),
)
@settings(max_examples=300)
def test_both_csv_readers_accept_and_refuse_the_same(cells, plain, separator, end, last, header, column, before, head):
    if plain:  # rows of one width, whose first cell is a token
        width = len(cells[0])
        cells = [
            ["w" + str(i), *(c if _numeric(c) else "1.25" for c in (row * width)[: width - 1])]
            for i, row in enumerate(cells)
        ]
    text = (before + end.join(separator.join(row) for row in cells) + last).encode()
    kept = csv._LARGE, csv._HEAD
    try:
        csv._LARGE, csv._HEAD = 0, head
        quick = outcome(text, header=header, token_column=column)
        csv._LARGE = 2**40
        assert outcome(text, header=header, token_column=column) == quick
    finally:
        csv._LARGE, csv._HEAD = kept


def _numeric(cell: str) -> bool:
    return csv._NUMBER.fullmatch(cell) is not None and abs(float(cell)) < float("inf")


@pytest.mark.parametrize("said", [{}, {"header": "yes"}, {"token_column": "0"}])
def test_a_large_plain_file_is_polarss(said, monkeypatch):
    monkeypatch.setattr(csv, "_LARGE", 0)
    monkeypatch.setattr(csv._Table, "problem", lambda self: pytest.fail("the standard library read it"))

    values, tokens, notes = outcome(b"token,a,b\ncat,1,2.5\n sat ,-3e-2,.5\r\n\n", **said)

    assert values == [[1, 2.5], [-0.03, 0.5]]
    assert tokens == ["cat", " sat "]
    assert notes == ("x.csv: 2 tokens × 2 dims, header row, token column 'token', separator comma",)


# ── binary files are mapped ──────────────────────────────────────────────────────────────────────
def test_a_large_binary_file_is_mapped_and_never_written_on(tmp_path, monkeypatch):
    from safetensors.numpy import save_file

    monkeypatch.setattr(readers, "_LARGE", 0)
    path, x = tmp_path / "x.safetensors", draws(1, 5, 3)
    save_file({"embeddings": x, "positions": np.arange(5)}, path)
    before = path.read_bytes()

    problem = attncli.read(path)
    problem.embeddings[0, 0] = 7

    assert type(slurp(str(path), mapped=True)).__name__ == "mmap"
    np.testing.assert_array_equal(problem.embeddings[1:], x[1:])
    assert path.read_bytes() == before


def built(header: dict, data: bytes = bytes(24), length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


F64 = {"dtype": "F64", "shape": [3], "data_offsets": [0, 24]}


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (built({"a": F64}, length=10**9), "a header of 1,000,000,000 bytes is declared"),
        (built({"a": F64}, bytes(23)), "a does not lie in the file"),
        (built({"a": F64}, bytes(25)), "1 bytes belong to no tensor"),
        (built({"a": {**F64, "shape": [4]}}), "a declares 32 bytes, and has 24"),
        (built({"a": {**F64, "shape": [-3]}}), "a does not lie in the file"),
        (built({"a": F64, "b": F64}, bytes(48)), "b does not lie in the file"),
        (built({"a": {"dtype": "F64", "shape": [3]}}), "data_offsets"),
        (b"\x01", "a header of"),
    ],
)
def test_a_header_that_lies_is_refused(file, said):
    with pytest.raises(InputError, match=f"this is no whole safetensors file: .*{said}"):
        tensors(file)


# ── matrices of a long run go straight to the file ───────────────────────────────────────────────
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_matrices_of_a_long_run_are_computed_in_the_file(attn, tmp_path, monkeypatch, dtype):
    import torch
    from safetensors.torch import load_file

    np.save(tmp_path / "x.npy", draws(1, 13, 4))
    words = (
        "compute",
        "x.npy",
        "--heads",
        2,
        "--only",
        "weights,mask,context,scores",
        "--mask",
        "causal and not prefix:length=1",
    )
    whole = attn(*words, "--dtype", dtype, "-o", "whole.safetensors")
    monkeypatch.setattr(schedule, "DENSE", 0)
    monkeypatch.setattr(schedule, "TILE", 40)
    monkeypatch.setattr(schedule, "available", lambda: 0)  # memory does not matter there, but for the vectors
    monkeypatch.setattr(schedule, "_ALWAYS", 2**20)

    long = attn(*words, "--dtype", dtype, "-o", "long.safetensors")

    assert (whole.status, long.status) == (0, 0)
    assert long.err == whole.err
    one, other = load_file("whole.safetensors"), load_file("long.safetensors")
    assert one.keys() == other.keys()
    for name, x in one.items():
        assert x.dtype == other[name].dtype
        torch.testing.assert_close(other[name], x, rtol=1e-2 if dtype == "bfloat16" else 1e-5, atol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["long.safetensors", "whole.safetensors", "x.npy"]
    assert read_result("long.safetensors").variant["schedule"] == "tiled"


def test_a_run_that_fails_leaves_no_file(attn, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", draws(1, 13, 4))
    monkeypatch.setattr(schedule, "DENSE", 0)
    monkeypatch.setattr("attncli.core.attention.merge", lambda z: 1 / 0)

    done = attn("compute", "x.npy", "--only", "weights,context", "-o", "o.safetensors")

    assert done.status == 70
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]


def test_chosen_rows_of_a_long_run_are_labelled(attn, tmp_path, monkeypatch):
    (tmp_path / "x.csv").write_text("".join(f"w{i},{i},{i * i % 7}\n" for i in range(13)))
    words = ("compute", "x.csv", "--causal", "--at", "query=w11", "--at", "query=2", "--only", "weights", "--json")
    whole = attn(*words).json
    monkeypatch.setattr(schedule, "DENSE", 0)

    long = attn(*words).json

    assert long["tokens"] == whole["tokens"] == ["w11", "w2"]
    assert long["at"] == whole["at"] == {"query": [11, 2]}
    np.testing.assert_allclose(long["weights"], whole["weights"], rtol=1e-12)


# ── the bar ──────────────────────────────────────────────────────────────────────────────────────
_SLOW = """
import sys, time
from attncli.plan import schedule
import attncli.core.attention as attend
schedule.DENSE, schedule.TILE = 0, 1
was = attend.tiles
def slow(plan):
    for tile in was(plan):
        time.sleep(0.2)
        yield tile
attend.tiles = slow
from attncli.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(("more", "seen"), [([], True), (["--no-progress"], False), (["--quiet"], False)])
def test_a_bar_tells_how_far_a_long_run_is_on_a_terminal(tmp_path, more, seen):
    import pty
    import subprocess

    np.save(tmp_path / "x.npy", draws(1, 10, 3))
    ours, theirs = pty.openpty()
    words = [sys.executable, "-c", _SLOW, "compute", "x.npy", "--only", "log_sum_exp", "--json", *more]
    done = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            said += (more_said := os.read(ours, 2**16))
        except OSError:  # the other end is closed
            break
        if not more_said:
            break
    out = done.communicate(timeout=60)[0]
    os.close(ours)

    assert done.returncode == 0, said
    assert len(json.loads(out)["log_sum_exp"]) == 10
    assert (b"attending" in said) is seen
    assert (b"rows/s" in said) is seen
