"""Every output format: what it holds, and that results written read back equal."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

import attncli
from attncli.output_formats import FORMAT_MODULES, OUTPUT_FORMATS, RenderOptions, load_output_formats
from attncli.readers.results import read_result
from attncli.select import select_indices
from attncli.views.cell_formats import choose_number_format
from attncli.writers.tidy import tidy_blocks
from tests.helpers import ROOT, SAMPLES

HOSTILE = (
    "[red]x[/red]",
    "\x1b[31mred\x1b[0m",
    "a|b*_`<b>",
    "x\ny\t",
    "\u202eabc",
    "$\\alpha_1 & %#{}~^",
    ":heart:",
    "the",
    "the",
    "",
    "日本語",
    "e\u0301",
)


def result(**more) -> attncli.Attention:
    problem = attncli.read(SAMPLES / "journey_causal_batch.json")
    return attncli.attend(problem, attncli.Variant(**{**problem.variant, "heads": 2, **more}), top=2)


def hostile() -> attncli.Attention:
    n = len(HOSTILE)
    x = np.random.default_rng(0).normal(size=(n, 3))
    return attncli.attend(attncli.Problem(tokens=HOSTILE, embeddings=x), attncli.Variant(mask="causal"), keep="shown")


def write(name: str, attention: attncli.Attention, **look) -> str:
    return "".join(load_output_formats()[name].write(attention, RenderOptions(**look)))


def test_there_are_these_formats():
    assert set(load_output_formats()) == {
        "table",
        "plain",
        "json",
        "ndjson",
        "csv",
        "tsv",
        "markdown",
        "latex",
        "npz",
        "safetensors",
        "parquet",
        "feather",
        "png",
        "svg",
        "pdf",
        "html",
    }


# ── data ─────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("suffix", [".json", ".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", ["batch of heads", "hostile"])
def test_a_result_reads_back_equal(tmp_path, suffix, dtype, case):
    written = result(dtype=dtype, dropout="dropout:p=0.5,seed=3") if case == "batch of heads" else hostile()
    [format] = [f for f in load_output_formats().values() if suffix in f.suffixes]
    content = format.write(written, RenderOptions())
    content = b"".join(content) if isinstance(content, list) else content
    (tmp_path / f"r{suffix}").write_bytes(content if isinstance(content, bytes) else content.encode())

    read = read_result(tmp_path / f"r{suffix}")

    assert [s.name for s in read] == [s.name for s in written]
    for one, other in zip(read, written, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        assert (one.values.dtype, one.axes, one.formula) == (other.values.dtype, other.axes, other.formula)
    assert (read.variant, read.tokens, read.k_tokens, read.warnings, read.about) == (
        written.variant,
        written.tokens,
        written.k_tokens,
        written.warnings,
        written.about,
    )
    assert {k: v.tolist() for k, v in read.parameters.items()} == {k: v.tolist() for k, v in written.parameters.items()}


def test_json_numbers_are_the_shortest_of_their_dtype():
    q = [[0.1, 1 / 3]]
    for dtype, expected in (
        ("float64", [0.1, 0.3333333333333333]),
        ("float32", [0.1, 0.33333334]),
        ("float16", [0.1, 0.3333]),
        ("bfloat16", [0.1, 0.334]),
    ):
        held = attncli.attend(attncli.Problem(q=q, k=q), attncli.Variant(dtype=dtype), keep={"q"})
        assert json.loads(write("json", held))["q"] == [expected], dtype


def test_json_spells_what_is_not_finite():
    held = attncli.attend(
        attncli.Problem(q=[[1.0]], k=[["NaN"], ["Infinity"], [2.0]]),
        attncli.Variant(mask="causal", align="top-left"),
        keep={"k", "masked_scores"},
    )

    document = json.loads(write("json", held), parse_constant=lambda c: pytest.fail(f"bare {c}"))

    assert document["k"] == [["NaN"], ["Infinity"], [2.0]]
    assert document["masked_scores"] == [["NaN", "-Infinity", "-Infinity"]]


def test_json_on_a_terminal_is_the_same_document():
    held = hostile()

    assert json.loads(write("json", held, width=80)) == json.loads(write("json", held))
    assert write("json", held).count("\n") == 1
    assert write("ndjson", held) == write("json", held)


def test_csv_of_one_matrix_is_a_matrix():
    held = attncli.attend(attncli.read(SAMPLES / "cat_sat.json"), keep={"weights"})

    rows = list(csv.reader(io.StringIO(write("csv", held))))

    assert rows[0] == ["token", "the", "cat", "sat"]
    assert [row[0] for row in rows[1:]] == ["the", "cat", "sat"]
    np.testing.assert_array_equal([[float(x) for x in row[1:]] for row in rows[1:]], held["weights"].values)


def test_csv_of_a_context_can_be_read_as_embeddings(tmp_path):
    held = attncli.attend(attncli.read(SAMPLES / "cat_sat.json"), keep={"context"})
    (tmp_path / "c.csv").write_text(write("csv", held))

    again = attncli.read(tmp_path / "c.csv")

    assert again.tokens == ("the", "cat", "sat")
    np.testing.assert_array_equal(again.embeddings, held["context"].values)


@pytest.mark.parametrize(("name", "separator"), [("csv", ","), ("tsv", "\t")])
def test_csv_of_more_is_tidy(name, separator):
    held = result()

    rows = list(csv.DictReader(io.StringIO(write(name, held)), delimiter=separator))

    axes = ["batch", "head", "kv_head", "query", "key", "dim", "rank", "in_dim", "out_dim"]
    assert list(rows[0]) == ["step", *axes, "value", "query_token", "key_token"]
    assert len(rows) == sum(step.values.size for step in held)
    weights = [r for r in rows if r["step"] == "weights"]
    for r in weights:
        assert (
            float(r["value"]) == held["weights"].values[int(r["batch"]), int(r["head"]), int(r["query"]), int(r["key"])]
        )
    assert {r["value"] for r in rows if r["step"] == "mask"} == {"true", "false"}
    scores = attncli.attend(attncli.read(SAMPLES / "cat_sat.json"), keep={"scores", "weights"})
    columns = ["step", "batch", "head", "query", "key", "value", "query_token", "key_token"]
    assert write(name, scores).splitlines()[0].split(separator) == columns


def test_tidy_rows_say_the_tokens_of_their_query_and_key():
    problem = attncli.Problem(
        q=[[[1.0], [2.0]], [[3.0], [4.0]]],
        k=[[[1.0], [0.0], [2.0]], [[0.5], [1.0], [1.5]]],
        tokens=[["a", "b"], ["c", "d"]],
        k_tokens=[["u", "v", "w"], ["x", "y", "z"]],
    )
    held = select_indices(attncli.attend(problem, attncli.Variant(heads=1), keep={"scores", "k"}), {"query": (1,)})

    rows = [tuple(r.values()) for r in csv.DictReader(io.StringIO(write("csv", held)))]

    k, scores = ([(r[2], r[-3], r[-2], r[-1]) for r in rows if r[0] == step] for step in ("k", "scores"))
    assert len(k) == len(scores) == 6
    assert [(value, token) for _, value, _, token in k] == [
        ("1.0", "u"), ("0.0", "v"), ("2.0", "w"), ("0.5", "x"), ("1.0", "y"), ("1.5", "z"),
    ]  # fmt: skip
    assert [(value, query, key) for _, value, query, key in scores] == [
        ("2.0", "b", "u"), ("0.0", "b", "v"), ("4.0", "b", "w"), ("2.0", "d", "x"), ("4.0", "d", "y"), ("6.0", "d", "z"),
    ]  # fmt: skip


def test_one_step_is_tidy_where_that_is_asked_for():
    held = attncli.attend(attncli.read(SAMPLES / "cat_sat.json"), keep={"weights"})

    rows = list(csv.DictReader(io.StringIO(write("csv", held, tidy=True))))

    assert [(r["query_token"], r["key_token"]) for r in rows[:4]] == [
        ("the", "the"), ("the", "cat"), ("the", "sat"), ("cat", "the"),
    ]  # fmt: skip
    assert [float(r["value"]) for r in rows] == held["weights"].values.ravel().tolist()


def test_tokens_take_no_effect_in_tidy_rows_on_a_terminal():
    assert "\x1b" not in write("csv", hostile(), is_terminal=True)


@pytest.mark.parametrize("n", [1, 7, 9, 1000])
def test_blocks_of_rows_together_are_all_of_them(n):
    """Three queries, four keys and five dims, in blocks of so many rows."""
    draw = np.random.default_rng(2)
    problem = attncli.Problem(q=draw.normal(size=(3, 2)), k=draw.normal(size=(4, 2)), v=draw.normal(size=(4, 5)))
    held = attncli.attend(problem, keep={"scores", "context"})

    blocks = list(tidy_blocks(held, max_rows=n))

    assert all(len(block) <= n for block in blocks)
    for step in held:
        mine = [block for block in blocks if block.step == step.name]
        found = {axis: np.concatenate([block.indices[axis] for block in mine]) for axis in step.axes}
        values = np.concatenate([block.values for block in mine])
        np.testing.assert_array_equal(step.values[tuple(found.values())], values)
        assert len(values) == step.values.size


# ── who it is of ─────────────────────────────────────────────────────────────────────────────────
IDENTITY = {"id": 2**70 + 1, "meta": {"a": [1, {"b": None}], "\u202e": "é"}}


@pytest.mark.parametrize("suffix", [".json", ".npz", ".safetensors"])
def test_id_and_meta_read_back_as_they_were(tmp_path, suffix):
    held = attncli.attend(attncli.Problem(embeddings=[[1.0, 2.0]], **IDENTITY), keep={"scores"})
    [format] = [f for f in load_output_formats().values() if suffix in f.suffixes]
    content = format.write(held, RenderOptions())
    content = b"".join(content) if isinstance(content, list) else content
    (tmp_path / f"r{suffix}").write_bytes(content if isinstance(content, bytes) else content.encode())

    read = read_result(tmp_path / f"r{suffix}")

    assert {"id": read.id, "meta": read.meta} == IDENTITY
    assert (read.source, read.line) == ("", None)


def test_a_bare_record_has_no_more_than_differs():
    held = attncli.attend(attncli.Problem(embeddings=[[1.0, 2.0]], about="x", **IDENTITY), keep={"scores"})
    whole, bare = (json.loads(write("json", held, bare=bare)) for bare in (False, True))

    assert list(bare) == ["id", "meta", "about", "tokens", "k_tokens", "scores", "warnings"]
    assert bare == {name: whole[name] for name in bare}
    assert set(whole) - set(bare) == {
        "schema", "attn_version", "variant", "layout", "dtype", "axes", "shapes", "formulas",
    }  # fmt: skip


# ── what people read ─────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["table", "plain", "markdown", "latex"])
@pytest.mark.parametrize(
    "look", [{}, {"width": 80}, {"color": True, "heat": "weights"}, {"heat": "weights", "has_unicode": False}]
)
def test_token_text_has_no_effect(name, look):
    text = write(name, hostile(), **look)

    plain = text
    if look.get("color"):
        import re

        plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
        assert "\x1b[31mred" not in text
    assert "\x1b" not in plain
    assert "\u202e" not in plain
    assert "\t" not in plain
    if name in ("table", "plain"):
        assert "[red]x[/red]" in plain
        assert ("x↵y⇥" if look.get("has_unicode", True) or name == "plain" else r"x\ny\t") in plain
        assert ":heart:" in plain
    if name == "markdown":
        assert r"a\|b\*\_\`&lt;b&gt;" in plain
        assert "<b>" not in plain
    if name == "latex":
        assert r"\$\textbackslash{}alpha\_1 \& \%\#\{\}\textasciitilde{}\textasciicircum{}" in plain


@pytest.mark.parametrize("name", ["table", "plain", "markdown", "latex"])
def test_every_number_is_there_in_a_pipe(name):
    x = np.random.default_rng(1).normal(size=(30, 40))
    held = attncli.attend(
        attncli.Problem(embeddings=x, tokens=[f"a-token-with-a-long-name-{i}" for i in range(30)]),
        keep={"weights", "context"},
    )

    text = write(name, held)

    for step in held:
        for value in step.values.ravel():
            assert f"{value:.4f}".replace("-0.0000", "0.0000") in text
    assert "…" not in text
    assert "a-token-with-a-long-name-29" in text


@pytest.mark.parametrize("width", [40, 80, 120, 300])
def test_a_terminal_is_never_overrun(width):
    from rich.cells import cell_len

    x = np.random.default_rng(1).normal(size=(50, 61))
    held = attncli.attend(
        attncli.Problem(embeddings=x, tokens=[f"日本-with-a-long-name-{i}" for i in range(50)]),
        keep={"weights", "context", "entropy"},
    )

    for heat in ("weights", "off"):
        text = write("table", held, width=width, heat=heat)
        assert max(cell_len(line) for line in text.splitlines()) <= width
        assert ("columns (" in text) == (width < 1000)
        assert "50 rows (40 shown)" in " ".join(text.split())


def test_a_table_word_for_word():
    held = attncli.attend(attncli.read(SAMPLES / "hello_shiny_sun.json"), keep={"weights", "context"})

    assert write("table", held) == (
        "simplified · 3 tokens × 3 dims · q = k = v = x · score dot · no scale · no mask · float64\n"
        "rows = query (looks), columns = key (is looked at)\n"
        "\n"
        "weights   e^(s − max s) / Σ e^(s − max s)   (every row sums to 1)\n"
        "query ╲ key   0 Hello   1 shiny    2 sun        Σ\n"
        "─────────────────────────────────────────────────\n"
        "0 Hello        0.2709    0.3763   0.3528   1.0000\n"
        "1 shiny        0.2291    0.4063   0.3646   1.0000\n"
        "2 sun          0.2283    0.3874   0.3843   1.0000\n"
        "\n"
        "context   weights · v\n"
        "query ╲ dim        0        1        2\n"
        "──────────────────────────────────────\n"
        "0 Hello       0.3939   0.3780   0.8432\n"
        "1 shiny       0.3990   0.3854   0.8610\n"
        "2 sun         0.3944   0.3895   0.8604\n"
    )


def test_heat_without_colour_is_a_glyph():
    held = attncli.attend(attncli.read(SAMPLES / "cat_sat.json"), keep={"weights"})

    text = write("table", held, heat="weights")

    assert "0 the         0.3837▒   0.2327░   0.3837▒" in text
    assert "\nshaded 0 ░▒▓█ 1.00 for all rows\n" in text


@pytest.mark.parametrize(
    ("values", "precision", "expected"),
    [
        ([1.0, -0.00004, 0.12345678], 4, ["1.0000", "0.0000", "0.1235"]),
        ([1e-9, -2e-9], 4, ["1.0000e-09", "-2.0000e-09"]),
        ([1e10, 3.0], 2, ["1.00e+10", "3.00e+00"]),
        ([np.nan, np.inf, -np.inf, 1.5], 1, ["NaN", "∞", "−∞", "1.5"]),
        ([0.5, 2.5], 0, ["0", "2"]),
    ],
)
def test_how_numbers_are_written(values, precision, expected):
    numbers = np.array(values)

    assert choose_number_format(numbers, precision).format(numbers) == expected


def test_a_format_is_found_by_suffix():
    load_output_formats()

    assert {s: f.name for f in OUTPUT_FORMATS.values() for s in f.suffixes} == {
        ".txt": "table", ".json": "json", ".ndjson": "ndjson", ".jsonl": "ndjson", ".csv": "csv", ".tsv": "tsv", ".md": "markdown", ".tex": "latex", ".npz": "npz", ".safetensors": "safetensors", ".parquet": "parquet", ".feather": "feather", ".arrow": "feather", ".png": "png", ".svg": "svg", ".pdf": "pdf", ".html": "html", ".htm": "html",
    }  # fmt: skip


def test_the_table_of_formats_says_what_the_formats_declare():
    declared = {name: (format.suffixes, format.write.__module__) for name, format in load_output_formats().items()}

    assert declared == FORMAT_MODULES


def test_every_module_that_registers_a_format_is_in_the_table():
    holders = [path for path in (ROOT / "attncli").rglob("*.py") if "@output_format(" in path.read_text()]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in holders]

    assert sorted(modules) == sorted({module for _, module in FORMAT_MODULES.values()})
