"""JSON as data frames, vector stores and services write it: read with its labels, or refused with a way out that works."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zstandard

import attncli
from attncli.errors import InputError
from attncli.readers import find_reader, parse_problem

FILES = Path(__file__).parent / "files"
TOKENS = ("the", "to", "U.S.", "<unk>")
VECTORS = [[2.0409, -2.5557, 0.4181], [-0.5678, -0.4526, -0.2156], [-2.02, -0.2319, -0.8652], [3.323, 0.2258, -0.3526]]
PAIRS = list(zip(TOKENS, VECTORS, strict=True))
COLUMNS = {f"d{i}": [row[i] for row in VECTORS] for i in range(3)}


def read(value: object, format_name: str = "json", **options):
    text = value if isinstance(value, str) else json.dumps(value)
    return parse_problem(text.encode(), "test", find_reader("test", format_name), **options)


def lines(items) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


# ── pandas ───────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("orient", ["records", "split", "index", "columns", "table", "values"])
@pytest.mark.parametrize("kind", ["pandas", "pandas_labels", "pandas_lists"])
def test_every_orientation_of_pandas_is_read(kind, orient):
    options = {"columns": "3"} if (kind, orient) == ("pandas_lists", "values") else {}

    problem = attncli.read(FILES / f"{kind}_{orient}.json", **options)

    np.testing.assert_array_equal(problem.embeddings, VECTORS)
    has_lost_labels = kind == "pandas_labels" and orient in ("records", "values")
    assert problem.tokens == (None if has_lost_labels else TOKENS)


@pytest.mark.parametrize("name", ["pandas_lines.jsonl", "pandas_lists_lines.jsonl"])
def test_lines_of_pandas_are_a_token_each(name):
    problem = attncli.read(FILES / name)

    np.testing.assert_array_equal(problem.embeddings, VECTORS)
    assert problem.tokens == TOKENS


# ── what is read ─────────────────────────────────────────────────────────────────────────────────
DURATIONS = {"model": "nomic", "total_duration": 14, "load_duration": 1, "prompt_eval_count": 8}
OPENAI = {
    "object": "list",
    "data": [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(VECTORS)],
    "model": "m",
    "usage": {"prompt_tokens": 4},
}
READ = {
    "token and embedding": [{"token": t, "embedding": v} for t, v in PAIRS],
    "word and vector": [{"word": t, "vector": v} for t, v in PAIRS],
    "text and values": [{"text": t, "values": v} for t, v in PAIRS],
    "with an id": [{"id": i, "token": t, "embedding": v} for i, (t, v) in enumerate(PAIRS)],
    "with a text for an id": [{"id": f"x{i}", "text": t, "vector": v} for i, (t, v) in enumerate(PAIRS)],
    "with metadata": [{"text": t, "metadata": {"page": 1}, "embedding": v} for t, v in PAIRS],
    "columns of a record": [{"token": t, "d0": v[0], "d1": v[1], "d2": v[2]} for t, v in PAIRS],
    "rows": [[t, *v] for t, v in PAIRS],
    "pairs": [[t, v] for t, v in PAIRS],
    "an object of vectors": dict(PAIRS),
    "an object of vectors in embeddings": {"embeddings": dict(PAIRS), "variant": {"mask": "causal"}},
    "records in embeddings": {"embeddings": [{"token": t, "embedding": v} for t, v in PAIRS], "about": "x"},
    "columns": {"token": list(TOKENS), **COLUMNS},
    "columns with vectors": {"word": list(TOKENS), "vector": VECTORS},
    "Cohere": {"id": "a", "texts": list(TOKENS), "embeddings": VECTORS, "meta": {"api_version": {}}, "response_type": "embeddings_floats"},
    "Cohere, types": {"id": "a", "texts": list(TOKENS), "embeddings": {"float": VECTORS, "int8": [[1, 2, 3]] * 4}},
    "Chroma": {"ids": ["1", "2", "3", "4"], "embeddings": VECTORS, "documents": list(TOKENS), "metadatas": [None] * 4, "included": ["documents"]},
    "a list in an object": {"results": [{"text": t, "embedding": v} for t, v in PAIRS], "took": 3},
    "Qdrant, scroll": {"result": {"points": [{"id": i, "payload": {"text": t, "page": 3}, "vector": v} for i, (t, v) in enumerate(PAIRS)], "next_page_offset": None}, "status": "ok", "time": 0.1},
    "Qdrant, points": {"result": [{"id": i, "payload": {"word": t}, "vector": {"dense": v}} for i, (t, v) in enumerate(PAIRS)], "status": "ok"},
    "OpenAI": OPENAI,
    "OpenAI, mixed up": {**OPENAI, "data": [OPENAI["data"][i] for i in (2, 0, 3, 1)]},
    "Ollama": {**DURATIONS, "embeddings": VECTORS},
    "Gemini": {"embeddings": [{"values": v} for v in VECTORS]},
    "Vertex": {"predictions": [{"embeddings": {"values": v, "statistics": {"token_count": 1}}} for v in VECTORS]},
    "llama.cpp": [{"index": i, "embedding": v} for i, v in enumerate(VECTORS)],
    "feature extraction": VECTORS,
}  # fmt: skip
WITHOUT_LABELS = {"OpenAI", "OpenAI, mixed up", "Ollama", "Gemini", "Vertex", "llama.cpp", "feature extraction"}


@pytest.mark.parametrize("case", READ)
def test_tables_are_read_with_their_labels(case):
    problem = read(READ[case])

    np.testing.assert_array_equal(problem.embeddings, VECTORS)
    assert problem.tokens == (None if case in WITHOUT_LABELS else TOKENS)


@pytest.mark.parametrize(
    "value", [{"embedding": VECTORS[0]}, {"model": "m", "embedding": VECTORS[0]}, {"embedding": {"values": VECTORS[0]}}]
)
def test_an_answer_of_one_vector_is_one_token(value):
    np.testing.assert_array_equal(read(value).embeddings, VECTORS[:1])


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_a_token_that_is_spelled_as_a_number_is_a_token(word):
    for name in ("token", "Word"):
        assert read([{name: word, "embedding": [1, 2]}]).tokens == (word,)
    with pytest.raises(InputError, match="part of them"):
        read([{"d0": word, "embedding": [1, 2]}])


def test_a_batch_of_one_is_a_batch():
    assert read([VECTORS]).embeddings.shape == (1, 4, 3)


def test_what_is_left_out_is_said():
    assert read(READ["with an id"]).notes == (
        "test: 4 tokens × 3 dims, vectors from field 'embedding', token field 'token', left out: 'id'",
    )
    assert read(dict(PAIRS)).notes == ("test: 4 tokens × 3 dims, each key is a token",)


def test_a_problem_is_still_one():
    problem = read({"embeddings": VECTORS, "tokens": list(TOKENS), "variant": {"mask": "causal"}})

    assert (problem.tokens, problem.variant, problem.notes) == (TOKENS, {"mask": "causal"}, ())


# ── what is asked ────────────────────────────────────────────────────────────────────────────────
ASKED = {
    "another name": ([{"token": t, "embeding": v} for t, v in PAIRS], "missing-field", {"columns": "embeding"}, "--vector-field embeding"),
    "another number": ([{"token": t, "embedding": v, "x": 1} for t, v in PAIRS], "unclear-columns", {"columns": "embedding"}, "--vector-field embedding"),
    "two vectors": ([{"token": t, "embedding": v, "vector": v[::-1]} for t, v in PAIRS], "two-readings", {"columns": "embedding"}, "--vector-field embedding"),
    "two texts": ([{"text": t, "title": "x", "embedding": v} for t, v in PAIRS], "unclear-tokens", {"token_column": "text"}, "--token-field text"),
    "a count among columns": ([{"token": t, "d0": v[0], "d1": v[1], "d2": v[2], "freq": 7} for t, v in PAIRS], "unclear-columns", {"drop": "freq"}, "--drop freq"),
    "columns of numbers": (COLUMNS, "two-readings", {"columns": "d0,d1,d2"}, "--columns d0,d1,d2"),
}  # fmt: skip


@pytest.mark.parametrize("case", ASKED)
def test_what_is_unclear_is_asked_and_the_way_out_works(case):
    value, code, options, spelled = ASKED[case]

    with pytest.raises(InputError) as caught:
        read(value)

    assert caught.value.code == code
    assert spelled in caught.value.help
    np.testing.assert_array_equal(read(value, **options).embeddings, VECTORS)


def follow(command: str, text: str, folder: Path) -> str:
    """Run a command of a way out on a file, and return what it writes."""
    (folder / "FILE").write_text(text)
    command = command.replace("python -c", f"{sys.executable} -c")
    subprocess.run(command, shell=True, cwd=folder, check=True, timeout=60)
    return (folder / "NEW.json").read_text()


@pytest.mark.parametrize("value", [{"meta": [-1]}, {"id": [1, 2]}, {"id": [1], "meta": [2]}])
def test_names_that_a_problem_shares_with_answers_are_no_tokens(tmp_path, value):
    (tmp_path / "a.json").write_text(json.dumps(value))

    with pytest.raises(InputError) as raised:
        attncli.read(tmp_path / "a.json")

    assert raised.value.code == "wrong-type"


def test_an_object_of_columns_can_be_tokens(tmp_path):
    words = {f"w{i}": v for i, v in enumerate(VECTORS)}
    with pytest.raises(InputError) as caught:
        read(words)

    followed = read(follow(re.search("tokens: (.*)", caught.value.help)[1], json.dumps(words), tmp_path))

    np.testing.assert_array_equal(followed.embeddings, VECTORS)
    assert followed.tokens == ("w0", "w1", "w2", "w3")


@pytest.mark.skipif(shutil.which("jq") is None, reason="the way out uses jq")
def test_an_object_of_objects_without_names_can_be_either(tmp_path):
    frame = {str(i): {str(j): x for j, x in enumerate(row)} for i, row in enumerate(VECTORS)}
    with pytest.raises(InputError) as caught:
        read(frame)
    tokens, columns = re.search("tokens: (.*); columns: (.*)", caught.value.help).groups()

    assert caught.value.code == "two-readings"
    np.testing.assert_array_equal(read(follow(tokens, json.dumps(frame), tmp_path)).embeddings, VECTORS)
    np.testing.assert_array_equal(read(follow(columns, json.dumps(frame), tmp_path)).embeddings, np.transpose(VECTORS))


PYTHON = [
    "{'embeddings': [[2.0409, -2.5557, 0.4181]]}",
    "[[2.0409, -2.5557, 0.4181],]",
    "[(2.0409, -2.5557, 0.4181)]",
    "{'embeddings': [[2.0409, -2.5557, 0.4181]], 'mask': [[True]]}",
]


@pytest.mark.parametrize("text", PYTHON)
def test_what_python_prints_is_converted_by_the_way_out(text, tmp_path):
    with pytest.raises(InputError, match="this is not valid JSON") as caught:
        read(text)
    command = re.search("python -c .*", caught.value.help)[0]

    np.testing.assert_array_equal(read(follow(command, text, tmp_path)).embeddings, VECTORS[:1])


@pytest.mark.parametrize("text", ["array([[1., 2.]])", "tensor([[1., 2.]])", "np.array([[1, 2]])"])
def test_what_numpy_and_torch_print_is_told_how_to_be_saved(text):
    with pytest.raises(InputError) as caught:
        read(text)
    assert "numpy.save('x.npy', x)" in caught.value.help


REFUSED = {
    "another length": ({"the": [1, 2], "to": [1]}, "ragged", "$.to"),
    "no number": ([{"token": "a", "d0": 1, "d1": "x"}, {"token": "b", "d0": 1, "d1": 2}], "not-a-number", "$[0].d1"),
    "a null": ([{"token": "a", "d0": 1, "d1": 3}, {"token": "b", "d0": None, "d1": 2}], "empty-cell", "$[1].d0"),
    "a field that one lacks": ([{"token": "a", "d0": 1, "d1": 3}, {"token": "b", "d0": 4}], "missing-field", "$[1].d1"),
    "a vector that one lacks": ([{"token": "a", "embedding": [1]}, {"token": "b"}], "missing-field", "$[1].embedding"),
    "a token that one lacks": ([{"token": "a", "embedding": [1]}, {"embedding": [2]}], "missing-field", "$[1].token"),
    "a matrix for each": ([{"index": 0, "embedding": [[1, 2]]}, {"index": 1, "embedding": [[3, 4]]}], "two-readings", "$[0].embedding"),
    "base64": ({"object": "list", "data": [{"index": 0, "embedding": "AACAPw=="}]}, "wrong-type", "$.data[0].embedding"),
    "a part of an answer": ({"object": "list", "data": [{"index": 3, "embedding": [1]}]}, "out-of-range", "$.data"),
    "no floats": ({"texts": ["a"], "embeddings": {"int8": [[1, 2]]}}, "wrong-type", "$.embeddings"),
    "not all objects": ([{"token": "a", "embedding": [1]}, 5], "wrong-type", "$[1]"),
    "tokens twice": ({"embeddings": dict(PAIRS), "tokens": list(TOKENS)}, "two-sources", "$.tokens"),
    "a word among numbers": ([{"token": "a", "embedding": [1, "x"]}], "not-a-number", "$.embeddings[0][1]"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_table_is_refused_with_its_place(case):
    value, code, path = REFUSED[case]

    with pytest.raises(InputError) as caught:
        read(value)

    assert (caught.value.code, caught.value.location.path) == (code, path)


def test_a_key_that_stands_twice_is_refused_in_tables():
    for text in (
        '{"the": [1, 2], "the": [3, 4]}',
        '{"d0": {"a": 1, "a": 2}}',
        '[{"token": "a", "embedding": [1], "embedding": [2]}]',
    ):
        with pytest.raises(InputError, match="occurs twice"):
            read(text)


def test_records_with_nothing_in_common_cost_little():
    text = "[" + ",".join(f'{{"a{i}":1}}' for i in range(60_000)) + "]"

    with pytest.raises(InputError, match="few in common"):
        read(text)


# ── NaN and Infinity as Python writes them ───────────────────────────────────────────────────────
def test_nan_and_infinity_without_quotes_are_read_where_a_field_may_hold_them():
    bias = [[0.0, float("-inf")], [0.5, 0.0]]
    problem = read(
        {
            "embeddings": [[1, 2], [3, 4]],
            "bias": bias,
            "tokens": ["NaN", "b"],
            "expected": {"weights": [[float("nan"), 1]]},
        }
    )
    q = [[float("nan"), float("inf")], [1, 2]]

    np.testing.assert_array_equal(problem.bias, bias)
    assert problem.tokens == ("NaN", "b")
    assert np.isnan(problem.expected["weights"]["values"][0][0])
    np.testing.assert_array_equal(read({"q": q, "k": [[1, 2], [3, 4]]}).q, q)


@pytest.mark.parametrize(
    ("text", "code", "path"),
    [
        ('{"embeddings": [[1, 2], [NaN, 4]]}', "not-finite", "$.embeddings[1][0]"),
        ("[[1, 2], [3, -Infinity]]", "not-finite", "$.embeddings[1][1]"),
        ('[{"token": "a", "embedding": [1, Infinity]}]', "not-finite", "$.embeddings[0][1]"),
        ('{"embeddings": [[1]], "mask": [[NaN, -Infinity]]}', "numeric-mask", "$.mask[0][0]"),
        ('{"embeddings": [[1]], "bias": [[NaN]]}', "nan-bias", "$.bias[0][0]"),
        ('{"embeddings": [[1]], "tokens": [NaN]}', "wrong-type", "$.tokens[0]"),
        ('{"embeddings": [[1]], "about": {"a": [1, NaN]}}', "not-finite", "$.about.a[1]"),
        ('{"q": [[NaN, 1e999]], "k": [[1, 2]]}', "not-finite", ""),
        ('{"q": [[NaN]], "q": [[1]], "k": [[1]]}', "two-sources", ""),
        ('{"parameters": NaN, "embeddings": [[1]]}', "wrong-type", "$.parameters"),
    ],
)
def test_nan_and_infinity_elsewhere_are_refused_with_their_place(text, code, path):
    with pytest.raises(InputError) as caught:
        read(text)

    assert (caught.value.code, caught.value.location.path) == (code, path)


# ── a token a line ───────────────────────────────────────────────────────────────────────────────
TOKEN_LINES = {
    "records": [{"token": t, "embedding": v} for t, v in PAIRS],
    "columns": [{"token": t, "d0": v[0], "d1": v[1], "d2": v[2]} for t, v in PAIRS],
    "rows": [[t, *v] for t, v in PAIRS],
}


@pytest.mark.parametrize("case", TOKEN_LINES)
def test_a_token_a_line_is_one_problem_for_every_command(attn, tmp_path, case):
    (tmp_path / "x.jsonl").write_text("\n" + lines(TOKEN_LINES[case]))

    problem = attncli.read(tmp_path / "x.jsonl")
    computed = attn("compute", "x.jsonl", "--only", "scores", "--json")
    attn("batch", "x.jsonl", "-o", "out", "--only", "scores")

    np.testing.assert_array_equal(problem.embeddings, VECTORS)
    assert problem.tokens == TOKENS
    assert computed.json["scores"][0][0] == pytest.approx(10.8717, abs=5e-5)
    assert json.loads((tmp_path / "out" / "x.json").read_text())["tokens"] == list(TOKENS)


def test_vectors_a_line_have_no_labels(tmp_path):
    (tmp_path / "x.jsonl").write_text(lines(VECTORS))

    np.testing.assert_array_equal(attncli.read(tmp_path / "x.jsonl").embeddings, VECTORS)


def test_problems_a_line_are_problems_still(attn, tmp_path):
    (tmp_path / "x.jsonl").write_text(
        lines([{"embeddings": VECTORS}, [[1, 2]], {"token": "a", "embedding": [1]}, [1, 2]])
    )

    done = attn("compute", "x.jsonl", "--only", "scores")

    first, second, third, fourth = map(json.loads, done.out.splitlines())
    assert first["scores"][0][0] == pytest.approx(10.8717, abs=5e-5)
    assert second["scores"] == [[5]]
    assert third["error"]["code"] == fourth["error"]["code"] == "two-readings"
    assert "--input-format ndjson-tokens" in third["error"]["help"]


def test_a_line_among_tokens_that_is_none_is_pointed_at():
    for other, code in (
        ('{"embeddings": [[1]]}', "wrong-type"),
        ("[1, 2", "bad-json"),
        ('["a", 1, 2, 3]', "wrong-type"),
    ):
        with pytest.raises(InputError) as caught:
            read(lines(TOKEN_LINES["records"][:2]) + other, "ndjson-tokens")
        assert caught.value.code == code
    with pytest.raises(InputError) as caught:
        read(lines(TOKEN_LINES["records"][:2]) + "[1, 2", "ndjson-tokens")
    assert caught.value.location.line == 3


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_tokens_a_line_are_read_packed(attn, tmp_path, pack):
    (tmp_path / "x.jsonl.gz" if pack is gzip.compress else tmp_path / "x.jsonl.zst").write_bytes(
        pack(lines(TOKEN_LINES["rows"]).encode())
    )
    name = next(tmp_path.iterdir()).name

    computed = attn("compute", name, "--only", "scores", "--json")
    attn("batch", name, "-o", "out", "--only", "scores")

    assert computed.json["scores"][0][0] == pytest.approx(10.8717, abs=5e-5)
    assert json.loads((tmp_path / "out" / "x.json").read_text())["tokens"] == list(TOKENS)


def test_lines_that_call_one_vector_embeddings_are_tokens(attn, tmp_path):
    """As data sets of sentences have it; a problem's embeddings are a matrix."""
    (tmp_path / "x.jsonl").write_text(
        '{"text": "a", "label": 1, "embeddings": [1, 2]}\n{"text": "b", "label": 0, "embeddings": [0.5, 1]}\n'
    )

    done = attn("compute", "x.jsonl", "--only", "scores", "--json", "-q").json

    assert (done["tokens"], done["scores"]) == (["a", "b"], [[5.0, 2.5], [2.5, 1.25]])


@pytest.mark.parametrize(
    "text",
    [
        '[["2008", 1, 2], ["the", 3, 4]]',
        '[["2008", [1, 2]], ["the", [3, 4]]]',
        '[[1, 2, "2008"], [3, 4, "the"]]',
        '["the", 3, 4]\n["2008", 1, 2]\n',
    ],
)
def test_a_token_that_is_a_number_in_quotes_is_one_beside_words(text):
    problem = read(json.loads(text)) if text.startswith("[[") else read(text, "ndjson-tokens")
    assert dict(zip(problem.tokens, problem.embeddings.tolist(), strict=True)) == {"2008": [1, 2], "the": [3, 4]}


def test_lines_whose_vector_is_called_like_a_field_are_tokens(attn, tmp_path):
    """A problem's v is a matrix."""
    (tmp_path / "x.jsonl").write_text('{"token": "a", "v": [1, 2]}\n{"token": "b", "v": [0.5, 1]}\n')

    asked = attn("compute", "x.jsonl")
    assert "help: --vector-field v takes them as the vectors" in asked.err
    done = attn("compute", "x.jsonl", "--vector-field", "v", "--only", "scores", "--json", "-q").json
    assert (done["tokens"], done["scores"]) == (["a", "b"], [[5.0, 2.5], [2.5, 1.25]])


def test_a_kind_of_vector_is_no_token(attn, tmp_path):
    (tmp_path / "x.json").write_text(
        '{"model": "e5", "data": [{"vector_type": "dense", "values": [1, 2]}, {"vector_type": "dense", "values": [0, 1]}]}'
    )

    assert attn("compute", "x.json", "--only", "scores", "--json", "-q").json["tokens"] == ["0", "1"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"input_ids": [[5, 6]], "last_hidden_state": [[[1.0, 2.0], [0.0, 1.0]]]}', "last_hidden_state"),
        ('{"vocab": {"a": 0, "b": 1}, "matrix": [[1.0, 2.0], [0.0, 1.0]]}', "matrix"),
    ],
)
def test_a_matrix_of_another_name_is_named_by_jq(attn, tmp_path, text, name):
    (tmp_path / "x.json").write_text(text)

    done = attn("compute", "x.json")

    assert done.status == 3
    assert f"help: name the vectors: jq '{{embeddings: .{name}}}' FILE > NEW.json" in done.err
