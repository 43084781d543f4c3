"""Counts, numberings, headers of numbers and long tables in text: asked about, and every answer that is spelled works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from attncli.errors import InputError
from attncli.readers import find_reader, parse_problem, read

TOKENS = ["the", "cat", "sat"]
VECTORS = [[0.5, 2.25, -1.5], [3.125, 0.25, 4.5], [-0.75, 1.5, 2.5]]


def parse(text: str, **options):
    return parse_problem(text.encode(), "test", find_reader("test", "csv"), **options)


def table(header: str = "", left=(), right=(), rows=VECTORS) -> str:
    """A CSV of rows between columns at the left and at the right."""
    lines = [",".join(map(str, [*(c[i] for c in left), *row, *(c[i] for c in right)])) for i, row in enumerate(rows)]
    return "\n".join([*([header] if header else []), *lines, ""])


WHOLE = [[5, 3, 8], [1, 7, 2], [9, 4, 6]]


@pytest.mark.parametrize(
    ("text", "tokens", "vectors"),
    [
        (table(left=[TOKENS, [9, 12, 7]]), TOKENS, VECTORS),
        (table(left=[TOKENS], right=[[9, 4, 2]]), TOKENS, VECTORS),
        (table(left=[TOKENS, [900, 412, 70]], rows=WHOLE), TOKENS, WHOLE),
        (table(left=[[0, 1, 2]], rows=WHOLE), None, WHOLE),
        (table("token,height,width,depth,outcome", [TOKENS], [[1, 0, 1]]), TOKENS, VECTORS),
        (table("token,height,outcome,width,depth", [TOKENS], rows=[[v[0], i, *v[1:]] for i, v in enumerate(VECTORS)]), TOKENS, VECTORS),
        (table("height,width,depth,y", right=[[1, 0, 1]]), None, VECTORS),
        (table("customer,height,width,depth", [[17, 23, 42]]), None, VECTORS),
        (table("token,x,y,z,size", [TOKENS], [[2.5, 1.5, 0.5]]), TOKENS, VECTORS),
        (table("token,user_id,height,width,depth", [TOKENS, [17, 23, 42]]), TOKENS, VECTORS),
        (table("token,height,width,depth,wordCount", [TOKENS], [[1.5, 2.5, 3]]), TOKENS, VECTORS),
        (table("token,height,width,depth,n_words", [TOKENS], [[1.5, 2.5, 3]]), TOKENS, VECTORS),
    ],
)  # fmt: skip
def test_a_column_that_counts_is_asked_about_and_both_answers_work(text, tokens, vectors):
    with pytest.raises(InputError) as raised:
        parse(text)
    ways = dict(re.findall(r"--(drop|columns|token-column) (\S+) ", raised.value.help))
    without, everything = parse(text, drop=ways["drop"]), parse(text, columns=ways["columns"])

    assert raised.value.code == "unclear-columns"
    np.testing.assert_array_equal(without.embeddings, vectors)
    assert everything.embeddings.shape == (3, 4)
    assert without.tokens == everything.tokens == (tokens and tuple(tokens))
    if "token-column" in ways:
        np.testing.assert_array_equal(parse(text, token_column=ways["token-column"]).embeddings, vectors)


def test_whole_numbers_beside_fractions_are_asked_about_in_json_too():
    """A row a token: an index, its token and the numbers; or by names that may be of anything."""
    rows = [[i, token, *vector] for i, (token, vector) in enumerate(zip(TOKENS, VECTORS, strict=True))]
    named = [dict(zip(("extra", "token", "height", "width", "depth"), row, strict=True)) for row in rows]
    for data in (rows, named):
        with pytest.raises(InputError) as raised:
            parse_problem(json.dumps(data).encode(), "test", find_reader("test", "json"))
        [dropped] = re.findall(r"--drop (\S+) leaves it out", raised.value.help)
        problem = parse_problem(json.dumps(data).encode(), "test", find_reader("test", "json"), drop=dropped)

        assert raised.value.code == "unclear-columns"
        assert problem.tokens == tuple(TOKENS)
        np.testing.assert_array_equal(problem.embeddings, VECTORS)


@pytest.mark.parametrize(
    "text",
    [
        table(left=[TOKENS], rows=WHOLE),
        table(rows=WHOLE),
        table(left=[TOKENS], rows=[[1, 0.5, 0.25], [0.5, 2.5, 1], [1, 1, 1]]),
        table("token,animal,size,speed", [TOKENS]),
        table("token,animal,size,speed", [TOKENS], rows=[[1, 0.5, 3], [0, 2.5, 1], [1, 1, 1]]),
        table("token,age,height", [TOKENS], rows=[[3, 0.5], [5, 0.75], [4, 1.5]]),
        table("token,idea,grid,monkey", [TOKENS]),
        table("token,d0,d1,d2", [TOKENS], rows=[[1, 0.5, 0.25], [2, 2.5, 1.5], [3, 1.5, 1.25]]),
        table(left=[TOKENS], rows=[[10, 0, 0], [0, 10, 0], [0, 0, 10]]),
    ],
)
def test_what_does_not_count_is_read(text):
    assert parse(text).embeddings.shape in ((3, 3), (3, 2))


@pytest.mark.parametrize(
    "names", ["1,2,3", "0.0,1.0,2.0", "2019,2020,2021", "token,0,1,2,freq", "country,2019,2020,2021"]
)
def test_a_first_row_that_counts_may_be_a_header(names):
    words = [name for name in names.split(",") if name.isalpha()]
    text = table(names, [TOKENS] if words else (), [[9, 9.5, 7]] if "freq" in words else ())

    with pytest.raises(InputError) as raised:
        parse(text)
    below = parse(text, header="yes", **({"drop": "freq"} if "freq" in words else {}))

    assert raised.value.code == "unclear-header"
    np.testing.assert_array_equal(below.embeddings, VECTORS)
    assert below.tokens == (tuple(TOKENS) if words else None)


@pytest.mark.parametrize("text", ["1,2,3\n4,5,6\n7,8,9\n", "the,1,2\ncat,0.5,2\n", "1,2,3\n0.5,2,3\n1,1,1\n"])
def test_a_first_row_of_whole_numbers_above_others_is_a_row(text):
    assert len(parse(text).embeddings) == text.count("\n")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("labels", [TOKENS, ["3", "1", "2"]], ids=["words", "numbers"])
def test_rows_that_count_the_dimensions_of_each_token_are_asked_about(tmp_path, first, labels):
    text = "".join(
        f"{label},{first + j},{x}\n" for label, row in zip(labels, VECTORS, strict=True) for j, x in enumerate(row)
    )
    path = tmp_path / "long.csv"
    path.write_text(text)

    with pytest.raises(InputError) as raised:
        read(path)
    command, columns = re.fullmatch(
        r"one number a row: (python .*); two dimensions: --columns (\S+)", raised.value.help
    ).groups()
    subprocess.run([sys.executable, *shlex.split(command)[1:]], check=True, cwd=tmp_path)
    options = {} if labels is TOKENS else {"columns": ",".join(f"name:{first + j}" for j in range(3))}
    pivoted = read(path.with_suffix(".parquet"), **options)

    np.testing.assert_array_equal(pivoted.embeddings, VECTORS)
    assert read(path, columns=columns).embeddings.shape == (9, len(columns.split(",")))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("# 1,2\n0.5,2.25\n3,0.25\n", "unclear-tokens"),
        ("the;0.5 2.25\ncat;3 0.25\n", "unclear-tokens"),
        ("the: 0.5,2.25\ncat: 3,0.25\n", "unclear-tokens"),
        ("the|0.5 2.25\ncat|3 0.25\n", "unclear-tokens"),
        ("feature,the,cat\nsize,1,2\nspeed,3,4\n", "two-readings"),
        (",the,cat\nf0,1,2\nf1,3,4\n", "two-readings"),
        ("the,0,5,2,25,-1,5\ncat,3,125,0,25,4,5\nsat,-0,75,1,5,2,5\n", "two-readings"),
        ("the,0,5,2,25\ncat,3,125,0,25\n", "two-readings"),
    ],
)
def test_numbers_within_tokens_and_decimal_commas_are_asked_about(text, code):
    with pytest.raises(InputError) as raised:
        parse(text)
    assert raised.value.code == code
    assert raised.value.help


def test_a_numbering_before_the_tokens_offers_them():
    text = table("row,token,d0,d1,d2", [["1", "2", "3"], TOKENS])

    with pytest.raises(InputError) as raised:
        parse(text)
    [token_column] = re.findall(r"--token-column (\S+) makes it the tokens", raised.value.help)
    with pytest.raises(InputError) as of_row:
        parse(text, token_column=token_column)
    [dropped] = re.findall(r"--drop (\S+) leaves it out", of_row.value.help)
    problem = parse(text, token_column=token_column, drop=dropped)

    assert problem.tokens == tuple(TOKENS)
    np.testing.assert_array_equal(problem.embeddings, VECTORS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "a,{},0.5\nb,2,0.25\n"),
        ("x.csv", "{},1,0.5\n{},2,0.25\n"),
        ("x.csv", "token,x,y\nd{},1,2\nd2,3,4\n"),
        ("x.txt", "{} 2\na 1 2\nb 3 4\n"),
        ("x.txt", "2 {}\na 1 2\nb 3 4\n"),
    ],
)
def test_whole_numbers_of_thousands_of_digits_are_no_counts(attn, tmp_path, name, text):
    (tmp_path / name).write_text(text.format(*["9" * 5000] * 2))

    run = attn("compute", name, "--json")

    assert run.status in (0, 3), run.err[-300:]
