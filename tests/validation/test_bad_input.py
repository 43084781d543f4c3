"""What is wrong with an input is said with its place and the way out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.validation.bad_files import X


@pytest.mark.parametrize("words", [["--error-format", "json"], ["--error-format", "concise"]], ids=lambda w: w[1])
def test_errors_for_programs(attn, tmp_path, words):
    path = tmp_path / "a.csv"
    path.write_bytes(b"token,d0,d1\na,1,2\nb,3\n")

    done = attn("compute", path, *words)

    assert (done.status, done.out) == (3, "")
    if words[1] == "json":
        record = json.loads(done.err)
        assert record["code"] == "ragged-row"
        assert record["file"] == str(path)
        assert record["location"] == {"row": 3, "column": 4}
        assert record["help"] == "add the missing value; short rows are never padded"
    else:
        assert done.err == f'{path}:3:4: ragged-row row for "b" has 1 value, but the header and line 2 have 2\n'


def test_the_message_is_the_specification(attn, tmp_path):
    path = tmp_path / "ragged.csv"
    path.write_bytes(b"token,d0,d1,d2,d3\nthe,1,0,1,0\ncat,0,1,2\nsat,2,1,0,1\n")

    done = attn("compute", "ragged.csv")

    assert done.err == (
        'error[ragged-row]: row for "cat" has 3 values, but the header and line 2 have 4\n'
        " --> ragged.csv:3:10\n"
        "  |\n"
        "1 | token,d0,d1,d2,d3\n"
        "2 | the,1,0,1,0\n"
        "3 | cat,0,1,2\n"
        "  |          ^ value 4 (d3) is missing\n"
        "4 | sat,2,1,0,1\n"
        "  |\n"
        "  = help: add the missing value; short rows are never padded\n"
    )


@pytest.mark.parametrize(
    ("content", "words", "message", "help"),
    [
        (
            {"embeddings": np.ones((2, 8)).tolist()},
            ["--heads", "3"],
            "the 8 columns of q cannot be split into 3 heads",
            "use 1, 2, 4 or 8 heads",
        ),
        (
            {"embeddings": X, "mask": [[1, 0, 0]]},
            [],
            "mask holds 1, but a mask must hold booleans",
            "write true where a key is visible and false where it is hidden; to add numbers to the scores use bias",
        ),
        ({"embeddings": X, "bias": [[0, "NaN", 0]]}, [], "bias holds NaN", "0 × −∞ is NaN: a mask multiplied by −∞"),
        ({"embeddings": X, "paramters": {}}, [], "a problem has no field 'paramters'", "did you mean 'parameters'?"),
        (
            {"q": X, "k": X[:2]},
            ["--causal"],
            "3 queries meet 2 keys, and causal needs to know which query is next to which key",
            "--align top-left",
        ),
        (
            {"embeddings": X},
            ["--only", "output"],
            "this variant has no step 'output'",
            "out=yes, as in --projection linear:out=yes, adds it; its steps are q, k, v, scores, scaled_scores",
        ),
        (
            {"embeddings": [[1, None], [2, 3]]},
            [],
            "embeddings holds null where a number should be",
            "write a number in its place",
        ),
        (
            {"embeddings": X, "bias": {"a": 1}},
            [],
            "bias holds an object where a number should be",
            'write lists of numbers: "bias": [[',
        ),
        (
            {"embeddings": X, "tokens": {"a": 1}},
            [],
            "tokens must be a list of texts, not an object",
            'write one text per token: ["the", "cat"]',
        ),
        (
            {"embeddings": X, "projection": "identity"},
            [],
            "a problem has no field 'projection'",
            'a choice goes under variant: "variant": {"projection": …}',
        ),
        ({"embeddings": X, "inputs": X}, [], "a problem has no field 'inputs'", "did you mean 'embeddings'?"),
        ({"q": X, "k": X, "v": X, "layout": 5}, [], "layout must be a text", "it can be bhtd, bthd, htd or thd"),
        (
            {"embeddings": X, "W_query": X},
            [],
            "a problem has no field 'W_query'",
            'learned arrays go under parameters: "parameters": {"w_q": …}',
        ),
        (
            {"embeddings": X},
            ["--only", "softmax"],
            "there is no step called 'softmax'",
            "such as q, scores, weights or context; attn list steps",
        ),
        (
            {"embeddings": X},
            ["--variant", "multi-head"],
            "the variant 'multi-head' needs a number of heads",
            "add --heads H",
        ),
        (
            {"embeddings": X, "tokens": ["a", "b", "a"]},
            ["--at", "query=a"],
            "the token 'a' occurs 2 times",
            "choose by index: --at query=0, or 2",
        ),
    ],
)
def test_messages_say_the_way_out(attn, tmp_path, content, words, message, help):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))

    done = attn("compute", path, *words, "--error-format", "json")

    record = json.loads(done.err)
    assert record["message"] == message
    assert record["help"].startswith(help)


def test_json_errors_are_pointed_at(attn, tmp_path):
    (tmp_path / "a.json").write_text('{\n  "embeddings": [[1, abc]]\n}\n')

    done = attn("compute", "a.json")

    assert " --> a.json:2:22\n" in done.err
    assert '2 |   "embeddings": [[1, abc]]\n' in done.err
    assert "  |                      ^\n" in done.err


@pytest.mark.parametrize("before", [3, 70, 150, 5000])
@pytest.mark.parametrize("after", [3, 700])
def test_the_caret_stands_under_the_error_in_lines_of_any_length(attn, tmp_path, before, after):
    (tmp_path / "a.json").write_text(f"[[{'1,' * before}?{',2' * after}]]")

    done = attn("compute", "a.json")

    lines = done.err.splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("1 | "))
    assert lines[row].index("?") == lines[row + 1].index("^")
    assert f"a.json:1:{2 * before + 3}" in done.err


def test_the_path_of_what_is_wrong(attn, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"embeddings": [[1, 2], [3, "x"]]}))

    assert "--> a.json at $.embeddings[1][1]" in attn("compute", "a.json").err


def test_a_fault_in_another_file_is_said_of_that_file(attn, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"embeddings": X}))
    (tmp_path / "m.json").write_text(json.dumps({"mask": [[1, 0, 1]]}))

    done = attn("compute", "a.json", "--with", "mask=m.json")

    assert done.status == 3
    assert "--> m.json at $.mask[0][0]" in done.err
