"""Which cell each figure is: layouts of a batch, tables with labels, and kernels' contexts."""

from __future__ import annotations

import dataclasses
from array import array
from types import SimpleNamespace

import numpy as np
import pytest

import attncli
from attncli.check import check
from attncli.check.claims import _align_cells, describe_cell, largest_claimed_rank
from attncli.check.figure_files.csv import _is_header, _Table
from attncli.check.figures import figures_from_arrays
from attncli.errors import InputError
from attncli.plan import make_plan
from tests.helpers import draw_normal

B, H, T, D = 2, 3, 5, 4


@pytest.fixture
def batch():
    """A batch in heads, and its steps (b, h, t, d)."""
    q, k, v = (draw_normal(seed, B, H, T, D) for seed in (1, 2, 3))
    problem = attncli.Problem(q=q, k=k, v=v)
    return problem, q, attncli.attend(problem)["head_context"].values


def is_right(problem, **claims):
    return check(problem, None, figures_from_arrays(claims), identify=False).verdict == "right"


@pytest.mark.parametrize(
    "rearrange",
    [
        lambda x: x,  # b h t d
        lambda x: x.swapaxes(1, 2),  # b t h d
        lambda x: x.swapaxes(1, 2).reshape(B, T, H * D),  # b t (h d)
    ],
)
@pytest.mark.parametrize("step", ["q", "head_context", "context"])
def test_figures_of_a_batch_are_right_in_every_layout(batch, step, rearrange):
    problem, q, z = batch
    values = rearrange(q if step == "q" else z)

    assert is_right(problem, **{step: values})
    assert not is_right(problem, **{step: values[::-1]})  # the other item first


def test_the_heads_of_one_item_are_its_own_in_every_layout(batch):
    problem, q, _ = batch
    alone = attncli.Problem(q=q[:1], k=problem.k[:1], v=problem.v[:1])

    assert is_right(alone, q=q[0].swapaxes(0, 1))
    assert is_right(alone, q=q[0])
    assert not is_right(alone, q=q[0, ::-1])


@pytest.mark.parametrize(
    ("labels", "found"),
    [("a c", True), ("c a", False)],  # a label names its row, in any order
)
def test_a_table_of_some_rows_is_found_by_their_labels(attn, tmp_path, labels, found):
    (tmp_path / "p.csv").write_text("token,x,y\na,1,0\nb,0,1\nc,1,1\n")
    weights = attncli.attend(attncli.Problem(embeddings=[[1, 0], [0, 1], [1, 1]]))["weights"].values
    rows = [f"{label},{','.join(map(str, weights[i]))}" for label, i in zip(labels.split(), (0, 2), strict=True)]
    (tmp_path / "mine.csv").write_text("\n".join(["token,a,b,c", *rows]))

    run = attn("check", "p.csv", "--figures", "mine.csv", "--step", "weights", "--no-identify")

    assert run.status == (0 if found else 1), run.err


def test_labels_that_name_two_rows_find_none(attn, tmp_path):
    (tmp_path / "p.csv").write_text("token,x,y\na,1,0\na,0,1\nc,1,1\n")
    (tmp_path / "mine.csv").write_text("token,a,a,c\na,0.1,0.2,0.7\nc,0.1,0.2,0.7\n")

    run = attn("check", "p.csv", "--figures", "mine.csv", "--step", "weights", "--no-identify")

    assert run.status == 3
    assert "error[ambiguous-label]" in run.err


def test_a_row_that_is_not_there_is_refused_with_how_many_there_are():
    problem = attncli.Problem(embeddings=draw_normal(1, 3, 4))
    figures = figures_from_arrays({"weights": np.zeros((1, 3))})
    step = figures.steps[0]
    for row, refused in ((2, False), (-3, False), (3, True), (-4, True)):
        claimed = dataclasses.replace(figures, steps=(dataclasses.replace(step, rows=(row,)),))
        if refused:
            with pytest.raises(InputError, match="3 queries"):
                check(problem, None, claimed, identify=False)
        else:
            assert check(problem, None, claimed, identify=False).steps[0].worst_cell["query"] == row % 3


def test_an_axis_of_length_one_need_not_be_named():
    axes = ("head", "query", "key")
    one_cell = SimpleNamespace(cell_indices=None, cells=np.array([[1, 2]]), cell_axes=("query", "key"))

    assert _align_cells(one_cell, "weights", axes, (1, 3, 3)).tolist() == [[0, 1, 2]]
    assert _align_cells(one_cell, "mask", axes, (2, 3, 3)).tolist() == [[0, 1, 2]]
    with pytest.raises(InputError, match="does not give its head"):
        _align_cells(one_cell, "weights", axes, (2, 3, 3))


def test_a_bare_matrix_may_be_laid_out_in_two_ways(attn, tmp_path):
    (tmp_path / "p.json").write_text('{"embeddings": [[1, 0, 2, 1], [0, 1, 1, 3]], "variant": {"heads": 2}}')
    (tmp_path / "mine.json").write_text("[[[1, 0], [0, 1]], [[2, 1], [1, 3]]]")  # (h, t, d)

    def run(*words):
        return attn("check", "p.json", "--figures", "mine.json", "--step", "q", "--no-identify", *words)

    assert "error[ambiguous-layout]" in run().err
    assert (run("--layout", "bhtd").status, run("--layout", "bthd").status) == (0, 1)


@pytest.mark.parametrize(
    ("first_row", "is_header"),
    [
        (["cat", "sat"], True),
        (["x", "0", "1"], True),  # it numbers its columns
        (["x", "1", "2"], True),
        (["x", "1", "3"], False),  # figures, and one that is mistyped
        (["x", "0.5", "1"], False),
        (["0", "1"], False),
        (["", "0", "1"], True),  # as pandas writes it
        (["", "0", "2"], False),
    ],
)
def test_a_header_is_no_row_of_figures_with_a_mistake(first_row, is_header):
    table = _Table([tuple(first_row), ("0.1",) * len(first_row)], array("q", [1, 2]))

    assert _is_header(table, names_labels=False) is is_header


@pytest.mark.parametrize(("labels", "is_header"), [(["a", "b"], True), (["", "b"], False), (["a", " "], False)])
def test_numbers_behind_an_empty_cell_are_a_header_where_each_row_has_a_label(labels, is_header):
    table = _Table([("", "0", "1"), *((label, "0.1", "0.2") for label in labels)], array("q", [1, 2, 3]))

    assert _is_header(table, names_labels=False) is is_header


def test_only_ranks_say_how_many_are_claimed():
    figures = figures_from_arrays({"weights": np.zeros((2, 5)), "top_keys": np.zeros((2, 3), int)}).steps

    assert largest_claimed_rank(figures) == 3
    assert largest_claimed_rank([step for step in figures if step.step == "weights"]) is None


def test_the_largest_relative_error_is_that_of_a_figure_that_is_not_zero():
    problem = attncli.Problem(q=[[1.0]], k=[[2.0], [0.0], [4.0]])
    claims = {"scores": np.array([[2.2, 0.25, 4.3]])}

    [step] = check(problem, None, figures_from_arrays(claims), identify=False).steps

    assert (step.max_rel_error, step.max_abs_error) == pytest.approx((0.1, 0.3))


@pytest.mark.parametrize(("mixing", "cause"), [("none", "follows"), ("talking-heads", "follows"), ("differential", "")])
def test_an_output_follows_from_the_context_unless_that_is_normed_in_between(mixing, cause):
    z = draw_normal(1, 5, 8)
    w_o = draw_normal(2, 8, 6)
    problem = attncli.Problem(
        embeddings=draw_normal(3, 5, 8),
        parameters={"w_o": w_o, **({"talking_pre": np.eye(2)} if "talking" in mixing else {})},
    )

    said = check(
        problem,
        attncli.Variant(heads=2, head_mixing=mixing),
        figures_from_arrays({"context": z, "output": z @ w_o}),
        identify=False,
    )

    assert [step.cause for step in said.steps] == ["first", cause]


def test_only_a_context_comes_in_heads():
    parameters = {"w_o": draw_normal(2, 8, 6)}
    problem = attncli.Problem(embeddings=draw_normal(1, 5, 8), parameters=parameters)
    variant = attncli.Variant(heads=2)
    right = attncli.attend(problem, variant)
    in_heads = {
        step: right[step].values.reshape(5, 2, -1).swapaxes(0, 1) for step in ("context", "output")
    }  # (h, t, d)

    assert (
        check(problem, variant, figures_from_arrays({"context": in_heads["context"]}), identify=False).steps[0].is_right
    )
    with pytest.raises(InputError, match="output"):
        check(problem, variant, figures_from_arrays({"output": in_heads["output"]}), identify=False)


def test_a_cell_is_called_by_its_tokens_and_a_new_key_stands_behind_the_cached_ones():
    past = {"k": draw_normal(1, 1, 1, 3, 4), "v": draw_normal(2, 1, 1, 3, 4)}
    words = ["the", "cat", "sat", "down", "there"]
    problem = attncli.Problem(
        q=draw_normal(3, 1, 1, 2, 4),
        k=draw_normal(4, 1, 1, 2, 4),
        v=draw_normal(5, 1, 1, 2, 4),
        past=past,
        k_tokens=words,
    )
    plan = make_plan(problem, attncli.Variant())

    assert describe_cell(plan, {"new_key": 0, "dim": 2}) == "down, dim 2"
    assert describe_cell(plan, {"new_key": 1, "dim": 2}) == "there, dim 2"
    assert describe_cell(plan, {"query": 1, "key": 0}) == "query 1 → the"
    assert describe_cell(plan, {"key": 4, "dim": 0}) == "there, dim 0"


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("attn_weights", "weights"),
        ("Attention_Weights", "weights"),
        ("softmax_lse", "log_sum_exp"),
        ("attn_output", "context"),
        ("o", "context"),
    ],
)
def test_figures_go_by_the_names_of_others(name, step):
    x = draw_normal(1, 4, 3)

    report = attncli.check(x, {name: attncli.attend(x, only=step)[step].values})

    assert [(said.step, said.is_right) for said in report.steps] == [(step, True)]
