"""Fields from text files (`--with`): matrices, masks, vectors, labels, q, k and v; what is said of each file behind its path."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import attncli
from attncli.errors import AttnError, InputError, OptionError
from attncli.readers.with_field import parse_assignment

X = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("cat,1,2,3\nsat,4,5,6\n")
    return tmp_path


def write(name: str, rows: list[list[object]] | str) -> None:
    text = rows if isinstance(rows, str) else "".join(",".join(map(str, row)) + "\n" for row in rows)
    Path(name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    "rows", [[[1, 0, 1], [0, 1, 0], [1, 1, 1]], [[0, 0, 1], [0, 1, 0], [1, 0, 0]], [[2, 0, 1], [0.5, 1, 0], [1, 1, 3]]]
)
@pytest.mark.usefixtures("folder")
def test_a_matrix_that_begins_as_a_header_might_is_read(rows):
    write("w.csv", rows)

    problem = attncli.read("x.csv", replacing=["parameters.w_q=w.csv"])

    np.testing.assert_array_equal(problem.parameters["w_q"], rows)
    assert problem.notes[1] == "w.csv: 3 × 3, no header, no token column, separator comma"


@pytest.mark.usefixtures("folder")
def test_what_the_help_says_of_a_header_reaches_the_file_of_with():
    write("w.csv", [[0, 1, 2], [1, 0, 1], [3, 1, 0]])

    with pytest.raises(InputError) as caught:
        attncli.read("x.csv", replacing=["parameters.w_q=w.csv"])
    ways_out = caught.value.help.removesuffix(" says which").split(" or ")
    with_header, without = (
        attncli.read("x.csv", replacing=[way_out.removeprefix("--with ")]).parameters["w_q"] for way_out in ways_out
    )

    assert caught.value.location.file == "w.csv"
    np.testing.assert_array_equal(with_header, [[1, 0, 1], [3, 1, 0]])
    np.testing.assert_array_equal(without, [[0, 1, 2], [1, 0, 1], [3, 1, 0]])
    everywhere = attncli.read("x.csv", replacing=["parameters.w_q=w.csv"], header="no")
    np.testing.assert_array_equal(everywhere.parameters["w_q"], without)


@pytest.mark.usefixtures("folder")
def test_a_header_of_the_input_is_none_of_the_other_file():
    write("x.csv", "token,0,1\na,5,6\nb,7,8\n")
    write("w.csv", [[2, 1], [1, 3]])

    problem = attncli.read("x.csv", header="yes", replacing=["parameters.w_q=w.csv"])

    np.testing.assert_array_equal(problem.parameters["w_q"], [[2, 1], [1, 3]])
    assert problem.embeddings.tolist() == [[5, 6], [7, 8]]


@pytest.mark.parametrize(
    ("name", "text", "options", "expected"),
    [
        ("w.txt", "1 0 1\n0 1 0\n1 1 1\n", "", [[1, 0, 1], [0, 1, 0], [1, 1, 1]]),
        ("w.dat", "1;0,5;1\n0;1;0\n1;1;1\n", ":format=csv,separator=semicolon", [[1, 0.5, 1], [0, 1, 0], [1, 1, 1]]),
        ("w.csv", "id,a,b\n7,1,0\n8,0,1\n9,2,2\n", ":drop=id", [[1, 0], [0, 1], [2, 2]]),
        ("w.csv", "id,a,b\n7,1,0\n8,0,1\n9,2,2\n", ":columns=b,a", [[0, 1], [1, 0], [2, 2]]),
        ("w.csv", "id,a,b\n7,1,0\n8,0,1\n9,2,2\n", ":token-column=id,drop=b", [[1], [0], [2]]),
    ],
)
@pytest.mark.usefixtures("folder")
def test_options_of_one_file_stand_behind_its_path(name, text, options, expected):
    write(name, text)

    problem = attncli.read("x.csv", replacing=[f"parameters.w_q={name}{options}"])

    np.testing.assert_array_equal(problem.parameters["w_q"], expected)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("mask=m.csv:header=maybe", "header must be yes or no, not 'maybe'"),
        ("mask=m.csv:header=yes,header=no", "header must be yes or no, not 'no'"),
        ("parameters.w_q=m.csv:ones=visible", "ones is for masks"),
        ("mask=m.csv:separator=;", "separator must be comma, semicolon, tab, pipe or space"),
    ],
)
def test_options_of_one_file_that_cannot_be_are_refused(pair, message):
    with pytest.raises(OptionError, match=message):
        parse_assignment(pair)


def test_an_assignment_is_spelled_back_with_another_path():
    assignment = parse_assignment("mask=a:b/m.csv:header=no,columns=a,b,ones=hidden")

    assert assignment.path == "a:b/m.csv"
    assert assignment.options == {"header": "no", "columns": "a,b", "ones": "hidden"}
    assert parse_assignment(assignment.spell("/c.csv")) == assignment._replace(path="/c.csv")


# ── masks ────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "text",
    ["true,false\ntrue,true\n", "True,False\nTrue,True\n", "TRUE\tFALSE\nTRUE\tTRUE\n", "true false\ntrue true\n"],
)
@pytest.mark.usefixtures("folder")
def test_a_mask_is_read_as_any_program_writes_it(text):
    write("m.csv", text)

    mask = attncli.read("x.csv", replacing=["mask=m.csv"]).mask

    assert mask.dtype == bool
    assert mask.tolist() == [[True, False], [True, True]]


@pytest.mark.usefixtures("folder")
def test_a_mask_with_labels_is_read():
    write("m.csv", "query,cat,sat\ncat,True,False\nsat,True,True\n")

    assert attncli.read("x.csv", replacing=["mask=m.csv"]).mask.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("text", ["1,0\n1,1\n", "1.000e+00,0.000e+00\n1.000e+00,1.000e+00\n"])
@pytest.mark.usefixtures("folder")
def test_of_a_mask_of_0_and_1_it_is_asked_what_1_means_and_all_answers_work(text):
    write("m.csv", text)

    with pytest.raises(InputError, match="is 1 a key that is visible, or one that is hidden") as caught:
        attncli.read("x.csv", replacing=["mask=m.csv"])
    visible, hidden, bias = "mask=m.csv:ones=visible", "mask=m.csv:ones=hidden", "bias=m.csv"

    assert caught.value.code == "numeric-mask"
    assert all(f"--with {way_out} " in caught.value.help for way_out in (visible, hidden, bias))
    assert attncli.read("x.csv", replacing=[visible]).mask.tolist() == [[True, False], [True, True]]
    assert attncli.read("x.csv", replacing=[hidden]).mask.tolist() == [[False, True], [False, False]]
    assert attncli.read("x.csv", replacing=[bias]).bias.tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1,2\n1,1\n", "numeric-mask"),
        ("true,0\ntrue,true\n", "numeric-mask"),
        ("true,maybe\ntrue,true\n", "not-a-number"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_is_no_mask_is_refused(text, code):
    write("m.csv", text)

    with pytest.raises(InputError) as caught:
        attncli.read("x.csv", replacing=["mask=m.csv"], header="no")

    assert caught.value.code == code


@pytest.mark.parametrize("text", ["0,-inf\n0,0\n", "0.0 -Infinity\n0.0 0.0\n"])
@pytest.mark.usefixtures("folder")
def test_a_bias_may_hide_keys(text):
    write("b.txt", text)

    assert attncli.read("x.csv", replacing=["bias=b.txt"]).bias.tolist() == [[0, -np.inf], [0, 0]]
    with pytest.raises(InputError, match=r"-(inf|Infinity) is not allowed here"):
        attncli.read("b.txt", header="no") if "Inf" not in text else attncli.read(
            "x.csv", replacing=["parameters.w_q=b.txt"]
        )


# ── vectors ──────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("text", ["5\n3\n", "5,3\n"])
@pytest.mark.parametrize("name", ["positions", "parameters.b_q"])
@pytest.mark.usefixtures("folder")
def test_a_row_or_a_column_is_a_vector_where_the_field_holds_one(text, name):
    write("v.csv", text)

    problem = attncli.read("x.csv", replacing=[f"{name}=v.csv"])

    value = problem.positions if name == "positions" else problem.parameters["b_q"]
    assert value.tolist() == [5, 3]


# ── q, k and v ───────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("suffix", ["csv", "txt", "npy"])
@pytest.mark.usefixtures("folder")
def test_q_k_and_v_may_stand_in_three_files(suffix):
    arrays = {
        "q": np.array([[1.0, 2.0]]),
        "k": np.arange(6.0).reshape(3, 2) + 0.5,
        "v": np.arange(12.0).reshape(3, 4) + 0.25,
    }
    for name, array in arrays.items():
        if suffix == "npy":
            np.save(f"{name}.npy", array)
        else:
            np.savetxt(f"{name}.{suffix}", array, delimiter="," if suffix == "csv" else " ")

    problem = attncli.read(f"q.{suffix}", replacing=[f"k=k.{suffix}", f"v=v.{suffix}"])
    result = attncli.attend(problem, attncli.Variant(scale="none"))

    scores = arrays["q"] @ arrays["k"].T
    weights = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    np.testing.assert_allclose(result["context"].values, weights @ arrays["v"], rtol=1e-12)
    assert problem.embeddings is None


@pytest.mark.usefixtures("folder")
def test_labels_of_q_and_k_are_theirs():
    write("k.csv", "le,1,2,3\nchat,4,5,6\nassis,7,8,9\n")

    problem = attncli.read("x.csv", replacing=["k=k.csv", "v=k.csv"])

    assert (problem.tokens, problem.k_tokens) == (("cat", "sat"), ("le", "chat", "assis"))


@pytest.mark.usefixtures("folder")
def test_embeddings_that_are_called_so_are_not_taken_for_q():
    write("p.json", json.dumps({"embeddings": X}))

    with pytest.raises(AttnError) as caught:
        attncli.read("p.json", replacing=["k=x.csv", "v=x.csv"])

    assert caught.value.code == "two-sources"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("y.json", json.dumps({"tokens": ["le", "chat", "dort"], "embeddings": X + X[:1]})),
        ("y.csv", "le,1,2,3\nchat,4,5,6\ndort,7,8,9\n"),
        (
            "y.jsonl",
            "".join(json.dumps({"token": t, "embedding": x}) + "\n" for t, x in zip("abc", X + X[:1], strict=True)),
        ),
    ],
)
@pytest.mark.usefixtures("folder")
def test_vectors_of_other_tokens_are_no_learned_matrix(name, text):
    write(name, text)

    with pytest.raises(InputError, match="it holds the vectors of 3 tokens, which are not w_q") as caught:
        attncli.read("x.csv", replacing=[f"parameters.w_q={name}"])

    assert (caught.value.code, caught.value.location.file) == ("missing-field", name)
    if name == "y.csv":
        assert caught.value.help.endswith("--with parameters.w_q=FILE:drop=0")
        followed = attncli.read("x.csv", replacing=["parameters.w_q=y.csv:drop=0"])
        assert followed.parameters["w_q"].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert attncli.read("x.csv", replacing=[f"memory={name}"]).memory["embeddings"].shape == (3, 3)


@pytest.mark.usefixtures("folder")
def test_a_table_of_columns_names_the_options_that_reach_it():
    import polars

    polars.DataFrame({"d0": [1.0], "freq": [2]}).write_parquet("y.parquet")

    with pytest.raises(InputError) as caught:
        attncli.read("x.csv", replacing=["memory=y.parquet"])

    ways = [way.split(" ")[1] for way in caught.value.help.split("; ")]
    assert [attncli.read("x.csv", replacing=[way]).memory["embeddings"].tolist() for way in ways] == [
        [[1.0]],
        [[1.0, 2.0]],
    ]


def test_a_learned_array_is_sent_below_parameters_by_a_way_out_that_works(attn):
    write("x.csv", "the,1,0\ncat,2,1\n")
    write("w.csv", "1,2\n0,3\n")

    refused = attn("compute", "x.csv", "--with", "w_q=w.csv")
    way_out = refused.err.rpartition("--with ")[2].strip()
    both = [word for letter in "kv" for word in ("--with", f"parameters.w_{letter}=w.csv")]
    followed = attn("compute", "x.csv", "--with", way_out, *both, "--json", "--only", "q")

    assert (refused.status, way_out) == (2, "parameters.w_q=w.csv")
    assert json.loads(followed.out)["q"] == [[1.0, 2.0], [2.0, 7.0]]


@pytest.mark.parametrize("name", ["m.npy", "m.json", "words.csv", "n.npy", "n.json"])
@pytest.mark.parametrize("ones", ["visible", "hidden"])
@pytest.mark.usefixtures("folder")
def test_what_1_means_in_a_mask_holds_for_every_format(name, ones):
    mask = np.array([[True, False], [True, True]])
    write("x.csv", "the,1,0\ncat,2,1\n")
    write("words.csv", "true,false\ntrue,true\n")
    Path("m.json").write_text(json.dumps(mask.tolist()))
    Path("n.json").write_text(json.dumps(mask.astype(int).tolist()))
    np.save("m.npy", mask)
    np.save("n.npy", mask.astype(np.int64))

    problem = attncli.read("x.csv", replacing=[f"mask={name}:ones={ones}"])

    np.testing.assert_array_equal(problem.mask, mask if ones == "visible" else ~mask)


@pytest.mark.parametrize("option", ["header=no", "separator=comma", "token-column=0", "columns=0,1", "drop=0"])
@pytest.mark.usefixtures("folder")
def test_options_of_columns_are_refused_for_arrays_which_have_none(option):
    write("x.csv", "the,1,0\ncat,2,1\n")
    np.save("b.npy", np.ones((2, 2)))

    with pytest.raises(OptionError, match=rf"--with bias: {option.partition('=')[0]} is about the columns of a table"):
        attncli.read("x.csv", replacing=[f"bias=b.npy:{option}"])


@pytest.mark.parametrize("option", [{"columns": "0,1"}, {"drop": "0"}, {"token_column": "0"}])
def test_the_same_holds_for_the_input(option, attn):
    np.save("x.npy", np.ones((2, 3)))
    name, value = next(iter(option.items()))

    with pytest.raises(
        OptionError, match=f"--{name.replace('_', '-')} is about the columns of a table, but x.npy holds"
    ):
        attncli.read("x.npy", **option)
    assert attn("compute", "x.npy", f"--{name.replace('_', '-')}", value).status == 2
    for text in ("[[1, 0, 2], [0, 1, 3]]", '{"embeddings": [[1, 0, 2], [0, 1, 3]]}'):
        write("x.json", text)
        assert attn("compute", "x.json", f"--{name.replace('_', '-')}", value).status == 2
