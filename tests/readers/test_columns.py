"""Columns of CSV that may be dimensions or something else, and quotation marks that are tokens: asked, never guessed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from attncli.errors import InputError
from attncli.readers import find_reader, parse_problem
from attncli.readers.columns import find_columns, spell_columns
from attncli.readers.source import Source

VECTORS = [[0.5, 2.0, -1.0], [3.0, 0.25, 4.0]]


def read(text: str, format_name: str = "csv", **options):
    return parse_problem(text.encode(), "test", find_reader("test", format_name), **options)


def table(names: str, extra: list[list[str]], at: int, tokens: bool) -> str:
    """A CSV of the vectors with more columns at a place; `names` is its header."""
    rows = []
    for i, vector in enumerate(VECTORS):
        cells = [*(["ab"[i]] if tokens else []), *map(str, vector)]
        cells[at:at] = extra[i]
        rows.append(",".join(cells))
    return "\n".join([names, *rows, ""])


UNLIKE = [
    table("token,d0,d1,d2,freq", [["900"], ["12"]], 4, True),
    table("token,id,d0,d1,d2", [["7"], ["8"]], 1, True),
    table("token,d0,d1,d2,n_tokens,label", [["3", "1"], ["4", "0"]], 4, True),
    table("token,dim_0,dim_1,norm,dim_2", [["2.3"], ["5.0"]], 3, True),
    table("token,0,1,2,count", [["5"], ["6"]], 4, True),
    table("token,x,y,z,index", [["0"], ["1"]], 4, True),
]


@pytest.mark.parametrize("text", UNLIKE)
def test_a_column_that_is_called_otherwise_is_asked_about_and_both_answers_work(text):
    with pytest.raises(InputError) as raised:
        read(text, header="yes")

    assert raised.value.code == "unclear-columns"
    dropped, columns = re.fullmatch(
        r"--drop (\S+) leaves .* out; --columns (\S+) takes all", raised.value.help
    ).groups()
    without = read(text, header="yes", drop=dropped)
    everything = read(text, header="yes", columns=columns)
    np.testing.assert_array_equal(without.embeddings, VECTORS)
    assert without.tokens == everything.tokens == ("a", "b")
    assert everything.embeddings.shape == (2, 3 + len(dropped.split(",")))


@pytest.mark.parametrize(
    "names", ["token,d0,d1,d2", "token,x,y,z", "token,0,1,2", "word,dim0,dim1,dim2", "token,animal,size,speed"]
)
def test_names_of_dimensions_are_not_asked_about(names):
    np.testing.assert_array_equal(read(table(names, [[], []], 0, True), header="yes").embeddings, VECTORS)


@pytest.mark.parametrize("names", [",d0,d1,d2", "id,d0,d1,d2", "index,0,1,2"])
def test_an_index_in_front_is_never_a_dimension_unless_it_is_said(names):
    text = table(names, [["0"], ["1"]], 0, False)

    with pytest.raises(InputError, match="holds numbers under a name unlike the others"):
        read(text, header="yes")
    with pytest.raises(InputError, match="unlike the dimensions"):
        read(text, header="yes", token_column="none")
    np.testing.assert_array_equal(read(text, header="yes", token_column="place:0").embeddings, VECTORS)
    np.testing.assert_array_equal(read(text, header="yes", drop="place:0").embeddings, VECTORS)
    assert read(text, header="yes", columns="place:0:4").embeddings[1].tolist() == [1, *VECTORS[1]]


# ── numbers that are the name of one column and the place of another ─────────────────────────────
NUMBERED = table(",0,1,2", [["10"], ["20"]], 0, False)  # what pandas writes: a nameless index, then 0, 1, 2
COUNTED = table("token,0,1,2,freq", [["5"], ["6"]], 4, True)
INDEX = [10, 20]


@pytest.mark.parametrize(
    ("text", "option", "value", "by_name", "by_place"),
    [
        (NUMBERED, "token_column", "0", "unclear-columns", [["10", "20"], VECTORS]),
        (NUMBERED, "columns", "0,1,2", [None, VECTORS], [None, [[i, *v[:2]] for i, v in zip(INDEX, VECTORS, strict=True)]]),
        (NUMBERED, "columns", "2,1", [None, [[v[2], v[1]] for v in VECTORS]], [None, [[v[1], v[0]] for v in VECTORS]]),
        (NUMBERED, "drop", "1", "unclear-tokens", "unclear-tokens"),
        (COUNTED, "columns", "0,1,2", [["a", "b"], VECTORS], "not-a-number"),
        (COUNTED, "columns", "freq,2", [["a", "b"], [[5, -1], [6, 4]]], [["a", "b"], [[5, 2], [6, 0.25]]]),
        (COUNTED, "token_column", "0", "unclear-columns", "unclear-columns"),
    ],
)  # fmt: skip
def test_a_number_that_is_a_name_and_a_place_is_refused_and_both_answers_work(text, option, value, by_name, by_place):
    with pytest.raises(InputError) as raised:
        read(text, header="yes", **{option: value})

    assert raised.value.code == "two-readings"
    spelled = re.fullmatch(r"by names: --\S+ (\S+); by places, counted from 0: --\S+ (\S+)", raised.value.help).groups()
    for answer, expected in zip(spelled, (by_name, by_place), strict=True):
        if isinstance(expected, str):
            with pytest.raises(InputError) as other:
                read(text, header="yes", **{option: answer})
            assert other.value.code == expected
            continue
        problem = read(text, header="yes", **{option: answer})
        tokens, vectors = expected
        assert problem.tokens == (None if tokens is None else tuple(tokens))
        np.testing.assert_array_equal(problem.embeddings, vectors)


@pytest.mark.parametrize(
    ("names", "value"),
    [("token,10,20,30", "10,20,30"), ("token,10,20,30", "1,2,3"), ("0,1,2,token", "0,1,2"), ("token,-1,-2,-3", "-1,-2,-3")],
)  # fmt: skip
def test_a_number_with_one_reading_is_read(names, value):
    cells = [
        [f"{'ab'[i]}", *map(str, v)] if names.startswith("token") else [*map(str, v), "ab"[i]]
        for i, v in enumerate(VECTORS)
    ]
    text = "\n".join([names, *map(",".join, cells), ""])

    problem = read(text, header="yes", columns=value)

    assert problem.tokens == ("a", "b")
    np.testing.assert_array_equal(problem.embeddings, VECTORS)


@pytest.mark.parametrize("count", [3, 40, 400])
def test_what_spells_columns_names_each_of_them(count):
    """However many there are, and whatever they are called."""
    for names in (
        ["", *map(str, range(count))],
        [*map(str, range(count, 0, -1))],
        [f"d {c}" for c in range(count)],
        ["a", "a", *(f"d{c}" for c in range(count))],
        ["none", "name:0", "place:1", "-1", "007", *map(str, range(count))],
    ):
        for columns in (range(len(names)), range(1, len(names)), range(0, len(names), 2), [len(names) - 1]):
            spelled = spell_columns(names, list(columns))
            assert find_columns(Source("t", b"", columns=spelled), "columns", names, len(names)) == list(columns)
            assert count > 40 or "…" not in spelled


@pytest.mark.parametrize("value", ["place:4", "place:x", "name:3", "place:2:1", "place:0:9", "-1", "7"])
def test_a_place_or_a_name_that_is_not_there_is_refused(value):
    with pytest.raises(InputError) as raised:
        read(NUMBERED, header="yes", columns=value)

    assert raised.value.code == "no-such-column"
    assert raised.value.help


def test_a_column_of_words_can_be_dropped():
    text = table("token,split,d0,d1,d2", [["train"], ["test"]], 1, True)

    np.testing.assert_array_equal(read(text, drop="split").embeddings, VECTORS)


def test_two_columns_of_one_name_are_told_apart_by_their_numbers():
    text = table("token,d0,d0,d1", [[], []], 0, True)

    with pytest.raises(InputError, match="two columns are called 'd0'"):
        read(text, columns="d0,d1")
    assert read(text, columns="2,3").embeddings.tolist() == [row[1:] for row in VECTORS]


@pytest.mark.parametrize("drop", [None, "freq"])
def test_large_files_decide_as_small_ones(monkeypatch, drop):
    monkeypatch.setattr("attncli.readers.csv._POLARS_MIN_BYTES", 1)
    text = UNLIKE[0]

    if drop is None:
        with pytest.raises(InputError, match="unlike the dimensions"):
            read(text)
    else:
        np.testing.assert_array_equal(read(text, drop=drop).embeddings, VECTORS)


# ── quotation marks ──────────────────────────────────────────────────────────────────────────────
MARKS = '"{0}1{0}0\nHello{0}0{0}1\n"{0}1{0}1\nshe{0}2{0}0\n'


def test_quotation_marks_between_tabs_are_tokens():
    problem = read(MARKS.format("\t"), "tsv")

    assert problem.tokens == ('"', "Hello", '"', "she")
    assert problem.embeddings.tolist() == [[1, 0], [0, 1], [1, 1], [2, 0]]
    assert read('"\t1\t0\nHello\t0\t1\n', "tsv").tokens == ('"', "Hello")


def test_quotation_marks_between_commas_are_asked_about():
    with pytest.raises(InputError) as raised:
        read(MARKS.format(","))
    followed = read('"""",1,0\nHello,0,1\n"""",1,1\nshe,2,0\n')

    assert (raised.value.code, raised.value.location.line) == ("two-readings", 1)
    assert '""""' in raised.value.help
    assert followed.tokens == ('"', "Hello", '"', "she")


def test_a_line_break_in_a_token_is_one_where_nothing_else_fits():
    assert read('"\n",1,0\n"two\nlines",0,1\n', header="no").tokens == ("\n", "two\nlines")


def test_rows_of_another_separator_are_named_with_the_option_that_reads_them(attn):
    Path("x.tsv").write_text("the,1,2\ncat,3,4.5\n")

    refused = attn("compute", "x.tsv")
    followed = attn("compute", "x.tsv", "--separator", "comma", "--json")

    assert (refused.status, "help: every row holds a comma: --separator comma\n" in refused.err) == (3, True)
    assert json.loads(followed.out)["scores"][0] == [5.0, 12.0]


def test_a_file_that_is_not_there_is_said_to_be_missing_whatever_its_suffix(attn):
    for name in ("nosuch", "nosuch.foo", "nosuch.csv"):
        done = attn("compute", name)

        assert (done.status, done.err.partition("\n")[0]) == (3, f"error[no-such-file]: there is no file {name}")
