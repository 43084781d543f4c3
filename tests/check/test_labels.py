"""Rows and columns of figures are judged under their own names, or refused: never under the names of others."""

from __future__ import annotations

import json

import numpy as np
import pytest

import attncli

TOKENS = ["the", "cat", "sat"]
X = [[1.0, 0.5], [0.25, 1.0], [0.5, -0.5]]


def weights(tokens=TOKENS):
    return np.asarray(attncli.attend(attncli.Problem(embeddings=X, tokens=tokens))["weights"].values)


def table(rows, columns, values, corner="token"):
    header = [] if columns is None else [",".join(([] if corner is None else [corner]) + list(columns))]
    return "\n".join([*header, *(",".join([label, *(f"{x:.4f}" for x in row)]) for label, row in zip(rows, values, strict=True))]) + "\n"  # fmt: skip


def verdict(attn, tmp_path, text, tokens=TOKENS, step="weights"):
    problem = {"embeddings": X, **({"tokens": tokens} if tokens else {})}
    (tmp_path / "p.json").write_text(json.dumps(problem))
    (tmp_path / "mine.csv").write_text(text)
    run = attn("check", "p.json", "--figures", "mine.csv", "--step", step, "--no-identify", "--json")
    return (run.json["verdict"], "") if run.out else ("refused", run.err)


W = weights()
ORDER = [2, 0, 1]


@pytest.mark.parametrize(
    ("rows", "columns", "values"),
    [
        (TOKENS, TOKENS, W),
        ([" the ", "cat", "sat"], TOKENS, W),
        ([TOKENS[i] for i in ORDER], TOKENS, W[ORDER]),
        (TOKENS, [TOKENS[i] for i in ORDER], W[:, ORDER]),
        ([TOKENS[i] for i in ORDER], [TOKENS[i] for i in ORDER], W[ORDER][:, ORDER]),
        (["sat", "the"], TOKENS, W[[2, 0]]),
        (TOKENS, ["sat", "cat"], W[:, [2, 1]]),
        (["0", "1", "2"], ["0", "1", "2"], W),
        (["1", "2", "3"], ["1", "2", "3"], W),
        (["2", "0", "1"], ["0", "1", "2"], W[ORDER]),
        (["query 1", "query 0", "query 2"], ["key 0", "key 2", "key 1"], W[[1, 0, 2]][:, [0, 2, 1]]),
        (TOKENS, ["", "", ""], W),
        (["", "", ""], TOKENS, W),
        (TOKENS, None, W),
    ],
)
def test_right_figures_under_their_right_names_are_right(attn, tmp_path, rows, columns, values):
    assert verdict(attn, tmp_path, table(rows, columns, values)) == ("right", "")


@pytest.mark.parametrize("corner", ["token", "", "query"])
def test_figures_under_each_others_names_are_wrong(attn, tmp_path, corner):
    swapped = ["cat", "the", "sat"]

    assert verdict(attn, tmp_path, table(swapped, TOKENS, W, corner))[0] == "wrong"
    assert verdict(attn, tmp_path, table(TOKENS, swapped, W, corner))[0] == "wrong"
    assert verdict(attn, tmp_path, table(["1", "0", "2"], TOKENS, W, corner))[0] == "wrong"


@pytest.mark.parametrize(
    ("rows", "columns", "code", "said"),
    [
        (["foo", "cat", "sat"], TOKENS, "unknown-label", "'foo', but no query has that name"),
        (TOKENS, ["the", "cat", "foo"], "unknown-label", "'foo', but no key has that name"),
        (["The", "cat", "sat"], TOKENS, "unknown-label", "did you mean 'the'?"),
        (["th e", "cat", "sat"], TOKENS, "unknown-label", "did you mean 'the'?"),
        (["the", "", "sat"], TOKENS, "unknown-label", "''"),
        (["the", "cat", "cat"], TOKENS, "two-sources", "'cat' of weights occurs twice"),
        (TOKENS, ["the", "the", "sat"], "two-sources", "'the' of weights occurs twice"),
        (["1", "2", "7"], TOKENS, "unknown-label", "'1', but no query has that name"),
        (["1", "2"], TOKENS, "unknown-label", "'1', but no query has that name"),
    ],
)
def test_names_that_match_nothing_are_refused(attn, tmp_path, rows, columns, code, said):
    word, err = verdict(attn, tmp_path, table(rows, columns, W[: len(rows)]))

    assert word == "refused"
    assert f"error[{code}]" in err
    assert said in err


def test_the_rows_of_a_table_are_of_the_axis_that_its_corner_names(attn, tmp_path):
    word, err = verdict(attn, tmp_path, table(TOKENS, TOKENS, W.T, corner="key"))

    assert (word, "the rows of the table are along the key axis" in err) == ("refused", True)


def test_tokens_that_repeat_are_right_in_their_order_and_refused_in_another(attn, tmp_path):
    tokens = ["the", "cat", "the"]

    assert verdict(attn, tmp_path, table(tokens, tokens, W), tokens)[0] == "right"
    assert verdict(attn, tmp_path, table(["cat"], tokens, W[[1]]), tokens)[0] == "right"
    word, err = verdict(attn, tmp_path, table(["the", "the", "cat"], tokens, W), tokens)
    assert (word, "error[ambiguous-label]" in err) == ("refused", True)


def test_tokens_that_differ_by_spaces_are_told_apart(attn, tmp_path):
    tokens = [" the", "the", "sat"]

    assert verdict(attn, tmp_path, table(tokens, tokens, W), tokens)[0] == "right"
    assert verdict(attn, tmp_path, table(["the", " the", "sat"], tokens, W), tokens)[0] == "wrong"
    assert verdict(attn, tmp_path, table(["the", " the", "sat"], tokens, W[[1, 0, 2]]), tokens)[0] == "right"


def test_labels_that_are_tokens_and_numbers_alike_are_refused_unless_in_order(attn, tmp_path):
    tokens = ["2", "0", "1"]

    assert verdict(attn, tmp_path, table(tokens, tokens, W), tokens)[0] == "right"
    word, err = verdict(attn, tmp_path, table(["0", "1", "2"], tokens, W), tokens)
    assert (word, "error[ambiguous-label]" in err) == ("refused", True)


@pytest.mark.parametrize("names", [["d0", "d1"], ["0", "1"], ["1", "2"], ["x1", "x2"], ["dim 0", "dim 1"]])
def test_dims_are_found_by_their_numbers(attn, tmp_path, names):
    context = np.asarray(attncli.attend(attncli.Problem(embeddings=X, tokens=TOKENS))["context"].values)

    assert verdict(attn, tmp_path, table(TOKENS, names, context), step="context")[0] == "right"
    assert verdict(attn, tmp_path, table(TOKENS, names[::-1], context[:, ::-1]), step="context")[0] == "right"
    assert verdict(attn, tmp_path, table(TOKENS, names[::-1], context), step="context")[0] == "wrong"


@pytest.mark.parametrize("names", [["x", "y"], ["d0", "d0"], ["d0", "d7"], ["the", "cat"]])
def test_names_that_no_dim_has_are_refused(attn, tmp_path, names):
    context = np.asarray(attncli.attend(attncli.Problem(embeddings=X))["context"].values)
    word, err = verdict(attn, tmp_path, table(TOKENS, names, context), step="context")

    assert (word, "call them d0 … d1" in err) == ("refused", True)


@pytest.mark.parametrize("suffix", ["json", "npz", "safetensors"])
def test_a_result_is_held_under_its_own_tokens(attn, tmp_path, suffix):
    order = [1, 0, 2]
    for name, tokens, x in (("p", TOKENS, X), ("q", [TOKENS[i] for i in order], [X[i] for i in order])):
        (tmp_path / f"{name}.json").write_text(json.dumps({"embeddings": x, "tokens": tokens}))
    (tmp_path / "swapped.json").write_text(json.dumps({"embeddings": X, "tokens": [TOKENS[i] for i in order]}))
    (tmp_path / "others.json").write_text(json.dumps({"embeddings": X, "tokens": ["the", "cat", "on"]}))
    for name in ("p", "q", "swapped", "others"):
        attn("compute", f"{name}.json", "--only", "weights", "-o", f"{name}.r.{suffix}")

    def run(name):
        return attn("check", "p.json", "--figures", f"{name}.r.{suffix}", "--no-identify")

    assert run("p").status == run("q").status == 0
    assert run("swapped").status == 1
    assert (run("others").status, "error[unknown-label]" in run("others").err) == (3, True)


def test_a_header_has_a_name_for_each_column(attn, tmp_path):
    word, err = verdict(attn, tmp_path, table(TOKENS, ["the", "cat"], W))

    assert (word, "the header has 2 names, but the rows have 3 figures" in err) == ("refused", True)


def of_result(attn, tmp_path, problem, words=(), **changed):
    """What is said of the result of a problem, some fields of which were changed afterwards: (status, errors)."""
    (tmp_path / "p.json").write_text(json.dumps(problem))
    record = attn("compute", "p.json", "--only", "weights", "--json", *words).json
    (tmp_path / "mine.json").write_text(json.dumps(record | changed))
    run = attn("check", "p.json", "--figures", "mine.json", "--no-identify")
    return run.status, run.err


@pytest.mark.parametrize("tokens", [TOKENS, ["0", "1", "2"]])
def test_a_result_whose_indices_contradict_its_tokens_is_refused(attn, tmp_path, tokens):
    problem = {"embeddings": X, "tokens": tokens}
    some = ("--at", "query=1:3")

    assert of_result(attn, tmp_path, problem, some)[0] == 0
    for changed in ({"at": {"query": [2, 1]}}, {"at": {"query": [0, 1]}}, {"tokens": [tokens[2], tokens[1]]}):
        status, err = of_result(attn, tmp_path, problem, some, **changed)
        assert (status, "error[two-sources]" in err) == (3, True)
        assert '"at" says that the queries of weights are' in err
    status, err = of_result(attn, tmp_path, problem, at={"key": [2, 1, 0]})
    assert (status, f"are {tokens[2]}, {tokens[1]} and {tokens[0]}, but k_tokens says" in err) == (3, True)
    assert (
        of_result(attn, tmp_path, problem, tokens=tokens[::-1])[0] == 1
    )  # without "at", tokens say which row is whose


def test_a_result_of_other_numbers_is_not_taken_for_one_without_names(attn, tmp_path):
    status, err = of_result(attn, tmp_path, {"embeddings": X}, tokens=["1", "2", "3"])

    assert (status, "'3', but no query has that name" in err) == (3, True)
    assert of_result(attn, tmp_path, {"embeddings": X}, tokens=TOKENS)[0] == 0  # the problem has no names


def test_items_of_a_batch_in_different_orders_are_said_to_be(attn, tmp_path):
    problem = {"embeddings": [X, X[::-1]], "tokens": [TOKENS, TOKENS[::-1]]}

    assert of_result(attn, tmp_path, problem)[0] == 0
    status, err = of_result(attn, tmp_path, problem, tokens=[TOKENS, ["sat", "the", "cat"]])
    assert (status, "the queries of weights are in another order in one item of the batch" in err) == (3, True)


def test_labels_of_two_meanings_are_called_queries_and_keys(attn, tmp_path):
    tokens = ["2", "0", "1"]
    _, err = verdict(attn, tmp_path, table(["0", "1", "2"], tokens, W), tokens)

    assert "which are tokens as well as numbers of queries" in err


@pytest.mark.parametrize("rows", [["0", "1", "2"], ["0.5", "0.25", "0.5"]])
def test_a_corner_that_may_be_a_column_is_refused_with_both_readings(attn, tmp_path, rows):
    word, err = verdict(attn, tmp_path, table(rows, ["0", "1", "2"], W, corner="x"))

    assert word == "refused"
    assert "the header calls the first column of weights 'x', and numbers the others" in err
    assert "if the first column names the rows, call it token; if it holds figures, leave the header out" in err


def test_the_way_out_of_an_unclear_corner_works(attn, tmp_path):
    context = np.asarray(attncli.attend(attncli.Problem(embeddings=X))["context"].values)
    figures = table([f"{x:.4f}" for x in context[:, 0]], ["1"], context[:, 1:], corner="x")

    assert verdict(attn, tmp_path, table(["0", "1", "2"], ["0", "1", "2"], W, corner="token"))[0] == "right"
    assert verdict(attn, tmp_path, figures, step="context")[0] == "refused"
    without_header = figures.partition("\n")[2]
    assert verdict(attn, tmp_path, without_header, step="context")[0] == "right"


@pytest.mark.parametrize(
    ("text", "code", "said", "way_out"),
    [
        (
            "step,query,key,value\nweights,the,1,0.2\n",
            "bad-row",
            "'the' is not an index of the axis query",
            "counted from 0",
        ),
        (
            "step,query,key,value\nweights,0,cat,0.2\n",
            "bad-row",
            "'cat' is not an index of the axis key",
            "counted from 0",
        ),
        ("step,query,key,value\nweights,0,0,much\n", "bad-row", "'much' is where a number should be", ""),
        ("step,query,key,value\nweights,0,0.2\n", "bad-row", "3 cells, but the header 4", "step,query,key,value"),
        ("query,key,value\n0,0,0.4\n", "bad-row", "does not name the step", "step,query,key,value"),
    ],
)
def test_tidy_rows_that_say_no_cell_are_refused_with_a_way_out(attn, tmp_path, text, code, said, way_out):
    word, err = verdict(attn, tmp_path, text)

    assert (word, f"error[{code}]" in err, said in err, way_out in err) == ("refused", True, True, True)


@pytest.mark.parametrize(
    ("tokens", "is_refused"), [(["0", "2", "1"], True), (["1", "2", "0"], True), (["1", "0", "2"], False)]
)
def test_numbers_that_are_tokens_are_refused_whichever_reading_comes_first(attn, tmp_path, tokens, is_refused):
    """Rows 1, 0, 2 by their tokens are 2, 0, 1, or 0, 2, 1, or as they stand; by their numbers they are 1, 0, 2."""
    word, err = verdict(attn, tmp_path, table(["1", "0", "2"], tokens, weights(tokens)), tokens)

    assert (word, "ambiguous-label" in err) == (("refused", True) if is_refused else ("right", False))


@pytest.mark.parametrize(
    ("step", "row", "problem_is_right"),
    [
        ("k", "0,down,0", True),  # of the new keys, which stand behind the cached ones
        ("k", "0,the,0", False),
        ("weights", "0,ask,0", True),
        ("weights", "0,why,0", False),
    ],
)
def test_tokens_of_tidy_rows_are_those_of_their_indices_behind_a_cache_too(attn, tmp_path, step, row, problem_is_right):
    cache = {"k": [[[[1, 0], [0, 1], [1, 1]]]], "v": [[[[1, 0], [0, 1], [1, 1]]]]}
    new = [[[[1, 2], [3, 1]]]]
    names = {"tokens": ["ask", "why"], "k_tokens": ["the", "cat", "sat", "down", "there"]}
    (tmp_path / "p.json").write_text(json.dumps({"q": new, "k": new, "v": new, "past": cache, **names}))
    index, token, other = row.split(",")
    header = "step,new_key,dim,value,key_token" if step == "k" else "step,query,key,value,query_token"
    (tmp_path / "mine.csv").write_text(f"{header}\n{step},{index},{other},1,{token}\n")

    run = attn("check", "p.json", "--figures", "mine.csv", "--no-identify")

    assert ("unknown-label" in run.err) is not problem_is_right, run.err


def test_a_step_of_one_axis_is_a_row_whatever_its_corner_says(attn, tmp_path):
    sums = attncli.attend(attncli.Problem(embeddings=X), keep=["log_sum_exp"])["log_sum_exp"].values

    text = "query,0,1,2\nx," + ",".join(f"{x:.4f}" for x in sums) + "\n"

    assert verdict(attn, tmp_path, text, tokens=None, step="log_sum_exp") == ("right", "")
