"""Figures are read from every format that attn writes, in every layout."""

from __future__ import annotations

import numpy as np
import pytest

from tests.check.faulty import Case
from tests.helpers import SAMPLES

CAT_SAT = SAMPLES / "cat_sat.json"


def claimed(case, attn, tmp_path, *words):
    """A result as the program writes it, and the problem it is of."""
    arrays = {name: np.asarray(x) for name, x in case.fields.items() if name != "parameters"}
    np.savez(tmp_path / "p.npz", **arrays, **{f"parameters.{k}": x for k, x in case.fields["parameters"].items()})
    choices = [w for k, x in case.choices.items() for w in ("--" + k.replace("_", "-"), x)]
    return ["p.npz", *choices]


@pytest.mark.parametrize("file", ["r.json", "r.npz", "r.safetensors", "r.csv", "r.tsv"])
@pytest.mark.parametrize("only", ["all", "weights", "q,k,head_context"])
def test_what_attn_writes_is_right(attn, tmp_path, file, only):
    problem = claimed(Case(0, mask="causal"), attn, tmp_path)
    assert attn("compute", *problem, "--only", only, "-o", file).status == 0

    run = attn("check", *problem, "--figures", file, "--json")

    assert (run.status, run.json["verdict"]) == (0, "right"), run.err
    assert len(run.json["steps"]) == {"all": 19, "weights": 1, "q,k,head_context": 3}[only]


@pytest.mark.parametrize("file", ["r.json", "r.csv"])
def test_a_part_of_a_result_is_checked_where_it_is(attn, tmp_path, file):
    problem = claimed(Case(0), attn, tmp_path)
    attn("compute", *problem, "--only", "weights,context", "--at", "query=2:4", "--at", "head=1", "-o", file)

    run = attn("check", *problem, "--figures", file, "--json")
    other = attn("check", *problem, "--mask", "causal", "--figures", file, "--json", "--no-identify")

    assert (run.status, run.json["verdict"]) == (0, "right"), run.err
    assert other.status == 1
    assert other.json["steps"][0]["at"]["query"] in (2, 3)
    assert other.json["steps"][0]["at"]["head"] == 1


@pytest.mark.slow
def test_csv_matrices_need_their_step(attn, tmp_path):
    for selected in ([], ["--at", "query=sat"]):
        attn("compute", CAT_SAT, "--only", "weights", *selected, "-o", "w.csv", "--force")

        assert attn("check", CAT_SAT, "--figures", "w.csv", "--step", "weights").status == 0
        run = attn("check", CAT_SAT, "--figures", "w.csv")
        assert (run.status, "error[missing-option]" in run.err) == (2, True)
    (tmp_path / "bare.csv").write_text("0.38,0.23,0.38\n0.06,0.77,0.17\n0.10,0.16,0.74\n")
    assert attn("check", CAT_SAT, "--figures", "bare.csv", "--step", "weights").status == 0
    (tmp_path / "bare.csv").write_text("0.38;0,23;0,38\n0,06;0,77;0,17\n0,10;0,16;0,75\n")
    assert attn("check", CAT_SAT, "--figures", "bare.csv", "--step", "weights", "--no-identify").status == 1


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ('{"weights": [[0.38, 0.23, 0.38], [0.06, 0.77, 0.17], [0.10, 0.16, 0.74]]}', 0),
        ('{"weights": {"values": [[0.06, 0.77, 0.17]], "rows": [1]}}', 0),
        ('{"weights": {"values": [[0.06], [0.10]], "rows": [1, 2], "columns": [0]}}', 0),
        ('{"weights": {"values": [[0.06, 0.77, 0.18]], "rows": [1]}}', 1),
        ('{"weights": {"values": [[0.06, 0.77, 0.18]], "rows": [1], "atol": 0.02}}', 0),
        ('{"weights": {"values": [[0.06, 0.77, 0.17]]}}', 3),
        ('{"weigths": [[0.06, 0.77, 0.17]]}', 3),
        ('{"output": [[0.06, 0.77, 0.17]]}', 3),
        ('{"weights": [[0.06, "a", 0.17]]}', 3),
        ('{"weights": [[0.06, 0.17], [1]]}', 3),
        ('{"weights": {"values": [[0.06, 0.77, 0.17]], "rows": [7]}}', 3),
        ("[[0.38, 0.23, 0.38], [0.06, 0.77, 0.17], [0.10, 0.16, 0.74]]", 2),
        ("{", 3),
        ("7", 3),
    ],
)
def test_json_figures(attn, tmp_path, text, status):
    (tmp_path / "mine.json").write_text(text)

    run = attn("check", CAT_SAT, "--figures", "mine.json", "--no-identify")

    assert run.status == status, run.err
    assert "Traceback" not in run.err


def test_a_problem_is_checked_by_what_another_expects(attn, tmp_path):
    (tmp_path / "mine.json").write_text(
        '{"embeddings": [[1]], "expected": {"weights": {"values": [[0.1, 0.16, 0.74]], "rows": [2]}}}'
    )

    assert attn("check", CAT_SAT, "--figures", "mine.json").status == 0


@pytest.mark.parametrize(
    ("shape", "layout", "code"),
    [
        ((1, 4, 5, 2), None, ""),  # (B, H, T, d)
        ((4, 5, 2), None, ""),
        ((1, 5, 4, 2), None, ""),  # (B, T, H, d)
        ((1, 5, 8), None, ""),  # (B, T, H·d)
        ((5, 8), None, ""),
        ((1, 5, 4, 2), "bthd", ""),
        ((1, 5, 4, 2), "bhtd", "wrong-shape"),
        ((1, 8, 5), None, "wrong-shape"),
    ],
)
def test_layouts(attn, tmp_path, shape, layout, code):
    problem = claimed(Case(0, tokens=5, width=8, heads=4), attn, tmp_path)
    attn("compute", *problem, "--only", "q", "-o", "q.npz")
    q = np.load(tmp_path / "q.npz")["q"]  # (h, t, d)
    rows = q.transpose(1, 0, 2) if shape[-1] == 8 or (shape[1:2] == (5,) and len(shape) == 4) else q
    np.save(tmp_path / "mine.npy", rows.reshape(shape))

    run = attn("check", *problem, "--figures", "mine.npy", "--step", "q", *(["--layout", layout] if layout else []))

    assert run.status == (3 if code else 0), run.err + run.out
    assert code in run.err


def test_a_layout_that_may_be_two_is_asked_for(attn, tmp_path):
    problem = claimed(Case(0, tokens=4, width=8, heads=4), attn, tmp_path)
    attn("compute", *problem, "--only", "q", "-o", "q.npz")
    q = np.load(tmp_path / "q.npz")["q"]
    np.savez(tmp_path / "mine.npz", q=q.swapaxes(0, 1)[None])

    def run(*layout):
        return attn("check", *problem, "--figures", "mine.npz", "--no-identify", *layout)

    assert (run().status, "error[ambiguous-layout]" in run().err) == (3, True)
    assert (run("--layout", "bthd").status, run("--layout", "bhtd").status) == (0, 1)


def test_the_context_of_a_kernel_comes_in_heads(attn, tmp_path):
    problem = claimed(Case(0, tokens=5, width=12, heads=3), attn, tmp_path)
    attn("compute", *problem, "--only", "head_context", "-o", "c.npz")
    np.save(tmp_path / "mine.npy", np.load(tmp_path / "c.npz")["head_context"][None])

    assert attn("check", *problem, "--figures", "mine.npy", "--step", "context").status == 0
