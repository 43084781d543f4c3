"""Parquet and Feather: what other programs find in them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import attncli
from attncli.output_formats import RenderOptions, load_output_format
from attncli.types import Step
from attncli.writers.parquet import make_frames, table_schema, write_table
from tests.helpers import ROOT

COLUMNS = [  # of `result`: neither a source nor a line, no new_key and no rank
    "id", "step", "batch", "head", "kv_head", "query", "key", "dim", "value", "query_token", "key_token",
]  # fmt: skip


def result(dtype: str = "float64", keep=("scores", "weights", "mask", "k", "context")) -> attncli.Attention:
    """Two heads, three queries, four keys."""
    draw = np.random.default_rng(4)
    problem = attncli.Problem(
        q=draw.normal(size=(1, 2, 3, 5)),
        k=draw.normal(size=(1, 2, 4, 5)),
        v=draw.normal(size=(1, 2, 4, 6)),
        tokens=[["ä", "\x1b[31m", "b,\n"]],
        k_tokens=[["w", "x", "y", "w"]],
        id=2**70 + 1,
        meta={"a": [1.5]},
    )
    return attncli.attend(problem, attncli.Variant(mask="causal", align="bottom-right", dtype=dtype), keep=set(keep))


def write(name: str, attention: attncli.Attention, **options: bool) -> bytes:
    content = load_output_format(name).write(attention, RenderOptions(**options))
    assert isinstance(content, bytes)
    return content


def assert_rows_are(attention: attncli.Attention, rows: list[dict]) -> None:
    """Every number of the result stands in one row, where its indices say, beside its tokens."""
    assert [list(row) for row in rows[:1]] == [COLUMNS]
    assert len(rows) == sum(step.values.size for step in attention)
    for row in rows:
        step = attention[row["step"]]
        index = tuple(int(row[axis]) for axis in step.axes)
        assert float(row["value"]) == float(step.values[index])
        assert row["id"] == str(2**70 + 1)
        query, key = row["query"], row["key"]
        assert row["query_token"] == (attention.tokens[0][int(query)] if "query" in step.axes else None)
        assert row["key_token"] == (attention.k_tokens[0][int(key)] if "key" in step.axes else None)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_pandas_and_pyarrow_read_both(dtype):
    feather, parquet = pytest.importorskip("pyarrow.feather"), pytest.importorskip("pyarrow.parquet")
    pandas = pytest.importorskip("pandas")
    held = result(dtype)

    tables = [
        parquet.read_table(io.BytesIO(write("parquet", held))),
        feather.read_table(io.BytesIO(write("feather", held))),
    ]

    for table in tables:
        assert str(table.schema.field("value").type) == ("double" if dtype == "float64" else "float")
        assert_rows_are(held, table.to_pylist())
    frame = pandas.read_parquet(io.BytesIO(write("parquet", held)))
    assert frame["value"].tolist() == tables[0]["value"].to_pylist()
    assert pandas.read_feather(io.BytesIO(write("feather", held))).equals(frame)


def test_polars_reads_both():
    import polars

    held = result()

    for name, read in (("parquet", polars.read_parquet), ("feather", polars.read_ipc)):
        assert_rows_are(held, read(io.BytesIO(write(name, held))).to_dicts())


def test_duckdb_reads_parquet(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    held = result()
    (tmp_path / "r.parquet").write_bytes(write("parquet", held))

    found = duckdb.sql(f"select * from '{tmp_path / 'r.parquet'}'")

    assert found.columns == COLUMNS
    assert_rows_are(held, [dict(zip(COLUMNS, row, strict=True)) for row in found.fetchall()])


def test_parquet_carries_the_record_without_the_steps():
    import polars

    held = result(keep=("weights",))
    record = json.loads(load_output_format("json").write(held, RenderOptions()))
    del record["weights"]

    metadata = polars.read_parquet_metadata(io.BytesIO(write("parquet", held)))

    assert json.loads(metadata["attn"]) == record


@pytest.mark.parametrize("name", ["context.parquet", "context.feather", "k.parquet"])
def test_the_vectors_of_one_step_go_in_again(attn, tmp_path, name):
    step = name.partition(".")[0]
    (tmp_path / "t.csv").write_text("the,1,0,1,0.25\ncat,0,1,1,2\nsat,2,1,0,1\n")

    attn("compute", "t.csv", "--only", step, "-o", name, "-q")

    held = attn("compute", "t.csv", "--only", step, "--json", "-q").json
    table = attncli.read(tmp_path / name)
    assert table.tokens == ("the", "cat", "sat")
    assert table.embeddings.tolist() == held[step]
    assert attn("check", "t.csv", "--figures", name, "--step", step, "-q").status == 0
    assert attn("compute", name, "--with", f"memory={name}", "-q").status == 0


def test_columns_are_those_of_the_step_alone():
    import polars

    problem = attncli.Problem(embeddings=[[1.0, 0.0], [0.0, 1.0]], tokens=["a", "a"])
    weights, context = (attncli.attend(problem, keep={step}) for step in ("weights", "context"))

    for name, read in (("parquet", polars.read_parquet), ("feather", polars.read_ipc)):
        found = [
            read(io.BytesIO(write(name, weights))).columns,
            read(io.BytesIO(write(name, context))).columns,
            read(io.BytesIO(write(name, context, tidy=True))).columns,
        ]
        assert found == [
            ["step", "query", "key", "value", "query_token", "key_token"],
            ["token", "d0", "d1"],
            ["step", "query", "dim", "value", "query_token"],
        ]


@pytest.mark.parametrize(
    "name", ["steps.parquet", "steps.arrow", "steps.csv", "frame.csv", "frame.json", "frame.jsonl"]
)
def test_tidy_rows_are_figures_and_no_input(attn, tmp_path, name):
    """Those of attn, and those that a data frame of them writes, with the source in front."""
    import polars

    (tmp_path / "t.csv").write_text("the,1,0,1,0.25\ncat,0,1,1,2\nsat,2,1,0,1\n")
    if name.startswith("steps"):
        attn("compute", "t.csv", "-o", name, "-q")
    else:
        attn("compute", "t.csv", "-o", "t.parquet", "-q")
        frame = polars.read_parquet(tmp_path / "t.parquet")
        {"csv": frame.write_csv, "json": frame.write_json, "jsonl": frame.write_ndjson}[name.partition(".")[2]](
            tmp_path / name
        )

    refused = attn("compute", name)
    drawn = attn("plot", name, "-o", "x.svg")

    for done in (refused, drawn):
        assert "error[not-a-problem]: these are the steps of a result of attn, and no vectors of tokens" in done.err
        assert done.status == 3
    if not name.endswith(("json", "jsonl")):
        assert attn("check", "t.csv", "--figures", name, "-q").status == 0


def test_rows_of_several_inputs_are_no_figures_of_one(attn, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("the,1,0\ncat,0,1\n")
    attn("batch", "a.csv", "b.csv", "-o", "all.parquet", "--only", "weights", "-q")

    done = attn("check", "a.csv", "--figures", "all.parquet")

    assert (done.status, "the rows are of several inputs: source is 'a.csv' and 'b.csv'" in done.err) == (3, True)


@pytest.mark.slow
def test_the_same_rows_are_the_same_bytes_however_many_threads_write_them():
    """A quarter of a million rows, in several groups."""
    done = subprocess.run(
        [sys.executable, "-c", "from tests.writers.test_parquet import hashes; print(*hashes())"],
        capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"},
    )  # fmt: skip

    assert done.stdout.split() == hashes()


def hashes() -> list[str]:
    scores = np.random.default_rng(5).normal(size=(500, 500))
    labels = tuple(map(str, range(500)))
    held = attncli.Attention({}, labels, labels, (Step("scores", "q·k", ("query", "key"), scores),))
    return [hashlib.sha256(write(name, held)).hexdigest() for name in ("parquet", "feather")]


@pytest.mark.parametrize("name", ["parquet", "feather"])
def test_a_table_of_no_rows_has_its_columns(name):
    import polars

    file = io.BytesIO()
    write_table(name, file, iter([]), {}, table_schema(COLUMNS, is_double=True))

    frame = (polars.read_parquet if name == "parquet" else polars.read_ipc)(io.BytesIO(file.getvalue()))
    assert (frame.columns, len(frame)) == (COLUMNS, 0)


@pytest.mark.parametrize("name", ["parquet", "feather"])
def test_a_full_disk_is_an_error_of_the_system(name):
    with Path("/dev/full").open("wb") as full, pytest.raises(OSError, match="No space left on device") as failed:
        write_table(name, full, make_frames(result(), is_double=True), {}, table_schema(is_double=True))

    assert failed.value.errno == 28


def test_a_name_that_is_no_unicode_is_replaced_in_what_must_be_text():
    import dataclasses

    named = dataclasses.replace(result(), source="caf\udce9.csv", line=3)

    for name in ("json", "parquet", "feather", "npz", "csv", "safetensors"):
        load_output_format(name).write(named, RenderOptions())
    assert json.loads(load_output_format("json").write(named, RenderOptions()))["source"] == "caf\ufffd.csv"
