"""Figures as people write them."""

from __future__ import annotations

import gzip
import json

import pytest
import zstandard

from tests.helpers import SAMPLES

CAT_SAT = SAMPLES / "cat_sat.json"


@pytest.mark.parametrize("text", ["−∞", "-∞", "-inf", "−inf", "-Infinity", "_-∞_"])
def test_a_gap_may_hold_minus_infinity(attn, tmp_path, text):
    (tmp_path / "sheet.md").write_text(f"⟨1⟩{text} ⟨2⟩∞ ⟨3⟩NaN ⟨4⟩____\n\n⟨1⟩ to ⟨2⟩: masked_scores[0][1:3]\n"
                                       "⟨3⟩ to ⟨4⟩: masked_scores[1][1:3]\n", encoding="utf-8")  # fmt: skip

    words = ["check", CAT_SAT, "--causal", "--figures", "sheet.md", "--no-identify"]
    run, table = attn(*words, "--json"), attn(*words).out

    assert [a["right"] for a in run.json["answers"]] == [True, False, False, None]
    assert run.json["answers"][3]["reference"] == "-Infinity"
    assert table.count("−∞") >= 2


@pytest.mark.parametrize(
    "text",
    ["0.5x", "1/2", "sqrt(2)", "√2", "__0.5x__", "__1/2__", "-√2", "50%", "____√2", "infinite", "7-0.19", "0.5+1"],
)
def test_what_is_no_number_in_a_gap_is_refused(attn, tmp_path, text):
    (tmp_path / "sheet.md").write_text(f"a ⟨1⟩{text} b\n\n⟨1⟩: weights[0][0]\n", encoding="utf-8")

    run = attn("check", CAT_SAT, "--figures", "sheet.md")

    assert (run.status, "error[not-a-number]: gap 1 holds" in run.err) == (3, True), run.err


@pytest.mark.parametrize("text", ["0,38;0,23;0,38\n0,06;0,77;0,17\n0,10;0,16;0,74\n", "token;the;cat;sat\nthe;0,38;0,23;0,38\ncat;0,06;0,77;0,17\nsat;0,10;0,16;0,74\n"])  # fmt: skip
def test_tables_with_decimal_commas(attn, tmp_path, text):
    (tmp_path / "mine.csv").write_text(text)

    assert attn("check", CAT_SAT, "--figures", "mine.csv", "--step", "weights").status == 0


WEIGHTS = "0.38,0.23,0.38\n0.06,0.77,0.17\n0.10,0.16,0.74\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.csv", WEIGHTS),
        ("r.tsv", "step\tquery\tkey\tvalue\nweights\t0\t0\t0.38\nweights\t1\t2\t0.17\n"),
        ("r.json", '{"weights": [[0.38, 0.23, 0.38], [0.06, 0.77, 0.17], [0.10, 0.16, 0.74]]}'),
        ("r.md", "⟨1⟩0.38\n\n⟨1⟩: weights[0][0]\n"),
    ],
)
@pytest.mark.parametrize("suffix", [".gz", ".zst", ""])
def test_packed_texts_are_read(attn, tmp_path, name, text, suffix):
    pack = zstandard.compress if suffix == ".zst" else gzip.compress
    (tmp_path / f"{name}{suffix}").write_bytes(pack(text.encode()))
    (tmp_path / f"wrong.csv{suffix}").write_bytes(pack(WEIGHTS.replace("0.77", "0.71").encode()))

    step = ["--step", "weights"]
    assert attn("check", CAT_SAT, "--figures", f"{name}{suffix}", *(step if name == "r.csv" else [])).status == 0
    assert attn("check", CAT_SAT, "--figures", f"wrong.csv{suffix}", *step, "--no-identify").status == 1


def test_arrays_of_figures_are_not_read_packed(attn, tmp_path):
    (tmp_path / "r.npy.gz").write_bytes(gzip.compress(b"x"))

    run = attn("check", CAT_SAT, "--figures", "r.npy.gz")

    assert (run.status, "help: unpack it first: gunzip -k r.npy.gz" in run.err) == (2, True), run.err


@pytest.mark.parametrize(
    "text", ["1/3,1/3,1/3\n", "a,b,c\n1/3,1/3,1/3\n", "the,1/3,1/3,1/3\ncat,0,1/2,1/2\nsat,1,0,0\n"]
)
def test_a_fraction_is_pointed_at(attn, tmp_path, text):
    (tmp_path / "r.csv").write_text(text)

    run = attn("check", CAT_SAT, "--figures", "r.csv", "--step", "weights")

    assert (run.status, "'1/3' is where a number should be" in run.err) == (3, True), run.err
    assert "fractions are not read: write decimal numbers, 0.3333" in run.err


@pytest.mark.parametrize(
    ("name", "text", "status", "said"),
    [
        ("r.ndjson", '{"weights": [[0.38, 0.23, 0.38], [0.06, 0.77, 0.17], [0.10, 0.16, 0.74]]}\n', 0, "right"),
        ("r.ndjson", '{"weights": [[1]]}\n{"weights": [[1]]}\n', 3, "it holds 2 results"),
        ("r.xlsx", "PK", 2, "unknown-format"),
        ("r.yaml", "weights: 1", 2, "unknown-format"),
        ("r.rst", "⟨1⟩0.38\n\n⟨1⟩: weights[0][0]\n", 0, "right"),
        ("r.csv", "0.38,0.2x,0.38\n0.06,0.77,0.17\n0.10,0.16,0.74\n", 3, "r.csv:1:2"),
        ("r.csv", "the,0.38,0.2x,0.38\ncat,0.06,0.77,0.17\nsat,0.10,0.16,0.74\n", 3, "r.csv:1:3"),
        ("r.json", '{"weights": [[0.06, "a", 0.17]]}', 3, "$.weights[0][1]"),
        ("r.json", '{"weights": {"values": [[0.06, "a", 0.17]], "rows": [1]}}', 3, "$.weights.values[0][1]"),
        ("r.json", '{"weights": {"values": [[0.06, 0.77, 0.17]], "rows": [7]}}', 3, "3 queries"),
    ],
)  # fmt: skip
def test_files_of_figures(attn, tmp_path, name, text, status, said):
    (tmp_path / name).write_text(text, encoding="utf-8")

    run = attn(
        "check", CAT_SAT, "--figures", name, *(["--step", "weights"] if name == "r.csv" else []), "--no-identify"
    )

    assert (run.status, said in run.out + run.err) == (status, True), run.out + run.err


@pytest.mark.parametrize(("inputs", "line", "said"), [("aba", 3, "'a' and 'b'"), ("aab", 4, "'a' and 'b'"), ("ba", 3, "'b' and 'a'")])  # fmt: skip
def test_rows_of_several_inputs_are_refused_where_the_second_begins(attn, tmp_path, inputs, line, said):
    rows = [f"{name}.csv,weights,0,{i},0.3" for i, name in enumerate(inputs)]
    (tmp_path / "r.csv").write_text("\n".join(["source,step,query,key,value", *rows]) + "\n")

    run = attn("check", CAT_SAT, "--figures", "r.csv")

    said = said.replace("'a'", "'a.csv'").replace("'b'", "'b.csv'")
    assert (run.status, f"r.csv:{line}" in run.err, f"several inputs: source is {said}" in run.err) == (3, True, True)


def test_one_result_of_a_stream_is_read(attn, tmp_path):
    attn("compute", CAT_SAT, "--only", "weights", "-o", "r.json")
    (tmp_path / "r.ndjson").write_text(json.dumps(json.loads((tmp_path / "r.json").read_text())) + "\n")

    assert attn("check", CAT_SAT, "--figures", "r.ndjson").status == 0
