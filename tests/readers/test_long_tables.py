"""A table with one number a row is asked about in every format, and both answers work."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import polars
import pytest

import attncli
from attncli.errors import InputError
from attncli.readers import csv

X = [[1.5, 2], [3, 4], [5, 6]]
TOKENS = ("sat", "cat", "mat")  # not in the order of the alphabet
COLUMNS = {"token": [t for t in TOKENS for _ in range(2)], "dim": [0, 1] * 3, "value": [x for row in X for x in row]}
RECORDS = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]


def columnar(write: str) -> bytes:
    out = io.BytesIO()
    getattr(polars.DataFrame(COLUMNS), write)(out)
    return out.getvalue()


def text(separator: str) -> bytes:
    rows = [COLUMNS, *zip(*COLUMNS.values(), strict=True)]
    return "".join(separator.join(map(str, row)) + "\n" for row in rows).encode()


MADE = {
    "a.csv": lambda: text(","),
    "semicolons.csv": lambda: text(";").replace(b".", b","),
    "a.tsv": lambda: text("\t"),
    "blanks.txt": lambda: text(" "),
    "a.parquet": lambda: columnar("write_parquet"),
    "a.arrow": lambda: columnar("write_ipc"),
    "records.json": lambda: json.dumps(RECORDS).encode(),
    "lists.json": lambda: json.dumps(COLUMNS).encode(),
    "a.jsonl": lambda: "".join(json.dumps(record) + "\n" for record in RECORDS).encode(),
}


def refuse(path: Path, **options) -> InputError:
    with pytest.raises(InputError) as caught:
        attncli.read(path, **options)
    assert caught.value.code == "two-readings"
    return caught.value


@pytest.mark.parametrize("name", MADE)
def test_both_answers_work(tmp_path, name):
    (tmp_path / name).write_bytes(MADE[name]())

    error = refuse(tmp_path / name)
    _, _, code, *files = shlex.split(re.search("(python -c .*); two", error.help)[1])
    with contextlib.chdir(tmp_path), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["-c", *files])
        exec(code, {})
    problem = attncli.read(tmp_path / files[-1])

    assert (problem.tokens, problem.embeddings.tolist()) == (TOKENS, X)
    assert error.help.endswith("two dimensions: --columns dim,value")
    two = attncli.read(tmp_path / name, columns="dim,value")
    assert two.embeddings.tolist() == [[d, x] for d, x in zip(COLUMNS["dim"], COLUMNS["value"], strict=True)]


@pytest.mark.parametrize(
    "header",
    ["token,variable,value", "word,feature,weight", "position,dimension,val", ",component,value", "Token,Column,Value"],
)
def test_it_is_asked_by_other_names_too(tmp_path, header, monkeypatch):
    (tmp_path / "a.csv").write_text(f"{header}\n5,0,1.5\n5,1,2\n6,0,3\n6,1,4\n")

    assert "does each row hold one number" in refuse(tmp_path / "a.csv", header="yes").message
    monkeypatch.setattr(csv, "_POLARS_MIN_BYTES", 0)
    assert "does each row hold one number" in refuse(tmp_path / "a.csv", token_column="0").message


def test_other_names_are_not_asked_about(tmp_path):
    (tmp_path / "a.csv").write_text("token,height,value\na,1,2\nb,3,4\n")

    np.testing.assert_array_equal(attncli.read(tmp_path / "a.csv").embeddings, [[1, 2], [3, 4]])


@pytest.mark.parametrize("header", ["token,,0", ",,0", "token,level_1,0"])
def test_what_stack_leaves_without_names_is_one_number_a_row(tmp_path, header):
    """`df.stack().to_csv()`: the level of the columns has no name, and the numbers are called 0."""
    path = tmp_path / "a.csv"
    rows = zip(COLUMNS["token"], COLUMNS["dim"], COLUMNS["value"], strict=True)
    path.write_text(f"{header}\n" + "".join(f"{token},d{dim},{value}\n" for token, dim, value in rows))

    error = refuse(path)
    _, _, code, *files = shlex.split(re.search("(python -c .*); two", error.help)[1])
    with contextlib.chdir(tmp_path), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["-c", *files])
        exec(code, {})
    problem = attncli.read(tmp_path / files[-1])

    assert (problem.tokens, problem.embeddings.tolist()) == (TOKENS, X)
