"""Columns of CSV that may be dimensions or something else, and quotation marks that are tokens: asked, never guessed."""

from __future__ import annotations

import re

import numpy as np
import pytest

from attncli.errors import InputError
from attncli.readers import find_reader, parse_problem

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
    np.testing.assert_array_equal(read(text, header="yes", token_column="0").embeddings, VECTORS)
    np.testing.assert_array_equal(read(text, header="yes", drop="0").embeddings, VECTORS)
    assert read(text, header="yes", columns="0,1,2,3").embeddings[1].tolist() == [1, *VECTORS[1]]


def test_a_number_is_a_place_whatever_columns_are_called():
    """What pandas writes: a nameless index, then columns called 0, 1, 2."""
    text = table(",0,1,2", [["10"], ["20"]], 0, False)

    problem = read(text, header="yes", token_column="0")

    assert problem.tokens == ("10", "20")
    np.testing.assert_array_equal(problem.embeddings, VECTORS)


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
