"""Readers: what each format says, and that formats say the same."""

from __future__ import annotations

import io
import json
import re
import string
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import attncli
from attncli.errors import AttnError, InputError
from attncli.readers import Source, load_readers
from attncli.readers.base import FORMAT_MODULES, READERS
from attncli.types import FIELDS
from attncli.validation import validate
from tests.helpers import SAMPLES

X = [[1.0, -2.5], [0.25, 3.0], [7.0, 0.5]]


def read_as(format: str, data: bytes | str, **said) -> attncli.Problem:
    return validate(
        load_readers()[format].read(Source("test", data.encode() if isinstance(data, str) else data, format, **said))
    )


# ── CSV ──────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("text", "tokens", "found"),
    [
        (
            "token,d0,d1\na,1,-2.5\nb,.25,3.\nc,7e0,5E-1\n",
            ("a", "b", "c"),
            "header row, token column 'token', separator comma",
        ),
        ("a,1,-2.5\nb,0.25,3\nc,7,0.5\n", ("a", "b", "c"), "no header, token column 0, separator comma"),
        ("1,-2.5\n0.25,3\n7,0.5\n", None, "no header, no token column, separator comma"),
        ("d0,d1\n1,-2.5\n0.25,3\n7,0.5\n", None, "header row, no token column, separator comma"),
        ("x,y\n1,-2.5\n0.25,3\n7,0.5\n", None, "header row, no token column, separator comma"),
        (
            "token\td0\td1\na\t1\t-2.5\nb\t0.25\t3\nc\t7\t0.5",
            ("a", "b", "c"),
            "header row, token column 'token', separator tab",
        ),
        ("a;1;-2,5\nb;0,25;3\nc;7;0.5\n", ("a", "b", "c"), "no header, token column 0, separator semicolon"),
        (
            '\ufeff"a, b",1,-2.5\r\n"say ""hi""",0.25,3\r\nc,7,0.5\r\n\r\n\r\n',
            ("a, b", 'say "hi"', "c"),
            "no header, token column 0, separator comma",
        ),
        ("3,1,-2.5\n4,0.25,3\nfive,7,0.5\n", ("3", "4", "five"), "no header, token column 0, separator comma"),
        ("nan,1,-2.5\nthe,0.25,3\ninf,7,0.5\n", ("nan", "the", "inf"), "no header, token column 0, separator comma"),
        (" a , 1 , -2.5 \nb,0.25,3\nc,7,0.5\n", (" a ", "b", "c"), "no header, token column 0, separator comma"),
        (
            '"two\nlines",1,-2.5\nb,0.25,3\nc,7,0.5\n',
            ("two\nlines", "b", "c"),
            "no header, token column 0, separator comma",
        ),
    ],
)
def test_csv(text, tokens, found):
    problem = read_as("csv", text)

    assert problem.tokens == tokens
    np.testing.assert_array_equal(problem.embeddings, X)
    assert problem.notes == (f"test: 3 tokens × 2 dims, {found}",)


@pytest.mark.parametrize(
    ("text", "said", "tokens", "vectors"),
    [
        ("0,1\n5,6\n", {"header": "yes"}, None, [[5, 6]]),
        ("0,1\n5,6\n", {"header": "no"}, None, [[0, 1], [5, 6]]),
        ("id,d0,d1\n5,6,7\n8,9,1\n", {"token_column": "id"}, ("5", "8"), [[6, 7], [9, 1]]),
        ("id,d0,d1\n5,6,7\n8,9,1\n", {"columns": "id,d0,d1"}, None, [[5, 6, 7], [8, 9, 1]]),
        ("id,d0,d1\n5,6,7\n8,9,1\n", {"drop": "id"}, None, [[6, 7], [9, 1]]),
        ("id,token,d0,d1\n5,a,6,7\n8,b,9,1\n", {"token_column": "token", "drop": "id"}, ("a", "b"), [[6, 7], [9, 1]]),
        ("token,d0,d1,freq\na,6,7,900\nb,9,1,3\n", {"drop": "freq"}, ("a", "b"), [[6, 7], [9, 1]]),
        ("token,d0,d1,split\na,6,7,train\nb,9,1,test\n", {"drop": "split"}, ("a", "b"), [[6, 7], [9, 1]]),
        ("token,d0,d1,d2\na,6,7,1\nb,9,1,2\n", {"columns": "d2,d0"}, ("a", "b"), [[1, 6], [2, 9]]),
        (
            ",0,1,2\n0,6,7,5\n1,9,1,4\n",
            {"header": "yes", "token_column": "place:0"},
            ("0", "1"),
            [[6, 7, 5], [9, 1, 4]],
        ),
        (",0,1,2\n0,6,7,5\n1,9,1,4\n", {"header": "yes", "drop": "place:0"}, None, [[6, 7, 5], [9, 1, 4]]),
        (",token,d0,d1\n0,a,6,7\n1,b,9,1\n", {"token_column": "token", "drop": "0"}, ("a", "b"), [[6, 7], [9, 1]]),
        ("d0,word,d1\n5,a,7\n8,b,1\n", {"token_column": "word"}, ("a", "b"), [[5, 7], [8, 1]]),
        ("5,a,7\n8,b,1\n", {"token_column": "1"}, ("a", "b"), [[5, 7], [8, 1]]),
    ],
)
def test_csv_where_the_user_decides(text, said, tokens, vectors):
    problem = read_as("csv", text, **said)

    assert problem.tokens == tokens
    np.testing.assert_array_equal(problem.embeddings, vectors)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a,1,2\nb,3,4\nc,x,4\n", 3, 3),
        ("a,1,2\nb,3,\n", 2, 5),
        ('"a,b",1,2\n"c,d",3,nan\n', 2, 9),
        ("a;1;2\nb;3;x\n", 2, 5),
        ('"two\nlines",1,2\nb,3\n', 3, 4),
    ],
)
def test_csv_points_at_the_cell(text, line, column):
    with pytest.raises(InputError) as caught:
        read_as("csv", text)

    assert (caught.value.location.line, caught.value.location.column) == (line, column)


words = st.text(string.ascii_letters + " é,;'\"", min_size=1, max_size=6).filter(
    lambda t: (
        t.strip(" ") == t and any(c.isalpha() for c in t) and t.lower() not in ("nan", "inf", "na", "null", "none")
    )
)
numbers = st.floats(-1e6, 1e6, allow_nan=False, width=32)


@given(
    st.integers(1, 4).flatmap(
        lambda d: st.lists(st.tuples(words, st.lists(numbers, min_size=d, max_size=d)), min_size=1, max_size=5)
    ),
    st.sampled_from(",\t;"),
)
def test_csv_reads_back_what_csv_writes(rows, separator):
    import csv

    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator)
    for token, vector in rows:
        writer.writerow([token, *map(repr, vector)])

    problem = read_as("tsv" if separator == "\t" else "csv", out.getvalue(), header="no", token_column="0")

    assert problem.tokens == tuple(token for token, _ in rows)
    np.testing.assert_array_equal(problem.embeddings, [vector for _, vector in rows])


@given(st.binary(max_size=60) | st.text(st.sampled_from('0123456789.,;\t\n"-eEnaif_ x'), max_size=40).map(str.encode))
def test_csv_never_breaks(data):
    try:
        problem = read_as("csv", data)
    except InputError:
        return

    assert np.isfinite(problem.embeddings).all()
    assert problem.embeddings.ndim == 2


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        ({"embeddings": X}, None),
        (X, None),
        ([{"token": t, "embedding": x} for t, x in zip("abc", X, strict=True)], ("a", "b", "c")),
        ([{"embedding": x} for x in X], None),
        ({"tokens": ["a", "a", ""], "embeddings": X}, ("a", "a", "")),
    ],
)
def test_json(document, tokens):
    problem = read_as("json", json.dumps(document))

    assert problem.tokens == tokens
    np.testing.assert_array_equal(problem.embeddings, X)


def test_json_with_a_byte_order_mark_and_integers_of_any_size():
    problem = read_as("json", b"\xef\xbb\xbf" + b' {"embeddings": [[1, 100000000000000000000000]]} ')

    np.testing.assert_array_equal(problem.embeddings, [[1, 1e23]])


def test_json_spells_what_is_not_finite():
    problem = read_as(
        "json",
        json.dumps({"q": [[1, "NaN"]], "k": [["-Infinity", 2]], "v": [["Infinity", 0]], "bias": [["-Infinity"]]}),
    )

    np.testing.assert_array_equal(problem.q, [[1, np.nan]])
    np.testing.assert_array_equal(problem.k, [[-np.inf, 2]])
    np.testing.assert_array_equal(problem.v, [[np.inf, 0]])
    np.testing.assert_array_equal(problem.bias, [[-np.inf]])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*FIELDS, "memory", "past", "parameters", "x"]), inner, max_size=3)
        ),
        max_leaves=12,
    )
)
def test_json_never_breaks(document):
    with suppress(AttnError):  # anything else fails
        attncli.attend(read_as("json", json.dumps(document)))


@given(
    st.binary(max_size=40) | st.text(st.sampled_from('{}[]",:0123456789.eE-+ntfalsru '), max_size=40).map(str.encode)
)
def test_json_text_never_breaks(data):
    with suppress(AttnError):
        read_as("json", data)


# ── arrays ───────────────────────────────────────────────────────────────────────────────────────
def _npz(**arrays) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def test_npz_holds_what_json_holds():
    rest = json.dumps(
        {"tokens": ["a", "b", "c"], "variant": {"mask": "causal"}, "expected": {"scores": {"decimals": 3}}}
    )
    data = _npz(
        **{
            "embeddings": np.array(X),
            "parameters.w_q": np.eye(2),
            "mask": np.ones((3, 3), bool),
            "expected.scores.values": np.zeros((3, 3)),
            "attn": np.array(rest),
        }
    )

    problem = read_as("npz", data)

    assert problem.tokens == ("a", "b", "c")
    assert problem.variant == {"mask": "causal"}
    assert problem.expected["scores"]["decimals"] == 3
    np.testing.assert_array_equal(problem.parameters["w_q"], np.eye(2))
    assert problem.mask.dtype == bool


@pytest.mark.parametrize(
    ("dtype", "held", "computed"),
    [
        ("<f2", "float32", "float32"),
        ("<f4", "float32", "float32"),
        (">f4", "float32", "float32"),
        ("<f8", "float64", "float64"),
        ("<i8", "float64", "float64"),
        ("u1", "float64", "float64"),
    ],
)
def test_npy_keeps_its_width(dtype, held, computed):
    out = io.BytesIO()
    np.save(out, np.asfortranarray(np.arange(6).reshape(3, 2)).astype(dtype))

    problem = read_as("npy", out.getvalue())
    result = attncli.attend(problem)

    assert problem.embeddings.dtype == held
    assert result["context"].values.dtype == computed
    np.testing.assert_array_equal(problem.embeddings, [[0, 1], [2, 3], [4, 5]])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int32"])
def test_safetensors_widens_what_numpy_lacks(dtype, tmp_path):
    import torch
    from safetensors.torch import save_file

    save_file(
        {"embeddings": torch.tensor(X).to(getattr(torch, dtype)), "mask": torch.ones(3, 3, dtype=torch.bool)},
        tmp_path / "x.safetensors",
        metadata={"attn": '{"tokens": ["a", "b", "c"]}'},
    )

    problem = attncli.read(tmp_path / "x.safetensors")

    np.testing.assert_array_equal(problem.embeddings, np.array(X, np.int32) if dtype == "int32" else X)
    assert problem.embeddings.dtype == ("float64" if dtype in ("float64", "int32") else "float32")
    assert problem.tokens == ("a", "b", "c")


@given(
    st.binary(max_size=80),
    st.sampled_from(["npy", "npz", "safetensors"]),
    st.sampled_from([b"", b"\x93NUMPY\x01\x00v\x00", b"PK\x03\x04", b"\x10\0\0\0\0\0\0\0"]),
)
def test_binary_never_breaks(data, format, head):
    with pytest.raises(InputError):
        read_as(format, head + data)


# ── one field from another file ──────────────────────────────────────────────────────────────────
def test_with_takes_a_field_from_another_file(tmp_path):
    (tmp_path / "w.csv").write_text("1,0\n0,2\n")
    np.save(tmp_path / "b.npy", np.array([1.0, 2.0]))
    (tmp_path / "mask.json").write_text(json.dumps({"mask": [[True, False, True]]}))
    (tmp_path / "memory.csv").write_text("token,d0,d1\nle,1,2\nchat,3,4\n")
    (tmp_path / "x.json").write_text(json.dumps({"embeddings": X, "parameters": {"w_v": [[1], [1]]}}))

    problem = attncli.read(
        tmp_path / "x.json", replacing=[f"parameters.w_q={tmp_path}/w.csv", f"mask={tmp_path}/mask.json"]
    )
    crossed = attncli.read(tmp_path / "x.json", replacing=[f"memory={tmp_path}/memory.csv"])

    np.testing.assert_array_equal(problem.parameters["w_q"], [[1, 0], [0, 2]])
    np.testing.assert_array_equal(problem.parameters["w_v"], [[1], [1]])
    np.testing.assert_array_equal(problem.mask, [[True, False, True]])
    assert crossed.memory["tokens"] == ("le", "chat")
    np.testing.assert_array_equal(crossed.memory["embeddings"], [[1, 2], [3, 4]])


def test_every_format_has_a_reader():
    modules = {name: (reader.suffixes, reader.read.__module__) for name, reader in load_readers().items()}

    assert modules == FORMAT_MODULES
    assert set(READERS) == {
        "json",
        "ndjson",
        "ndjson-tokens",
        "csv",
        "tsv",
        "txt",
        "npz",
        "npy",
        "safetensors",
        "parquet",
        "arrow",
    }


def test_a_format_is_loaded_without_the_others():
    code = "import sys; from attncli.readers import find_reader; find_reader('x.npy'); print(*sorted(m for m in sys.modules if 'attncli.readers.' in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loaded = {name.removeprefix("attncli.readers.") for name in done.stdout.split()}
    assert loaded == {
        "base",
        "compression",
        "files",
        "json_line_readers",
        "npz",
        "parser_errors",
        "read",
        "source",
        "unpacked_size",
        "with_field",
    }


def test_the_python_door_takes_lists_arrays_and_tensors():
    import torch

    x = torch.tensor(X, dtype=torch.float64, requires_grad=True)
    from_lists = attncli.attend(attncli.Problem(embeddings=X))
    from_arrays = attncli.attend(attncli.Problem(embeddings=np.array(X)))
    from_tensors = attncli.attend(attncli.Problem(embeddings=x))

    np.testing.assert_array_equal(from_lists["context"].values, from_arrays["context"].values)
    assert isinstance(from_lists["context"].values, np.ndarray)
    assert isinstance(from_tensors["context"].values, torch.Tensor)
    from_tensors["context"].values.sum().backward()
    assert x.grad.abs().sum() > 0
    assert attncli.read(SAMPLES / "cat_sat.json").validated


@pytest.mark.parametrize("document", ["Infinity", "NaN", "-Infinity", " NaN "])
def test_a_bare_number_that_is_not_finite_is_no_problem(document):
    with pytest.raises(InputError) as caught:
        read_as("json", document)
    assert caught.value.code == "wrong-type"
    assert caught.value.message.startswith("a problem must be an object or a list, not ")


def test_records_of_numpy_become_a_matrix_by_the_command_that_is_named(attn, tmp_path):
    rows = [("a", 1.0, 2), ("b", 0.5, 1)]
    np.save(tmp_path / "x.npy", np.array(rows, dtype=[("token", "U5"), ("d0", "f8"), ("d1", "i4")]))

    refused = attn("compute", "x.npy")
    code = re.search(r'python -c "(.*)" FILE NEW.npz', refused.err)[1]
    subprocess.run([sys.executable, "-c", code, tmp_path / "x.npy", tmp_path / "x.npz"], check=True)

    done = attn("compute", "x.npz", "--only", "scores", "--json", "-q").json
    assert (done["tokens"], done["scores"]) == (["a", "b"], [[5.0, 2.5], [2.5, 1.25]])
