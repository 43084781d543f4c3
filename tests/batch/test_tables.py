"""`attn batch -o all.parquet`: all results in one table."""

from __future__ import annotations

import json

import polars
import pytest

from tests.batch.helpers import GOOD, names, peak_kibibytes, write

LINE = '{"id": 7, "embeddings": [[1, 0.5]], "tokens": ["c"]}'
OWN = '{"embeddings": [[1, 0], [0, 1]], "variant": {"mask": "causal"}}'


@pytest.fixture
def inputs(tmp_path):
    write(
        tmp_path,
        {
            "in/a.json": GOOD,
            "in/b.csv": "x,1,2\ny,1\n",
            "in/c.ndjson": f'\n{LINE}\n{{"id": "z", "embeddings": 5}}\n{OWN}\n',
            "in/deep/d.csv": "u,1,2\nv,3,5\nw,0,1\n",
        },
    )


def read(path) -> polars.DataFrame:
    return (polars.read_parquet if path.suffix == ".parquet" else polars.read_ipc)(path)


@pytest.mark.parametrize("name", ["all.parquet", "all.feather", "all.arrow"])
def test_every_row_says_which_input_it_is_of(attn, inputs, tmp_path, name):
    done = attn("batch", "in", "-o", name, "--only", "weights")

    assert (done.status, done.out) == (1, "")
    assert "failed[ragged-row]: in/b.csv:2:4: " in done.err
    assert "failed[lines-failed]: in/c.ndjson: 1 of 3 lines failed: 1 " in done.err
    assert "the table holds the others; correct them, and run the command again with --force" in done.err
    rows = read(tmp_path / name)
    counts = [tuple(row) for row in rows.group_by("source", "line", "id", maintain_order=True).len().rows()]
    assert counts == [
        ("in/a.json", None, None, 4),
        ("in/c.ndjson", 2, "7", 1),
        ("in/c.ndjson", 4, None, 4),
        ("in/deep/d.csv", None, None, 9),
    ]
    for source in ("in/a.json", "in/deep/d.csv"):
        weights = attn("compute", source, "--json", "--only", "weights", "-q").json["weights"]
        assert rows.filter(source=source)["value"].to_list() == [x for row in weights for x in row]
    assert rows.filter(source="in/deep/d.csv")["key_token"].to_list() == ["u", "v", "w"] * 3


def test_parquet_says_of_which_variants_the_results_are(attn, inputs, tmp_path):
    attn("batch", "in", "-o", "all.parquet", "--only", "weights", "-q")

    record = json.loads(polars.read_parquet_metadata(tmp_path / "all.parquet")["attn"])

    assert record["schema"] == "attn.table/1"
    assert [(v["variant"]["mask"], v["results"]) for v in record["variants"]] == [
        ("full", ["in/a.json", "in/c.ndjson:2", "in/deep/d.csv"]),
        ("causal", ["in/c.ndjson:4"]),
    ]


@pytest.mark.slow
def test_processes_make_the_same_bytes(attn, inputs, tmp_path):
    attn("batch", "in", "-o", "one.parquet", "-q", "--only", "weights")
    attn("batch", "in", "-o", "two.parquet", "-q", "--only", "weights", "-j", "2")

    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_a_table_that_exists_is_replaced_by_force_alone(attn, inputs, tmp_path):
    (tmp_path / "all.parquet").write_text("mine")

    refused = attn("batch", "in/a.json", "-o", "all.parquet")

    assert (refused.status, refused.err) == (
        2,
        "error[output-exists]: all.parquet exists\n  = help: --force replaces it\n",
    )
    assert (tmp_path / "all.parquet").read_text() == "mine"
    assert attn("batch", "in/a.json", "-o", "all.parquet", "--force").status == 0
    assert len(read(tmp_path / "all.parquet").filter(step="weights")) == 4


@pytest.mark.parametrize("words", [["in/b.csv"], ["in", "--fail-fast"]])
def test_a_batch_that_stops_or_has_no_result_leaves_no_table(attn, inputs, tmp_path, words):
    write(tmp_path, {"in/0.csv": "x,1\ny,\n"})
    before = names(tmp_path)

    done = attn("batch", *words, "-o", "all.parquet")

    assert (done.status, names(tmp_path)) == (1, before)
    assert "all.parquet was not written" in done.err


def test_a_table_in_a_folder_of_inputs_is_no_input(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD})
    first = attn("batch", "in", "-o", "in/all.parquet", "--only", "context")
    again = attn("batch", "in", "-o", "in/all.parquet", "--only", "context", "--force")

    assert [done.status for done in (first, again)] == [0, 0]
    assert set(read(tmp_path / "in/all.parquet")["source"]) == {"in/a.json"}
    named = attn("batch", "in/a.json", "in/all.parquet", "-o", "in/all.parquet", "--force")
    assert (named.status, "error[name-clash]: the table would replace the input in/all.parquet" in named.err) == (
        2,
        True,
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--retry-failed"], "one table keeps no list of what failed"),
        (["--dry-run"], "--dry-run needs a folder for the results"),
        (["--scheduler", "tcp://127.0.0.1:9"], "a folder that all of them see, not one table"),
        (["--format", "json"], "--format json contradicts the suffix of all.parquet, which stands for parquet"),
        (["--bare"], "--bare leaves out fields of JSON, but parquet is not JSON"),
    ],
)
def test_what_needs_a_folder_is_refused(attn, inputs, words, says):
    done = attn("batch", "in", "-o", "all.parquet", *words)

    assert (done.status, says in done.err) == (2, True)


def test_a_folder_may_have_the_suffix_and_hold_tables(attn, inputs, tmp_path):
    (tmp_path / "res.parquet").mkdir()
    attn("batch", "in/a.json", "-o", "res.parquet", "-q")
    attn("batch", "in/a.json", "in/deep", "-o", "tables", "--format", "parquet", "-q")

    assert names(tmp_path / "res.parquet") == ["a.json", "manifest.ndjson"]
    assert names(tmp_path / "tables") == ["a.parquet", "d.parquet", "manifest.ndjson"]
    rows = polars.read_parquet(tmp_path / "tables" / "*.parquet")
    assert rows["source"].unique(maintain_order=True).to_list() == ["in/a.json", "in/deep/d.csv"]


@pytest.mark.slow
def test_a_table_of_many_results_takes_no_more_memory_than_one_of_few(tmp_path):
    """Twenty and two results of 40 000 rows each."""
    used = []
    for count in (2, 20):
        problem = {"embeddings": [[float(i % 7), 1.0, float(i % count)] for i in range(200)]}
        write(tmp_path, {f"{count}/{i}.json": json.dumps(problem) for i in range(count)})
        table = tmp_path / f"{count}.parquet"
        used.append(peak_kibibytes("batch", tmp_path / str(count), "-o", table, "-q", "--only", "weights"))
        assert len(read(tmp_path / f"{count}.parquet")) == count * 40_000

    assert used[1] - used[0] < 60_000  # the rows of twenty results take twice as much
