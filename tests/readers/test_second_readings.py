"""Text and JSON that may be read in another way than at first sight: asked about, with ways out that work."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import attncli
from attncli.errors import InputError
from attncli.readers import csv, find_reader, parse_problem

X = [[2.0409, -2.5557, 0.4181], [-0.5678, -0.4526, -0.2156]]
TOKENS = ("the", "to")
PAIRS = list(zip(TOKENS, X, strict=True))
needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")


def read(content, format_name="csv", **options):
    text = content if isinstance(content, str) else json.dumps(content)
    return parse_problem(text.encode(), "test", find_reader("test", format_name), **options)


def refuse(content, format_name="csv", **options) -> InputError:
    with pytest.raises(InputError) as raised:
        read(content, format_name, **options)
    return raised.value


def run(command: str, content) -> str:
    text = content if isinstance(content, str) else json.dumps(content)
    command = re.sub("< FILE|FILE", "", command.partition(" > NEW")[0]).replace("python", sys.executable, 1)
    return subprocess.run(command, shell=True, input=text, capture_output=True, text=True, check=True).stdout


# ── text ─────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("text", ["w0\t1\t \t1", "w 0\t1\t\t1\nw 1\t1\t2\t1\n", "a\t1 \t\t2\nb\t3 \t4\t5\n"])
def test_an_empty_cell_between_tabs_is_seen_where_there_are_blanks(text):
    error = refuse(text)

    assert (error.code, error.location.line) == ("empty-cell", 1)
    if text.startswith("w0"):
        assert "--separator space" in error.help
        assert read(text, separator="space").embeddings.tolist() == [[1, 1]]


@pytest.mark.parametrize(
    "text", ["the: 2.04, -2.55\nto: -0.57, 1\n", "the 2.04;1\nto 1.5;2\n", "w0\t1,5\nw1\t2,5\n", "w0 1,5\nw1 2,7\n"]
)
def test_tokens_that_end_in_numbers_are_asked_about(text):
    error = refuse(text)

    assert error.code in ("unclear-tokens", "two-readings")
    problem = read(text, token_column="0")
    assert problem.tokens[0] == text.replace("\n", ",").replace(";", ",").split(",")[0]


@pytest.mark.parametrize(
    "text", ["room 101,0.5,0.2\nroom 102,1.5,2\n", "layer 0,0.5\nlayer 1,1.5\n", "10:30,1,2\n11:30,3,4\n"]
)
def test_tokens_that_end_in_whole_numbers_are_tokens(text):
    assert read(text).tokens == tuple(line.split(",")[0] for line in text.splitlines())


def test_points_beside_commas_or_whole_numbers_may_be_of_thousands():
    mixed, whole = "a;2.040;0,5\nb;1;2\n", "a;2.040;418\nb;1.500;2\n"

    for text in (mixed, whole):
        error = refuse(text)
        assert (error.code, error.location.line, error.location.column) == ("two-readings", 1, 3)
        command = re.search(r"thousands: (sed .*)", error.help)[1]
        assert read(run(command, text)).embeddings[0, 0] == 2040
    yes = re.search(r"yes: (sed [^;]*)", refuse(mixed).help)[1]
    assert read(run(yes, mixed)).embeddings.tolist() == [[2.04, 0.5], [1, 2]]
    assert read(whole, columns="1,2").embeddings.tolist() == [[2.04, 418], [1.5, 2]]
    assert read("a;0.040;418\nb;1.500;2\n").embeddings[0, 0] == 0.04


def test_large_files_are_asked_about_as_small_ones(monkeypatch):
    monkeypatch.setattr(csv, "_POLARS_MIN_BYTES", 0)

    for text in ("a;2.040;418\nb;1.500;2\n", "the: 2.04,1\nto: 1.5,2\n", ",the,to\nd0,1,2\nd1,3,4\n"):
        assert refuse(text).code in ("two-readings", "unclear-tokens")


def test_rows_that_are_called_as_dimensions_may_be_columns():
    for text in (",the,to\nd0,1,2\nd1,3,4\nd2,5,6\n", "dim;the;to\n0;1;2\n1;3;4\n2;5;6\n"):
        error = refuse(text)
        assert error.code == "two-readings"
        command = re.search("yes: (python .*) < FILE", error.help)[1]
        assert read(run(command, text), header="yes", token_column="place:0").embeddings.tolist() == [
            [1, 3, 5],
            [2, 4, 6],
        ]
        assert read(text, token_column="0").embeddings.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert read("token,x,y\nw0,1,2\nw1,3,4\n").tokens == ("w0", "w1")


def test_two_columns_of_texts_are_asked_about_and_every_answer_works():
    text = "doc,token,d0,d1\na,the,1,2\na,cat,3,4\n"

    error = refuse(text)
    assert error.help == "choose one: --token-column doc --drop token or --token-column token --drop doc"
    assert read(text, token_column="token", drop="doc").tokens == ("the", "cat")
    assert read(text, token_column="token", columns="d0,d1").embeddings.tolist() == [[1, 2], [3, 4]]
    with pytest.raises(InputError, match="column 'doc' holds texts") as caught:
        read("token,doc,d0,d1\nthe,a,1,2\ncat,a,3,4\n", token_column="token")
    assert caught.value.help == "--drop doc leaves it out; --columns d0,d1 takes the numbers alone"
    assert "--token-column target --drop source" in refuse("source,target,weight\na,b,1\nb,c,2\n").help


def test_a_result_is_no_table_of_vectors(tmp_path, attn):
    (tmp_path / "x.json").write_text('{"tokens": ["the", "to"], "embeddings": [[1, 2], [3, 4]]}')
    attn("compute", tmp_path / "x.json", "--only", "scores,weights", "-o", tmp_path / "steps.csv")
    attn("compute", tmp_path / "x.json", "--only", "context", "-o", tmp_path / "context.csv")

    assert "--only context" in refuse((tmp_path / "steps.csv").read_text()).help
    assert attncli.read(tmp_path / "context.csv", header="yes").tokens == ("the", "to")


def test_two_columns_before_numbered_ones_are_below_a_header():
    text = ",index,0,1,2\n0,the,1,2,3\n1,cat,4,5,6\n"

    assert "--header yes" in refuse(text).help
    assert "--drop place:0 leaves them out" in refuse(text, header="yes").help
    problem = read(text, header="yes", drop="place:0")
    assert (problem.tokens, problem.embeddings.tolist()) == (("the", "cat"), [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("dtype", [float, np.float32])
def test_the_repr_of_an_array_is_read_by_the_way_out(dtype):
    text = repr(np.array(X, dtype)) + "\n"

    error = refuse(text)
    assert read(run(re.search("sed .*", error.help)[0] + " FILE", text)).embeddings.tolist() == X


@needs_jq
@pytest.mark.parametrize("orient", ["tokens", "columns"])
def test_an_object_of_objects_keeps_its_labels_by_the_way_out(orient):
    rows = {t: {str(j): x for j, x in enumerate(v)} for t, v in PAIRS}
    value = rows if orient == "tokens" else {str(j): {t: v[j] for t, v in PAIRS} for j in range(len(X[0]))}

    problem = read(run(re.search(f"{orient}: (jq .*? FILE)", refuse(value, "json").help)[1], value), "json")

    assert (problem.tokens, problem.embeddings.tolist()) == (TOKENS, X)


def test_a_numbering_below_a_header_is_asked_about():
    text = "step,alpha,beta\n0,0.5,1.5\n1,2.5,3.5\n2,4.5,5.5\n"

    assert "--drop step" in refuse(text).help
    assert read(text, drop="step").embeddings.shape == (3, 2)
    assert read(text.replace("step,alpha,beta", "d0,d1,d2")).embeddings.shape == (3, 3)


@pytest.mark.parametrize("cell", ["2 040", "1 234 567"])
def test_blanks_in_a_cell_may_stand_between_thousands(cell):
    assert refuse(f"the\t{cell}\n", "tsv").code == "two-readings"
    assert read(f"the\t[{cell}]\n", "tsv").embeddings.tolist() == [[float(part) for part in cell.split()]]
    assert "between thousands" in refuse(f"the\t{cell.replace(' ', chr(160))}\n", "tsv").help


def test_a_missing_vector_is_pointed_at():
    error = refuse("the\t[1,2]\nto\t[3,4]\nof\t\\N\n", "tsv")

    assert (error.location.line, error.help) == (3, "write the number; a missing one is never read as 0")


@pytest.mark.parametrize(
    ("cell", "hint"),
    [
        ("(2.5)", "parentheses are not a sign"),
        ("20%", "without its unit"),
        ("$2.5", "without its unit"),
        ("'2.5'", "double quotation marks"),
        ("#DIV/0!", "mend the formula"),
        ("NA", "never read as 0"),
        ("1:2.5", "LIBSVM"),
        ("2.5f", "without the letter"),
        ("0x1.8p+1", "in decimals"),
        ("(1+2j)", "x.real"),
        ("2'040.5", "between thousands"),
        ("\u22122.5", "sed 's/\u2212/-/g'"),
        ("\uff12.\uff15", "unicodedata"),
    ],
)
def test_a_slip_says_its_way_out(cell, hint):
    assert hint in refuse(f"a,1,{cell}\nb,2,3\n").help


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1,the,0.5\n2,to,1.5\n", "--token-column 1 makes it the tokens"),
        ("token,d0\nthe,1\n,\n", "sed 3d"),
        ("token,d0\nthe,1,\nto,2,\n", "sed -E 's/,"),
        ("-----\nthe | 1\n", "export it as CSV"),
        ("%%MatrixMarket matrix\n1 2\n", "mmread"),
        ("<table>\n<tr>1</tr>\n", "read_html"),
        ("a,'[1, 2]'\nb,'[3, 4]'\n", "double quotation marks"),
    ],
)
def test_text_that_is_no_table_says_its_way_out(text, hint):
    assert hint in refuse(text).help


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"embeddngs": [0.1, 0.2]}, "embeddings"),
        ({"positons": [0, 1]}, "positions"),
        ({"tokens ": [1, 2]}, "tokens"),
        ({"Q": [1, 2], "K": [3, 4], "V": [5, 6]}, "q, k and v"),
    ],
)
def test_keys_that_are_like_fields_are_fields_or_tokens(value, field):
    error = refuse(value, "json")

    assert (error.code, f"write {field}" in error.help) == ("two-readings", True)
    command = re.search("python -c .*", error.help)[0]
    problem = read(run(command, value), "json")
    assert (problem.tokens, problem.embeddings.tolist()) == (tuple(value), list(value.values()))


def test_a_field_that_is_misspelt_is_named_whatever_it_holds():
    assert read({"embeddngs": [1, 2], "cat": [3, 4]}, "json").tokens == ("embeddngs", "cat")
    for value in ({"embedings": [[1, 2]]}, {"embedings": {"a": [1, 2]}}, {"embeddngs": {"a": [1]}, "tokns": ["a"]}):
        assert refuse(value, "json").help == "did you mean 'embeddings'?"
    assert 'has "embeddings"' in refuse({"error": {"message": "no credit", "code": None}}, "json").help


NESTED = {
    "Elasticsearch": {
        "took": 1,
        "hits": {"hits": [{"_id": "1", "_source": {"text": t, "embedding": v}} for t, v in PAIRS]},
    },
    "Weaviate": {"data": {"Get": {"Word": [{"text": t, "_additional": {"vector": v}} for t, v in PAIRS]}}},
    "Pinecone": {"vectors": {t: {"id": t, "values": v} for t, v in PAIRS}, "namespace": ""},
}


@needs_jq
@pytest.mark.parametrize("name", NESTED)
def test_vectors_within_objects_are_taken_out_by_the_way_out(name):
    error = refuse(NESTED[name], "json")

    problem = read(run(re.search("jq .*", error.help)[0], NESTED[name]), "json")

    assert (problem.tokens, problem.embeddings.tolist()) == (TOKENS, X)


@needs_jq
def test_the_way_out_of_several_vectors_leads_into_an_answer():
    value = {"data": [{"index": i, "embeddings": [v, v]} for i, v in enumerate(X)]}

    command = refuse(value, "json").help.split(" takes")[0]

    assert read(run(command, value), "json").embeddings.tolist() == X


def test_vectors_that_are_texts_are_parsed_and_base64_is_decoded_by_the_way_out():
    texts = [{"token": t, "embedding": json.dumps(v)} for t, v in PAIRS]
    coded = [{"token": t, "embedding": base64.b64encode(np.float32(v).tobytes()).decode()} for t, v in PAIRS]

    assert read(texts, "json").embeddings.tolist() == X
    assert read("".join(json.dumps(item) + "\n" for item in texts), "ndjson-tokens").embeddings.tolist() == X
    assert refuse([{"token": "a", "embedding": "[1, x]"}], "json").location.path == "$[0].embedding"
    for value in (coded, {"object": "list", "data": coded}):
        error = refuse(value, "json")
        problem = read(run(re.search("python -c .*", error.help)[0], value), "json")
        assert (error.code, problem.tokens) == ("wrong-type", TOKENS)
        np.testing.assert_array_equal(problem.embeddings, np.float32(X).astype(float))


def test_a_token_an_object_is_read_and_lines_in_a_document_are_named():
    items = [{t: v} for t, v in PAIRS]
    text = "".join(json.dumps({"token": t, "embedding": v}) + "\n" for t, v in PAIRS)

    assert read(items, "json").tokens == TOKENS
    assert refuse(text, "json").help == "these are JSON lines: --input-format ndjson-tokens"
    assert refuse('{"embeddings": [[1]]}\n{"embeddings": [[2]]}\n', "json").help.endswith("--input-format ndjson")


# ── Parquet ──────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "columns",
    [
        {"token": TOKENS, "embedding": [json.dumps(v) for v in X]},
        {"token": [t.encode() for t in TOKENS], "embedding": X},
    ],
)
def test_lists_in_texts_and_tokens_in_bytes_are_converted_by_the_way_out(tmp_path, columns):
    import polars

    polars.DataFrame(columns).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError) as raised:
        attncli.read(tmp_path / "a.parquet")
    code = re.search('python -c "(.*)" FILE', raised.value.help)[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["-c", str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")])
        exec(code, {})

    problem = attncli.read(tmp_path / "b.parquet")

    assert (problem.tokens, problem.embeddings.tolist()) == (TOKENS, X)


def test_text_of_old_macs_has_another_way_out():
    with pytest.raises(InputError) as raised:
        parse_problem("f\u00fcr;1\rto;2\r".encode("mac_roman"), "test", find_reader("test", "csv"))

    assert raised.value.help.endswith("iconv -f MACINTOSH -t UTF-8")
