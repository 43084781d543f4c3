"""Large files: CSV has one grammar and two readers; what has been read stays as it was, whatever becomes of the file."""

from __future__ import annotations

import contextlib
import csv as python_csv
import io
import json
import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attncli
from attncli.errors import CannotError, InputError
from attncli.readers import Source, csv, files
from attncli.readers.csv_cells import NUMBER
from attncli.readers.files import read_bytes, read_into_memory
from attncli.readers.safetensors import read_tensors
from tests.helpers import draw_normal


# ── CSV: one grammar, two readers ────────────────────────────────────────────────────────────────
def outcome(text: bytes, **said):
    """What reading comes to: the problem, or the error with its place."""
    try:
        problem = csv.read_csv(Source("x.csv", text, "csv", **said))
    except InputError as error:
        return error.code, error.message, str(error.location), error.help
    return problem.embeddings.tolist(), problem.tokens, problem.notes


CELLS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-99, 99).map(str),
    st.sampled_from([
        "cat", "sat", "", " ", " 1.5", "2 ", "+1", "1.", ".5", "-.5E+3", "1e400", "1e-400", "nan", "inf", "-Infinity", "1_0", "0x1",
        "٣", "1,5", "null", "NA", "é", '"a"', '"1"', "\ufeff", "- 1", "1e", "d0", "0", "-0", "4.9e-324", "0.1e-5", "\x0b", "\x85",
    ]),
)  # fmt: skip


@pytest.mark.slow
@given(
    cells=st.lists(st.lists(CELLS, min_size=1, max_size=4), min_size=1, max_size=5),
    plain=st.booleans(),
    separator=st.sampled_from(",;\t| "),
    end=st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    last=st.sampled_from(["", "\n", "\n\n\n", " \n"]),
    header=st.sampled_from([None, "yes", "no"]),
    column=st.sampled_from([None, "none", "0", "1"]),
    before=st.sampled_from(["", "\ufeff", "\n", "2 2\n", "# d0 d1\n"]),
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
    kept = csv._POLARS_MIN_BYTES, csv._SNIFF_BYTES
    try:
        csv._POLARS_MIN_BYTES, csv._SNIFF_BYTES = 0, head
        quick = outcome(text, header=header, token_column=column)
        csv._POLARS_MIN_BYTES = 2**40
        assert outcome(text, header=header, token_column=column) == quick
    finally:
        csv._POLARS_MIN_BYTES, csv._SNIFF_BYTES = kept


def _numeric(cell: str) -> bool:
    return NUMBER.fullmatch(cell) is not None and abs(float(cell)) < float("inf")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2 1\nthe 1e5\nto .5\n", {}),
        ("2 2\n1 5\n3 4\n", {}),
        ("5 3\nthe 1 2 3\nto 4 5 6\n", {}),
        ("a\t1\nb\t2\t", {}),
        ("a|2.5\nb|1E-3\nc|4\n", {"header": "no", "token_column": "1", "columns": "1"}),
        ("token;d0;d1\n2008;.5;1\nroom 101;.1;3", {"columns": "1"}),
        ('" 1 2\n"a" 3 4\n', {}),
        ("the 1 2 \nNew York 3 4 \n", {}),
        ("\nw0 0.0\nw1 1.0\nw2 2.0", {"header": "yes"}),
        ("\n\n\ntoken,d0\na,1\nb,2\n", {}),
    ],
)
@pytest.mark.parametrize("head", [12, 2**16])
def test_both_csv_readers_agree_where_they_once_did_not_or_might_not(text, said, head, monkeypatch):
    small = outcome(text.encode(), **said)
    monkeypatch.setattr(csv, "_POLARS_MIN_BYTES", 0)
    monkeypatch.setattr(csv, "_SNIFF_BYTES", head)

    assert outcome(text.encode(), **said) == small


@pytest.mark.parametrize("said", [{}, {"header": "yes"}, {"token_column": "0"}])
def test_a_large_plain_file_is_polarss(said, monkeypatch):
    monkeypatch.setattr(csv, "_POLARS_MIN_BYTES", 0)
    monkeypatch.setattr(csv.CsvTable, "parse_problem", lambda self: pytest.fail("the standard library read it"))

    values, tokens, notes = outcome(b"token,a,b\ncat,1,2.5\n sat ,-3e-2,.5\r\n\n", **said)

    assert values == [[1, 2.5], [-0.03, 0.5]]
    assert tokens == ["cat", " sat "]
    assert notes == ("x.csv: 2 tokens × 2 dims, header row, token column 'token', separator comma",)


# ── a large file is read as a small one would be ──
def rows_of(count: int, width: int) -> str:
    return "".join(f"w{i}," + ",".join(f"{i}.{j % 97}" for j in range(width)) + "\n" for i in range(count))


@pytest.mark.slow
@pytest.mark.parametrize("header", ["token," + ",".join(map(str, range(12000))), "id," + ",".join(["1.5"] * 12000)])
def test_the_header_of_a_wide_file_is_as_unclear_as_that_of_a_narrow_one(header):
    text = f"{header}\n{rows_of(25, 12000)}".encode()
    assert len(text) > csv._POLARS_MIN_BYTES
    assert text.find(b"\n", text.find(b"\n") + 1) > csv._SNIFF_BYTES  # the second row ends beyond what is looked at

    code, *_ = outcome(text)

    assert code == "unclear-header"
    assert outcome(text, header="yes")[1] == [f"w{i}" for i in range(25)]


@pytest.mark.parametrize("bytes_looked_at", [1, 8, 20, 2**16])
@pytest.mark.parametrize(
    "text", ["token,0,1\na,1,2\nb,3,4\n", "a,1,2\n", "x,y\n1,2\n", "1,2\n3,4\na,5\n", "d0,d1\n1,2\n"]
)
def test_no_decision_rests_on_fewer_rows_than_in_a_small_file(text, bytes_looked_at, monkeypatch):
    small = outcome(text.encode())
    monkeypatch.setattr(csv, "_POLARS_MIN_BYTES", 0)
    monkeypatch.setattr(csv, "_SNIFF_BYTES", bytes_looked_at)

    assert outcome(text.encode()) == small


@pytest.mark.parametrize(
    "folder", ["~", "*", "s3:/bucket", "[ab]", "http:/localhost:1", "hf:", "file:", "{a,b}", "%41", "a?b"]
)
def test_polars_never_sees_the_name_of_a_file(folder, tmp_path, monkeypatch):
    import polars

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(csv, "_POLARS_MIN_BYTES", 0)
    read_csv = polars.read_csv
    sources = []
    monkeypatch.setattr(polars, "read_csv", lambda source, **said: sources.append(source) or read_csv(source, **said))
    for name, text in ((folder, "a,1,2\nb,3,4\n"), ("home", "c,7,8\nd,9,9\n"), ("A", "e,5,5\nf,5,5\n")):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "big.csv").write_text(text)
    name = folder.replace(":/", "://") + "/big.csv"

    problem = attncli.read(name)

    assert sources == [b"a,1,2\nb,3,4\n"]
    assert problem.tokens == ("a", "b")
    assert problem.embeddings.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("length", [131_072, 131_073, 2_000_000])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_label_may_be_of_any_length(length, quote, monkeypatch):
    label = "x" * length
    text = f"{quote}{label}{quote},0.5,1\nb,0.25,2\n".encode()
    limit = python_csv.field_size_limit()

    for least in (0, 2**60):
        monkeypatch.setattr(csv, "_POLARS_MIN_BYTES", least)
        values, tokens, _ = outcome(text)
        assert tokens == [label, "b"]
        assert values == [[0.5, 1], [0.25, 2]]
    assert python_csv.field_size_limit() == limit  # it is the whole process's


# ── what is read stays as it was read ────────────────────────────────────────────────────────────
def saved_tensors(path):
    from safetensors.numpy import save_file

    x = draw_normal(1, 5, 3)
    save_file({"embeddings": x, "positions": np.arange(5)}, path)
    return x


def test_arrays_of_safetensors_can_be_written_to_and_the_file_stays(tmp_path):
    path = tmp_path / "x.safetensors"
    x = saved_tensors(path)
    before = path.read_bytes()

    problem = attncli.read(path)
    problem.embeddings[0, 0] = 7

    np.testing.assert_array_equal(problem.embeddings[1:], x[1:])
    assert path.read_bytes() == before


def test_arrays_of_safetensors_share_the_memory_that_was_read(tmp_path):
    saved_tensors(tmp_path / "x.safetensors")

    data = read_into_memory(str(tmp_path / "x.safetensors"))
    arrays, _, _ = read_tensors(data)

    assert np.shares_memory(arrays["embeddings"], np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("change", [lambda path: os.truncate(path, 0), lambda path: path.write_bytes(b"x" * 10**6)])
def test_a_file_that_changes_afterwards_changes_no_number(tmp_path, change):
    path = tmp_path / "x.safetensors"
    x = saved_tensors(path)

    problem = attncli.read(path)
    change(path)

    np.testing.assert_array_equal(problem.embeddings, x)
    assert attncli.attend(problem)["weights"].values.shape == (5, 5)


@pytest.mark.parametrize("read", [read_bytes, read_into_memory])
@pytest.mark.parametrize("change", ["cut short", "longer", "overwritten"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, read, change):
    path = tmp_path / "x.csv"
    path.write_bytes(b"0123456789")
    opened = files.open_input

    class ChangingFile(io.FileIO):
        """A file that someone else changes at the first read."""

        def _change(self):
            if change == "overwritten":
                path.write_bytes(b"9876543210")
                os.utime(path, ns=(1, 1))  # whatever the clock of the file system can tell apart
            else:
                os.truncate(path, 4 if change == "cut short" else 20)

        def read(self, size=-1):
            self._change()
            return super().read(size)

        def readinto(self, buffer):
            self._change()
            return super().readinto(buffer)

    @contextlib.contextmanager
    def open_changing(name):
        with opened(name), ChangingFile(name) as file:
            yield file

    monkeypatch.setattr(files, "open_input", open_changing)

    with pytest.raises(InputError, match="has changed while it was read") as caught:
        read(str(path))

    assert caught.value.code == "cannot-read"


@pytest.mark.parametrize("read", [read_bytes, read_into_memory])
def test_a_file_larger_than_memory_is_refused_before_it_is_read(tmp_path, monkeypatch, read):
    path = tmp_path / "x.safetensors"
    path.touch()
    os.truncate(path, 2**26)  # a hole: nothing is stored
    monkeypatch.setattr("attncli.plan.memory.available_memory_bytes", lambda: 2**26 - 1)

    with pytest.raises(CannotError, match=r"is larger than memory: 0\.1 GiB, but only 0\.1 GiB are free"):
        read(str(path))


@pytest.mark.parametrize("read", [read_bytes, read_into_memory])
def test_a_pipe_is_read_to_its_end(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"12" * 100_000,))
    writer.start()

    assert bytes(read(str(tmp_path / "pipe"))) == b"12" * 100_000
    writer.join()


# ── headers ──────────────────────────────────────────────────────────────────────────────────────
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
        (built({"a": {**F64, "shape": [4]}}), "a declares 32 bytes, but has 24"),
        (built({"a": {**F64, "shape": [-3]}}), "a does not lie in the file"),
        (built({"a": F64, "b": F64}, bytes(48)), "b does not lie in the file"),
        (built({"a": {"dtype": "F64", "shape": [3]}}), "data_offsets"),
        (b"\x01", "a header of"),
    ],
    ids=lambda x: x if isinstance(x, str) else f"{len(x)} bytes",
)
def test_a_header_that_lies_is_refused(file, said):
    with pytest.raises(InputError, match=f"this is not a complete safetensors file: .*{said}"):
        read_tensors(file)
