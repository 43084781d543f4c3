"""Parquet, Arrow and Feather: files of pandas, pyarrow and Polars are read as what they hold, and damaged ones refused."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import numpy as np
import polars
import pytest

import attncli
from attncli.errors import AttnError, InputError
from attncli.readers import find_reader, parse_problem
from attncli.readers.arrow_sizes import count_parquet_bytes

FILES = Path(__file__).parent / "files"
TOKENS = ("the", "to", "U.S.", "<unk>")
VECTORS = [[2.0409, -2.5557, 0.4181], [-0.5678, -0.4526, -0.2156], [-2.02, -0.2319, -0.8652], [3.323, 0.2258, -0.3526]]
FRAME = polars.DataFrame({"token": TOKENS, **{f"d{i}": [row[i] for row in VECTORS] for i in range(3)}})
LISTS = polars.DataFrame({"id": [7, 8, 9, 10], "text": TOKENS, "embedding": VECTORS})


def bytes_of(write) -> bytes:
    out = io.BytesIO()
    write(out)
    return out.getvalue()


def parquet(frame: polars.DataFrame, **options) -> bytes:
    return bytes_of(lambda out: frame.write_parquet(out, **options))


def arrow(frame: polars.DataFrame, **options) -> bytes:
    return bytes_of(lambda out: frame.write_ipc(out, **options))


def read(data: bytes, format_name: str = "parquet", **options):
    return parse_problem(data, "test", find_reader("test", format_name), **options)


def test_a_page_of_less_than_no_values_is_refused_before_it_is_decoded():
    data = (FILES / "negative_count.parquet").read_bytes()  # of which Polars takes −23 for 2**64 − 23, and aborts

    with pytest.raises(ValueError, match="a page has a size below 0"):
        count_parquet_bytes(data, {"d1"})
    with pytest.raises(InputError, match="a page has a size below 0"):
        read(data)


def test_pages_of_other_values_than_their_column_declares_are_refused():
    data = parquet(FRAME, compression="uncompressed", statistics=False)
    sizes = count_parquet_bytes(data, {"d0"})
    place = data.rindex(b"\x16\x08\x16")  # the number of values, 4, before the sizes of the last column
    damaged = data[: place + 1] + b"\x0a" + data[place + 2 :]

    assert sizes["d0"] > 0
    with pytest.raises(InputError, match="the pages of a column hold 4 values, but 5 are declared"):
        read(damaged)


@pytest.mark.parametrize(
    "name",
    ["pandas.parquet", "pandas_labels.parquet", "pandas_lists.parquet", "pandas.feather", "pyarrow_lists.parquet"],
)
def test_what_pandas_and_pyarrow_write_is_read(name):
    problem = attncli.read(FILES / name)

    np.testing.assert_array_equal(problem.embeddings, VECTORS)
    assert problem.tokens == TOKENS
    assert problem.embeddings[0] @ problem.embeddings[0] == pytest.approx(10.8717, abs=5e-5)


@pytest.mark.parametrize("name", ["pyarrow_fixed_size.parquet", "pyarrow_lz4.feather", "pyarrow_stream.arrow"])
def test_lists_of_a_fixed_size_and_a_dictionary_of_words_are_read_in_float32(name):
    problem = attncli.read(FILES / name)

    np.testing.assert_array_equal(problem.embeddings, np.array(VECTORS, np.float32))
    assert problem.embeddings.dtype == np.float32
    assert problem.tokens == TOKENS


@pytest.mark.parametrize("frame", [FRAME, LISTS], ids=["columns", "lists"])
@pytest.mark.parametrize(
    ("format_name", "write"),
    [
        ("parquet", lambda f: parquet(f, compression="zstd")),
        ("parquet", lambda f: parquet(f, compression="snappy", row_group_size=3)),
        ("parquet", lambda f: parquet(f, compression="uncompressed", data_page_size=8)),
        ("arrow", arrow),
        ("arrow", lambda f: arrow(f, compression="zstd")),
        ("arrow", lambda f: bytes_of(lambda out: f.write_ipc_stream(out, compression="lz4"))),
    ],
)
def test_what_polars_writes_is_read(frame, format_name, write):
    problem = read(write(frame), format_name)

    np.testing.assert_array_equal(problem.embeddings, VECTORS)
    assert problem.tokens == TOKENS


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (polars.Float32, np.float32),
        (polars.Int64, np.float64),
        (polars.UInt8, np.float64),
        (polars.Decimal(10, 2), np.float64),
    ],
    ids=str,
)
def test_numbers_of_every_type_keep_their_values(dtype, kept):
    frame = polars.DataFrame({"a": [1, 2], "b": [3, 200]}).cast(dtype)

    for problem in (read(parquet(frame)), read(parquet(frame.select(embedding=polars.concat_list("a", "b"))))):
        assert problem.embeddings.dtype == kept
        assert problem.embeddings.tolist() == [[1, 3], [2, 200]]


def test_what_was_found_is_said():
    assert read(parquet(LISTS)).notes == (
        "test: 4 tokens × 3 dims, vectors from column 'embedding', token column 'text', left out: 'id'",
    )
    assert read(parquet(FRAME)).notes == ("test: 4 tokens × 3 dims, token column 'token'",)


# ── columns that are asked about ─────────────────────────────────────────────────────────────────
SAME = polars.DataFrame({"freq": [900, 12, 5, 1]})
ASKED = {
    "a frequency": (FRAME.hstack(SAME), "unclear-columns", {"drop": "freq"}, "--drop freq"),
    "a split of words": (
        FRAME.with_columns(lang=polars.lit("en")), "unclear-tokens", {"token_column": "token"}, "--token-column token or --token-column lang",
    ),
    "an id in front": (FRAME.drop("token").select(polars.Series("id", [0, 1, 2, 3]), polars.all()), "unclear-tokens", {"drop": "id"}, "--drop id"),
    "booleans": (FRAME.with_columns(flag=polars.lit(True)), "unclear-columns", {"drop": "flag"}, "--drop flag"),
    "a struct": (FRAME.with_columns(s=polars.struct("d0", "d1")), "unclear-columns", {"drop": "s"}, "--drop s"),
    "two vectors": (LISTS.with_columns(other=polars.col("embedding").list.reverse()), "two-readings", {"columns": "embedding"}, "--columns embedding"),
    "numbers beside a vector": (LISTS.with_columns(height=polars.lit(1.5)), "unclear-columns", {"columns": "embedding"}, "--columns embedding"),
}  # fmt: skip


@pytest.mark.parametrize("case", ASKED)
@pytest.mark.parametrize(("format_name", "write"), [("parquet", parquet), ("arrow", arrow)])
def test_what_is_unclear_is_asked_and_the_way_out_works(case, format_name, write):
    frame, code, options, spelled = ASKED[case]

    with pytest.raises(InputError) as caught:
        read(write(frame), format_name)
    problem = read(write(frame), format_name, **options)

    assert caught.value.code == code
    assert spelled in caught.value.help
    np.testing.assert_array_equal(problem.embeddings, VECTORS)


def test_columns_are_chosen_by_name_and_by_place():
    assert read(parquet(FRAME), columns="d2,1").embeddings.tolist() == [[row[2], row[0]] for row in VECTORS]
    assert read(parquet(LISTS), token_column="id").tokens == ("7", "8", "9", "10")
    assert read(parquet(LISTS), token_column="none").tokens is None
    with pytest.raises(InputError, match="there is no column 'd7'"):
        read(parquet(FRAME), columns="d7")
    with pytest.raises(InputError, match="holds texts, not numbers"):
        read(parquet(FRAME), columns="token,d0")


@pytest.mark.parametrize(
    ("frame", "code", "path"),
    [
        (FRAME.with_columns(d1=polars.Series([1.0, None, 2.0, 3.0])), "empty-cell", "d1[1]"),
        (FRAME.with_columns(d2=polars.Series([1.0, 2.0, float("nan"), 3.0])), "not-finite", "d2[2]"),
        (FRAME.with_columns(d0=polars.Series([1.0, 2.0, 3.0, float("-inf")])), "not-finite", "d0[3]"),
        (FRAME.with_columns(token=polars.Series(["a", "b", None, "c"])), "empty-cell", "token[2]"),
        (LISTS.with_columns(embedding=polars.Series([[1.0], [2.0], [3.0, 4.0], [5.0]])), "ragged", "embedding[2]"),
        (LISTS.with_columns(embedding=polars.Series([[1.0, 2.0], [3.0, None], [3.0, 4.0], [5.0, 6.0]])), "empty-cell", "embedding[1]"),
        (LISTS.with_columns(embedding=polars.Series([[1.0], None, [3.0], [5.0]])), "empty-cell", "embedding[1]"),
        (LISTS.with_columns(embedding=polars.Series([[1.0], [float("inf")], [3.0], [5.0]])), "not-finite", "embedding[1]"),
        (FRAME.clear(), "empty", ""),
        (FRAME.select("token"), "not-a-number", ""),
    ],
)  # fmt: skip
def test_what_is_missing_or_not_finite_is_refused_with_its_place(frame, code, path):
    for data, format_name in ((parquet(frame), "parquet"), (arrow(frame), "arrow")):
        with pytest.raises(InputError) as caught:
            read(data, format_name)
        assert (caught.value.code, caught.value.location.path) == (code, path)


# ── damage and cost ──────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("format_name", "data"),
    [
        ("parquet", parquet(LISTS)),
        ("arrow", arrow(LISTS, compression="lz4")),
        ("arrow", bytes_of(FRAME.write_ipc_stream)),
    ],
    ids=["parquet", "arrow", "stream"],
)
def test_every_cut_and_changed_byte_is_read_or_refused(format_name, data, capfd):
    rng = random.Random(3)
    refused = 0
    for i in range(0, len(data), 7):
        for damaged in (data[:i], data[:i] + rng.randbytes(2) + data[i + 2 :]):
            try:
                read(damaged, format_name)
            except AttnError:  # anything else fails
                refused += 1

    assert refused > len(data) // 7
    assert capfd.readouterr().err == ""  # a panic of Rust is not seen


@pytest.mark.parametrize(
    ("format_name", "data"),
    [
        ("parquet", parquet(polars.DataFrame({"a": np.zeros(2_000_000)}))),
        ("parquet", parquet(polars.DataFrame({"embedding": [np.zeros(2_000_000).tolist()]}))),
        ("parquet", parquet(polars.DataFrame({"a": np.zeros(20_000), "token": ["x" * 10_000] * 20_000}))),
        ("arrow", arrow(polars.DataFrame({"a": np.zeros(2_000_000)}), compression="zstd")),
        ("arrow", bytes_of(lambda out: polars.DataFrame({"a": np.zeros(2_000_000)}).write_ipc_stream(out, compression="zstd"))),
    ],
    ids=["column", "list", "labels", "file", "stream"],
)  # fmt: skip
def test_a_small_file_that_unpacks_to_much_is_refused_before_it_is_unpacked(monkeypatch, format_name, data):
    def fail(*args, **options):
        raise AssertionError("it is unpacked")

    assert len(data) < 100_000
    monkeypatch.setattr("polars.Series.to_list", fail)
    if b"token" not in data:  # a text that stands many times takes no more memory until it is a label
        for name in ("read_parquet", "read_ipc", "read_ipc_stream"):
            monkeypatch.setattr(f"polars.{name}", fail)

    with pytest.raises(InputError) as caught:
        read(data, format_name)

    assert caught.value.code == "too-compressed"


def test_zeros_that_fit_are_read_and_the_way_out_of_others_works():
    zeros = polars.DataFrame({"a": np.zeros(1_000_000, np.float32)})

    assert read(parquet(zeros.head(100_000))).embeddings.shape == (100_000, 1)
    with pytest.raises(InputError) as caught:
        read(parquet(zeros))
    assert "polars.read_parquet('FILE').write_ipc('NEW.arrow')" in caught.value.help
    assert read(arrow(polars.read_parquet(io.BytesIO(parquet(zeros)))), "arrow").embeddings.shape == (1_000_000, 1)


@pytest.mark.parametrize(
    "error", [polars.exceptions.PanicException("a panic"), OSError("odd"), SystemError()], ids=repr
)
@pytest.mark.parametrize("function", ["read_parquet", "read_parquet_schema"])
def test_whatever_polars_raises_is_the_inputs_error(monkeypatch, function, error):
    def fail(*args, **options):
        raise error

    data = parquet(FRAME)
    monkeypatch.setattr(f"polars.{function}", fail)

    with pytest.raises(InputError, match="not a complete Parquet file") as caught:
        read(data)
    assert caught.value.code == "bad-file"


# ── elsewhere ────────────────────────────────────────────────────────────────────────────────────
def test_other_fields_and_figures_are_taken_from_them(attn, tmp_path):
    (tmp_path / "x.parquet").write_bytes(parquet(FRAME))
    polars.DataFrame({"a": [1.0, 0.0, 2.0], "b": [0.0, 1.0, 3.0]}).write_ipc(tmp_path / "w.arrow")
    weights = attncli.attend(attncli.read(tmp_path / "x.parquet"))["weights"].values
    (tmp_path / "w.parquet").write_bytes(
        parquet(polars.DataFrame(weights, schema=list(TOKENS)).select(polars.Series("token", TOKENS), polars.all()))
    )

    problem = attncli.read(tmp_path / "x.parquet", replacing=[f"parameters.w_q={tmp_path / 'w.arrow'}"])
    right = attn("check", "x.parquet", "--figures", "w.parquet", "--step", "weights")
    wrong = attn("check", "x.parquet", "--figures", "w.parquet", "--step", "weights", "--causal", "--no-identify")

    assert problem.parameters["w_q"].tolist() == [[1, 0], [0, 1], [2, 3]]
    assert right.out.splitlines()[-1] == "right: all of 16 figures"
    assert wrong.status == 1


def test_a_batch_takes_them_from_a_folder(attn, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.parquet").write_bytes(parquet(FRAME))
    (tmp_path / "in" / "y.feather").write_bytes(arrow(LISTS))

    attn("batch", "in", "-o", "out", "--only", "scores")

    for name in ("x.json", "y.json"):
        assert json.loads((tmp_path / "out" / name).read_text())["scores"][0][0] == pytest.approx(10.8717, abs=5e-5)
