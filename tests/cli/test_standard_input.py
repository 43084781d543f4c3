"""Standard input is recognised by what it holds, as its note says; `--input-format` decides otherwise."""

from __future__ import annotations

import io
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attncli.errors import InputError
from attncli.readers.base import FORMAT_MODULES
from attncli.readers.format_detection import detect_format
from tests.helpers import pack_gzip
from tests.validation.bad_files import npy, npz

X = [[0.5, 2.0, -1.0], [3.0, 0.25, 4.0]]


def safetensors(x) -> bytes:
    from safetensors.numpy import save

    return save({"embeddings": np.array(x)})


def table(method) -> bytes:
    import polars

    out = io.BytesIO()
    getattr(polars.DataFrame({"token": ["a", "b"], "embedding": X}), method)(out)
    return out.getvalue()


CSV = b"token,d0,d1,d2\nthe,0.5,2,-1\nto,3,0.25,4\n"
INPUTS = [
    (json.dumps(X).encode(), "JSON"),
    (json.dumps({"embeddings": X}, indent=1).encode(), "JSON"),
    (b"\xef\xbb\xbf  [\n[0.5, 2, -1],\n[3, 0.25, 4]\n]\n", "JSON"),
    (json.dumps([{"token": "a", "embedding": x} for x in X]).encode(), "JSON"),
    (CSV, "CSV"),
    (CSV.replace(b",", b"\t"), "CSV"),
    (b"2 3\nthe 0.5 2 -1 \nto 3 0.25 4 \n", "CSV"),
    (b"[ 0.5 2 -1\n{ 3 0.25 4\n", "CSV"),
    (b"[,0.5,2,-1\n],3,0.25,4\n", "CSV"),
    (b"0.5,2,-1\n3,0.25,4\n", "CSV"),
    (CSV.decode().encode("utf-16"), "CSV"),
    (pack_gzip(CSV), "CSV packed by gzip"),
    (pack_gzip(json.dumps(X).encode()), "JSON packed by gzip"),
    (npy(X), "NPY"),
    (npz(embeddings=X), "NPZ"),
    (safetensors(X), "safetensors"),
    (lambda: table("write_parquet"), "Parquet"),
    (lambda: table("write_ipc"), "Arrow"),
    (lambda: table("write_ipc_stream"), "Arrow"),
    (b"".join(json.dumps({"token": t, "embedding": x}).encode() + b"\n" for t, x in zip("ab", X, strict=True)), "JSON lines of tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "title"), INPUTS)
def test_standard_input_is_recognised_and_it_is_said_as_what(attn, data, title):
    data = data() if callable(data) else data  # Polars begins threads, which forks of other tests lack

    done = attn("compute", "-", "--json", "--only", "scores", stdin=data)

    assert done.status == 0
    np.testing.assert_array_equal(json.loads(done.out)["scores"], np.array(X) @ np.array(X).T)
    assert done.err.splitlines()[0] == f"standard input: recognised as {title}"


@pytest.mark.parametrize("pack", [bytes, pack_gzip])
def test_json_lines_are_recognised_and_answered_line_by_line(attn, pack):
    lines = b'{"embeddings": [[1, 0], [0, 1]]}\n\n[[2, 0], [0, 3]]\n{"embeddings": 1}\n'

    done = attn("compute", "-", "--only", "scores", stdin=pack(lines))

    answers = [json.loads(line) for line in done.out.splitlines()]
    assert done.status == 1
    assert answers[0]["scores"] == [[1, 0], [0, 1]]
    assert answers[1]["scores"] == [[4, 0], [0, 9]]
    assert answers[2]["error"]["code"] == "wrong-shape"
    assert done.err.startswith("standard input: recognised as JSON lines")


def test_the_format_that_is_named_holds(attn):
    done = attn("compute", "-", "--input-format", "ndjson", "--only", "scores", stdin=b"[[1, 2], [3, 4]]\n")
    refused = attn("compute", "-", "--input-format", "csv", stdin=b"[[1, 2], [3, 4]]")

    assert json.loads(done.out)["scores"] == [[5, 11], [11, 25]]
    assert "recognised" not in done.err + refused.err
    assert (refused.status, "--input-format json" in refused.err) == (3, True)


@pytest.mark.parametrize("command", [["explain", "-", "0"], ["check", "-"]])
def test_other_commands_recognise_it_too(attn, command):
    problem = {"embeddings": [[1, 0], [0, 1]], "expected": {"scores": [[1, 0], [0, 1]]}}

    done = attn(*command, stdin=json.dumps(problem).encode())

    assert done.status == 0
    assert "recognised as JSON" in done.err


@pytest.mark.parametrize(
    ("data", "code"), [(b"", "empty"), (b" \n", "empty"), (b"BZh91AY&SY", "packed"), (b"[[1, 2], [3", "bad-json")]
)
def test_what_cannot_be_read_is_refused(attn, data, code):
    done = attn("compute", "-", stdin=data)

    assert done.status == 3
    assert done.err.splitlines()[-1 if code != "bad-json" else 0]
    assert f"error[{code}]" in done.err
    assert "<stdin>" in done.err


FOREIGN = {
    "a Python pickle": pickle.dumps([1.0, 2.0]),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "a GGUF model": b"GGUF" + bytes(64),
    "a spreadsheet": b"PK\x03\x04" + bytes(22) + b"\x13\0\0\0[Content_Types].xml" + bytes(64),
}


@pytest.mark.parametrize("title", FOREIGN)
def test_files_of_other_programs_are_refused_as_they_are_by_name(attn, title):
    done = attn("compute", "-", stdin=FOREIGN[title])

    assert done.status == 3
    assert f"error[foreign-format]: {title} is not read" in done.err
    assert "FILE NEW." in done.err


@pytest.mark.parametrize(
    ("make", "name"), [(lambda: npz(embeddings=X), "npz"), (lambda: table("write_parquet"), "parquet")]
)
def test_what_is_of_another_format_than_is_said_is_named(attn, make, name):
    data = make()

    done = attn("compute", "-", "--input-format", "csv", stdin=data)
    followed = attn("compute", "-", "--input-format", name, "--only", "scores", "--json", stdin=data)

    assert (done.status, f"help: --input-format {name} reads it" in done.err) == (3, True)
    assert followed.json["scores"] == (np.array(X) @ np.array(X).T).tolist()


def test_arrays_are_not_read_packed(attn):
    done = attn("compute", "-", stdin=pack_gzip(npy(X)))

    assert done.status == 2
    assert "help: unpack it first: gunzip < FILE | attn compute -" in done.err


@given(st.binary(min_size=1, max_size=60))
def test_anything_has_a_format_or_is_empty(data):
    if not data.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n"):
        with pytest.raises(InputError, match="standard input is empty"):
            detect_format(data)
    else:
        assert detect_format(data) in FORMAT_MODULES
