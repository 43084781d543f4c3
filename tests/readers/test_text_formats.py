"""Text formats of embeddings: each dialect is read with its numbers and labels, or refused with a way out that works."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import attncli
from attncli.errors import AttnError, InputError
from attncli.readers import csv, find_reader, parse_problem

FILES = Path(__file__).parent / "files/text"
X = [[2.0409, -2.5557, 0.4181], [-0.5678, -0.4526, -0.2156], [-2.02, -0.2319, -0.8652], [3.323, 0.2258, -0.3526]]
TOKENS = ("the", "to", "U.S.", "<unk>")
WITH_TOKENS = [
    "csv_quote_all.csv", "duckdb.csv", "duckdb_pipe.csv", "excel_separator_line.csv", "excel_unicode_text.txt", "excel_utf8.csv", "fasttext.vec", "gensim.vec",
    "gensim_no_header.txt", "glove.txt", "pandas.csv", "pandas.csv.gz", "pandas.csv.zst", "pandas.tsv", "pandas_arrays.csv",
    "pandas_broken_lines.csv", "pandas_lists.csv", "pandas_records.csv", "pandas_scalars.csv", "pandas_semicolon.csv", "pandas_space.txt",
    "pandas_utf16.csv", "pandas_utf8_mark.csv", "pgvector.tsv", "polars.csv", "polars.tsv", "postgres_array.csv", "r_csv.csv",
    "r_csv2.csv", "r_table.txt", "r_table_unquoted.txt", "sqlite.csv", "sqlite.tsv", "tab_and_blanks.txt", "word2vec_tabs.vec",
]  # fmt: skip
WITHOUT_TOKENS = [
    "fortran_e.txt", "matlab_ascii.txt", "matlab_comment.txt", "octave_save.txt", "projector_vectors.tsv", "savetxt.csv", "savetxt.txt", "savetxt.txt.gz",
    "savetxt_aligned.txt", "savetxt_comment.txt", "savetxt_header.csv", "savetxt_header.txt",
]  # fmt: skip
OTHER_TOKENS = {
    "glove_840B.txt": (". . .", "at name@domain.com", '"', ","),
    "glove_phrases.glove": ("New York", "the", "2008", "San Jose"),
    "pandas_space_quoted.txt": ("New York", "to", '"', "<unk>"),
}
# file → its code, and what the help says that is done: options, or a command that writes what is read; with the labels then
REFUSED: dict[str, list[tuple[str, list[str] | str]]] = {
    "pandas_index.csv": [("unclear-header", ["--header yes"])],
    "pandas_numbered.csv": [("unclear-header", ["--header yes"]), ("unclear-tokens", ["--drop place:0"])],
    "pandas_numbered_tokens.csv": [("unclear-tokens", ["--drop 0"])],
    "pandas_texts.csv": [("unclear-tokens", ["--token-column body"])],
    "trailing_comma.csv": [("empty-cell", ["--drop 4"])],
    "pandas_cp1252.csv": [("wrong-encoding", "iconv -f CP1252 -t UTF-8")],
    "fortran_d.txt": [("not-a-number", r"sed -E 's/([0-9.])[dD]([-+]?[0-9])/\1e\2/g'")],
    "matlab_matrix.txt": [("bad-csv", "tr -d '[]' | tr ';' '\\n'")],
    "numpy_printed.txt": [("bad-csv", "tr -d '[]'")],
    "word2vec_head.vec": [("count-mismatch", "tail -n +2")],
    "pandas.csv.bz2": [("unknown-format", "bunzip2 -k")],
    "pandas.csv.xz": [("unknown-format", "unxz -k")],
    "pandas.csv.zip": [("unknown-format", "unzip")],
    "glove_numbers.txt": [("ragged-row", "sed '1i 4 3'")],
    "lists_unquoted.csv": [("not-a-number", "sed -E 's/(\\[.*\\])/\"\\1\"/'")],
    "token_is_comma.csv": [("ragged-row", "sed 's/^,,/\",\",/'")],
    "pandas_left_out.csv": [("truncated", "df['embedding'].map(list)")],
    "gensim_binary.vec": [("foreign-format", "K.load_word2vec_format(sys.argv[1], binary=True)")],
    "projector_metadata.tsv": [("not-a-number", "--with tokens=FILE")],
    "projector_metadata_columns.tsv": [("unclear-columns", ["--drop count"]), ("not-a-number", "--with tokens=FILE")],
    "pandas_printed.txt": [("two-readings", "sed -E '2,$ s/^ *[0-9]+ +//'")],
    "pandas_transposed.csv": [
        (
            "two-readings",
            "python -c \"import csv, sys; csv.writer(sys.stdout).writerows(zip(*csv.reader(sys.stdin, delimiter=',')))\"",
        )
    ],
    "pandas_long.csv": [("two-readings", ".pivot('dim', index=['token'], values='value').write_parquet")],
    "sqlite_quote.txt": [("two-readings", """sed "s/'/\\"/g\"""")],
    "sqlite_markdown.txt": [("bad-csv", r"sed -E '/^[ |:-]+$/d; s/^ *\| *| *\| *$//g; s/ *\| */|/g'")],
    "excel_decimal_commas.tsv": [("not-a-number", r"sed -E 's/([0-9]),([0-9])/\1.\2/g'")],
    "excel_empty_columns.csv": [("empty-cell", ["--drop 4,5"])],
    "decimal_commas.csv": [("two-readings", r"sed -E 's/([0-9]),([0-9]+)(,|$)/\1.\2\3/g'")],
    "decimal_commas.txt": [("not-a-number", r"sed -E 's/([0-9]),([0-9])/\1.\2/g'")],
    "two_lines_of_header.csv": [("not-a-number", "sed 2d")],
    "title.csv": [("ragged-row", "tail -n +2")],
    "minus_sign.csv": [("not-a-number", "sed 's/−/-/g'")],
    "comment_between.csv": [("ragged-row", "grep -v '^#'")],
}
TOKENS_THEN = {
    "pandas_numbered.csv": None, "fortran_d.txt": None, "matlab_matrix.txt": None, "numpy_printed.txt": None,
    "pandas_cp1252.csv": ("café", *TOKENS[1:]), "glove_numbers.txt": ("the", "to", "room 101", "<unk>"), "token_is_comma.csv": ("the", ","),
}  # fmt: skip
SAID_IN_OTHER_WORDS = {  # what the help says, where the command that is followed here is one way to do it
    "glove_numbers.txt": "in a first line, as word2vec does: 4 3",
    "lists_unquoted.csv": 'in quotation marks: "[0.1, 0.2]"',
    "token_is_comma.csv": 'between quotation marks: ","',
}


def read(text: str | bytes, format_name: str = "txt", **options):
    data = text.encode() if isinstance(text, str) else text
    return parse_problem(data, "test", find_reader("test", format_name), **options)


def test_every_file_is_tried():
    tried = {*WITH_TOKENS, *WITHOUT_TOKENS, *OTHER_TOKENS, *REFUSED}

    assert tried == {path.name for path in FILES.iterdir()} - {"make_files.py", "README.md"}


@pytest.mark.parametrize("name", [*WITH_TOKENS, *WITHOUT_TOKENS, *OTHER_TOKENS])
def test_a_dialect_is_read_with_its_numbers_and_labels(name):
    problem = attncli.read(FILES / name)

    np.testing.assert_allclose(problem.embeddings, X, rtol=1e-12 if name != "fortran_e.txt" else 1e-6)
    assert problem.tokens == OTHER_TOKENS.get(name, TOKENS if name in WITH_TOKENS else None)


@pytest.mark.parametrize("name", REFUSED)
def test_a_dialect_is_refused_with_a_way_out_that_works(name, tmp_path):
    path, options = tmp_path / name, {}
    shutil.copy(FILES / name, path)
    for code, way_out in REFUSED[name]:
        with pytest.raises(AttnError) as caught:
            attncli.read(path, **options)
        assert caught.value.code == code
        for said in [way_out] if isinstance(way_out, str) else way_out:
            assert SAID_IN_OTHER_WORDS.get(name, said) in caught.value.help
        if isinstance(way_out, list):
            options |= {word[2:].replace("-", "_"): value for word, value in (option.split() for option in way_out)}
        elif way_out.startswith(("--with", "df[", "K.load_word2vec", ".pivot")):
            return  # what follows is shown below, and in `test_long_tables`
        elif code == "unknown-format":
            subprocess.run(f"{way_out} {name}", shell=True, cwd=tmp_path, check=True, capture_output=True)
            path = path.with_suffix("")
        else:
            done = subprocess.run(f"cat {name} | {way_out}", shell=True, cwd=tmp_path, check=True, capture_output=True)
            path = tmp_path / f"mended{path.suffix}"
            path.write_bytes(done.stdout)

    problem = attncli.read(path, **options)

    count = len(problem.embeddings)
    np.testing.assert_allclose(problem.embeddings, X[:count], rtol=1e-6)
    assert problem.tokens == TOKENS_THEN.get(name, TOKENS)


@pytest.mark.parametrize(
    "metadata",
    ["projector_metadata.tsv", "projector_metadata_columns.tsv", "projector_metadata_columns.tsv:token-column=0"],
)
def test_labels_of_the_projector_stand_in_a_file_of_their_own(metadata):
    problem = attncli.read(FILES / "projector_vectors.tsv", replacing=[f"tokens={FILES / metadata}"])

    assert problem.tokens == TOKENS
    np.testing.assert_array_equal(problem.embeddings, X)


@pytest.mark.parametrize(
    ("text", "options", "labels"),
    [
        (b'"\n,\nNew York\n', "", ('"', ",", "New York")),
        (b"word\nthe\nto\nof\n", ":header=yes", ("the", "to", "of")),
        (b"5\tthe\n6\tto\n7\tof\n", ":header=no,token-column=1", ("the", "to", "of")),
        (b"id\tkind\ta\n5\tx\tthe\n6\ty\tto\n7\tz\tof\n", ":token-column=a", ("the", "to", "of")),
    ],
)
def test_labels_are_lines_of_text(tmp_path, text, options, labels):
    (tmp_path / "vocab.txt").write_bytes(text)
    np.save(tmp_path / "x.npy", np.eye(3, 2))

    assert attncli.read(tmp_path / "x.npy", replacing=[f"tokens={tmp_path}/vocab.txt{options}"]).tokens == labels


def test_it_is_asked_which_column_holds_the_labels(tmp_path):
    (tmp_path / "m.tsv").write_text("a\tb\nthe\tx\nto\ty\n")
    np.save(tmp_path / "x.npy", np.eye(2))

    with pytest.raises(InputError, match="which column holds the labels: 'a' and 'b'") as caught:
        attncli.read(tmp_path / "x.npy", replacing=[f"tokens={tmp_path}/m.tsv"])
    option = caught.value.help.removeprefix("--with ").split(" or ")[0]

    assert attncli.read(tmp_path / "x.npy", replacing=[option]).tokens == ("the", "to")


# ── where a token ends ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("text", "tokens", "vectors"),
    [
        ("2 3\nroom 101 1 2 3\nthe 4 5 6\n", ("room 101", "the"), [[1, 2, 3], [4, 5, 6]]),
        ("2 3\n1 1 2 3\n2 4 5 6\n", ("1", "2"), [[1, 2, 3], [4, 5, 6]]),
        ("2 3\n1 2 3\n4 5 6\n", None, [[1, 2, 3], [4, 5, 6]]),
        ("3 4\n1 2\n", None, [[3, 4], [1, 2]]),
        ("\u00a0 1 2\n\u3000 3 4\n", ("\u00a0", "\u3000"), [[1, 2], [3, 4]]),
        ("a\u0085b 1 2\nthe 3 4\n", ("a\u0085b", "the"), [[1, 2], [3, 4]]),
        ("New York 1 2\nSan Jose 3 4\n", ("New York", "San Jose"), [[1, 2], [3, 4]]),
        ("token d0 d1\nNew York 1 2\nthe 3 4\n", ("New York", "the"), [[1, 2], [3, 4]]),
        ("[ 1 2\n] 3 4\n", ("[", "]"), [[1, 2], [3, 4]]),
        ("the 1 2\n# 3 4\n% 5 6\n", ("the", "#", "%"), [[1, 2], [3, 4], [5, 6]]),
        ("2 3\nNew York 1 2 3\nSan Jose 4 5 6\n", ("New York", "San Jose"), [[1, 2, 3], [4, 5, 6]]),
        ('" 1 2\n" 3 4\n', ('"', '"'), [[1, 2], [3, 4]]),
        ('"" 1 2\nthe 3 4\n', ('""', "the"), [[1, 2], [3, 4]]),
        (", 1 2\nthe 3 4\n", (",", "the"), [[1, 2], [3, 4]]),
        ("; 1 2\n; 3 4\n", (";", ";"), [[1, 2], [3, 4]]),
        ("the  1\t 2 \r\nto 3 4\r\n\r\n", ("the", "to"), [[1, 2], [3, 4]]),
    ],
)
def test_tokens_between_blanks_are_whatever_stands_before_the_numbers(text, tokens, vectors):
    problem = read(text)

    assert problem.tokens == tokens
    np.testing.assert_array_equal(problem.embeddings, vectors)


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("the 1 2\nto 3 4 5\nof 6 7\n", "ragged-row", 2),
        ("the 1 2\nto 3\nof 6 7\n", "ragged-row", 1),
        ("the 1 2\n3 4\nof 6 7\n", "ragged-row", 2),
        ("3 2\nthe 1 2\n3 4\nof 6 7\n", "ragged-row", 3),
        ("3 2\nthe 1 2\nto 3\nof 6 7\n", "ragged-row", 3),
        ("# 1 2\n3 4 5\n6 7 8\n", "unclear-header", 1),
        ("the 1 2\n\nto 3 4\n", "blank-line", 2),
    ],
)
def test_a_row_that_is_too_long_or_too_short_is_no_token_with_blanks(text, code, line):
    with pytest.raises(InputError) as caught:
        read(text)

    assert (caught.value.code, caught.value.location.line) == (code, line)


def test_two_numbers_above_rows_of_one_number_are_asked_about():
    text, numbers = "2 1\nthe 5\nto 6\n", "2 2\n1 5\n3 4\n"

    with pytest.raises(InputError, match="may count 2 rows of 1 number") as caught:
        read(text)

    assert "--header yes takes it for counts, --header no for a row" in caught.value.help
    assert read(text, header="yes").tokens == ("the", "to")
    assert read(text, header="no").tokens == ("2", "the", "to")
    with pytest.raises(InputError, match="may count 2 rows of 2 numbers"):
        read(numbers)
    assert read(numbers, header="yes").embeddings.tolist() == [[1, 5], [3, 4]]
    assert read(numbers, header="no").embeddings.tolist() == [[2, 2], [1, 5], [3, 4]]
    assert read("2 3\nthe 1 2 3\nto 4 5 6\n", header="yes").tokens == ("the", "to")


def test_a_cell_between_blanks_is_pointed_at():
    with pytest.raises(InputError) as caught:
        read("New York 1 2\nthe 3 4\nto  x 5\n", header="no")
    with pytest.raises(InputError) as long:
        read("the 1 2\nto 3 1e999\n")

    assert caught.value.code == "ragged-row"
    assert (long.value.location.line, long.value.location.column, long.value.location.caret_width) == (2, 6, 5)


@pytest.mark.parametrize("name", ["fasttext.vec", "glove.txt", "gensim.vec", "glove_840B.txt", "savetxt_aligned.txt"])
def test_a_large_file_between_blanks_is_read_as_a_small_one(name, monkeypatch):
    small = attncli.read(FILES / name)
    monkeypatch.setattr(csv, "_POLARS_MIN_BYTES", 0)

    large = attncli.read(FILES / name)

    assert (large.tokens, large.notes) == (small.tokens, small.notes)
    np.testing.assert_array_equal(large.embeddings, small.embeddings)


@pytest.mark.parametrize("name", ["fasttext.vec", "glove.txt"])
def test_a_large_glove_file_is_polarss(name, monkeypatch):
    monkeypatch.setattr(csv, "_POLARS_MIN_BYTES", 0)
    monkeypatch.setattr(csv.CsvTable, "parse_problem", lambda self: pytest.fail("the standard library read it"))

    assert attncli.read(FILES / name).tokens == TOKENS


# ── separators ───────────────────────────────────────────────────────────────────────────────────
def test_a_separator_can_be_said():
    text = "a b,1 2\nc d,3 4\n"

    assert read(text, "csv").tokens == ("a b", "c d")
    assert read(text, "csv", separator="space").tokens == ("a b,1", "c d,3")
    assert read("a;1\nb;2\n", "tsv", separator="semicolon").tokens == ("a", "b")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('a,"[1, 2]",5\nb,"[3, 4]",6\n', "unclear-columns"),
        ('a,"[1, 2]","[3, 4]"\n', "unclear-columns"),
        ('a,"[[1, 2], [3, 4]]"\nb,"[[1, 2], [3, 4]]"\n', "not-a-number"),
        ('a,"[1, 2]"\nb,"[1, x]"\n', "not-a-number"),
        ('a,"[1,, 2]"\nb,"[1,, 2]"\n', "empty-cell"),
        ('a,"[1, 2]"\nb,"[1, 2, 3]"\n', "ragged-row"),
    ],
)
def test_a_vector_in_a_cell_is_asked_about_where_it_is_unclear(text, code):
    with pytest.raises(InputError) as caught:
        read(text, "csv", header="no")

    assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "format_name", "code"),
    [
        ("NaN,.5,10\n1,2,3\n", "tsv", "not-finite"),
        ("NaN,.5,1_0\n1,2,3\n", "tsv", "not-a-number"),
        ("1,2,\n", "tsv", "not-a-number"),
        ('the,"(0.5,)"\ncat,"(1, 2)"\n', "csv", "unclear-header"),
        ('the,"[nan, 0.5]"\ncat,"[1, 2]"\n', "csv", "not-finite"),
        ('the,"[1_0, 0.5]"\ncat,"[1, 2]"\n', "csv", "not-a-number"),
    ],
)
def test_a_first_vector_with_a_slip_in_it_is_no_header(text, format_name, code):
    with pytest.raises(InputError) as caught:
        read(text, format_name)

    assert (caught.value.code, caught.value.location.line) == (code, 1)


def test_the_ways_out_of_a_vector_beside_numbers_work():
    text = 'token,embedding,x,y\na,"[1, 2]",5,7\nb,"[3, 4]",6,8\n'

    with pytest.raises(InputError) as caught:
        read(text, "csv")

    assert "--columns embedding takes the vectors alone, --drop embedding leaves them out" in caught.value.help
    assert read(text, "csv", columns="embedding").embeddings.tolist() == [[1, 2], [3, 4]]
    assert read(text, "csv", drop="embedding").embeddings.tolist() == [[5, 7], [6, 8]]


def test_a_column_of_numbers_and_nan_that_is_called_token_is_asked_about():
    text = "token,d0,d1\n1,0.1,0.2\nnan,0.3,0.4\n"

    with pytest.raises(InputError, match="holds numbers and 'nan'") as caught:
        read(text, "csv")

    assert (caught.value.code, caught.value.help) == ("unclear-tokens", "--token-column token makes them the tokens")
    assert read(text, "csv", token_column="token").tokens == ("1", "nan")


def test_labels_in_brackets_are_no_vectors():
    problem = read("[CLS],1,2\n[SEP],3,4\n", "csv")

    assert problem.tokens == ("[CLS]", "[SEP]")
    assert read("1 2,0.5,1.5\n3 4,2.5,3.5\n", "csv").tokens == ("1 2", "3 4")


@pytest.mark.parametrize(
    "text", ["[[1, 2], [3, 4]]", '[{"token": "a", "embedding": [1, 2]}]', '{"embeddings": [[1, 2]]}']
)
def test_json_in_a_csv_is_named(text):
    with pytest.raises(InputError, match="this is JSON, not CSV") as caught:
        read(text, "csv")

    assert caught.value.help == "--input-format json"
    assert read(text, "json").embeddings[0].tolist() == [1, 2]


# column 0 of "counted" is no count but for the fractions beside it
COUNTS = {
    "frequencies after the tokens": ("the 900 0.5 2.5\ncat 12 0.25 1.5\n", 1, ("the", "cat")),
    "frequencies at the end": ("the,0.5,2.5,900\ncat,0.25,1.5,1\n", 3, ("the", "cat")),
    "an index": ("0,0.5,2.5\n1,0.25,1.5\n2,0.75,3.5\n", 0, None),
    "numbers for tokens": ("2008,0.5,2.5\n2009,0.25,1.5\n", 0, None),
}


@pytest.mark.parametrize("case", COUNTS)
def test_counts_beside_fractions_are_asked_about_and_every_answer_works(case):
    text, column, tokens = COUNTS[case]

    with pytest.raises(
        InputError, match=f"column {column} holds whole numbers, and all others hold fractions"
    ) as caught:
        read(text)

    ways = {way.split(" ")[0]: way.split(" ")[1] for way in caught.value.help.split("; ")}
    without = read(text, drop=ways["--drop"])
    everything = read(text, columns=ways["--columns"])
    assert caught.value.code == "unclear-columns"
    assert (without.embeddings[0].tolist(), without.tokens) == ([0.5, 2.5], tokens)
    assert (everything.embeddings.shape[1], everything.tokens) == (3, tokens)
    assert ("--token-column" in ways) == (tokens is None)
    if tokens is None:
        assert read(text, token_column=ways["--token-column"]).tokens == tuple(
            line.split(",")[0] for line in text.splitlines()
        )


@pytest.mark.parametrize(
    "text",
    [
        "the 1 0.5 2.5\ncat 0 0.25 1.5\n",  # a coordinate that happens to be whole
        "the 9 1 0\ncat 5 0 1\n",  # beside whole numbers of one size nothing tells counts
        "the 1 10 20\ncat 2 30 40\n",
        "2 3\nthe 900 0.5 2.5\ncat 12 0.25 1.5\n",  # the line with counts says how many numbers there are
        "the 900 0.5 2.5\n",
        "0.5,2.5,900\n0.25,1.5,12.5\n",
    ],
)
def test_whole_numbers_that_may_well_be_coordinates_are_not_asked_about(text):
    assert read(text).embeddings.shape[1] == 3


@pytest.mark.parametrize("text", ["the 0.5 nan 0.25\n", "the 0.5 nan 1\ncat 0.5 nan 2\n", "2008 1_0 0.125\n"])
def test_a_slip_for_a_number_between_numbers_is_no_part_of_a_token(text):
    with pytest.raises(InputError, match="the end of its token, or a mistyped number") as caught:
        read(text)

    counts = caught.value.help.rpartition(": ")[2]
    assert caught.value.code == "ragged-row"
    if counts.endswith(" 2"):
        assert read(f"{counts}\n{text}").embeddings.shape[1] == 2


@pytest.mark.parametrize("text", ["2,1\r", "w0\t1,5\nw1\t2,5\n", "1,0\r\n"])
def test_two_numbers_in_a_cell_that_may_be_one_with_a_decimal_comma_are_refused(tmp_path, text):
    path = tmp_path / "a.tsv"
    path.write_text(text)

    with pytest.raises(InputError) as raised:
        attncli.read(path)

    assert raised.value.code == "two-readings"
    path.write_text("w0\t[1,5]\nw1\t[2,5]\n")
    assert attncli.read(path).embeddings.tolist() == [[1, 5], [2, 5]]
    path.write_text("w0\t1.5\nw1\t2.5\n")
    assert attncli.read(path).embeddings.tolist() == [[1.5], [2.5]]


def test_two_tokens_that_are_quotation_marks_swallow_no_row_even_where_rows_differ_in_length(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text('at\t1\t2\n"\t2.5\t-2\t3\n"\t2.5\t4\ncat\t3\t5\n')

    with pytest.raises(InputError) as raised:
        attncli.read(path)

    assert (raised.value.code, raised.value.location.line) == ("two-readings", 2)


@pytest.mark.parametrize("header", ["token,e1,e2", "word,E0,E1", "e1,e2", "token,e_0,e_1", "token,d0,d1"])
def test_numbered_names_that_resemble_numbers_are_a_header(attn, header):
    label = "" if header.startswith("e") else "cat,"
    Path("h.csv").write_text(f"{header}\n{label}1,2\n{label.replace('cat', 'sat')}2,1\n")
    run = attn("compute", "h.csv", "--only", "scores", "--json", "--scale", "none")
    assert run.json["scores"] == [[5, 4], [4, 5]]
    assert "header row" in run.err


@pytest.mark.parametrize("header", ["token,e1,e2,norm", "token,norm,e1,e2", "token,E1,E2,norm"])
def test_numbered_names_beside_another_name_are_a_header(attn, header):
    Path("h.csv").write_text(f"{header}\nking,.5,.3,2\nqueen,.2,.1,3\n")
    assert "--drop norm leaves it out" in attn("compute", "h.csv").err
    kept = [[0.3, 2], [0.1, 3]] if header.startswith("token,norm") else [[0.5, 0.3], [0.2, 0.1]]
    assert attn("compute", "h.csv", "--drop", "norm", "--only", "scores", "--json", "--scale", "none").json["scores"][
        0
    ][0] == pytest.approx(np.dot(kept[0], kept[0]))


def test_tokens_behind_the_numbers_may_be_numbers_in_part(attn):
    Path("x.txt").write_text("1 2 the\n3 4 2008\n5 6 to\n")
    assert "the column holds mostly words: --token-column 2 makes it the tokens" in attn("compute", "x.txt").err
    assert attn("compute", "x.txt", "--token-column", "2", "--only", "scores", "--json", "-q").json["tokens"] == [
        "the",
        "2008",
        "to",
    ]
