"""What is said of wrong figures is so: a later step follows from rounded ones, a cause gives every figure, likenesses say so."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.check import check
from attncli.check.figure_files import read_figures
from attncli.check.figures import figures_from_arrays
from tests.check.faulty import Case, merge, triangle
from tests.helpers import softmax


def test_a_context_follows_from_rounded_weights_as_far_as_rounding_moves_it(tmp_path):
    problem = attncli.Problem(q=[[1.5, -1.0]], k=[[-1.0, 0.5], [0.2, -1.0]], v=[[5.0, 2.0], [-2.5, -9.2]])
    q, k, v = (np.array(getattr(problem, x)) for x in "qkv")
    w = softmax(q @ k.T)  # without the scale
    context = w @ v

    def cause_of(offset):
        (tmp_path / "mine.json").write_text(
            f'{{"weights": [[{w[0, 0]:.3f}, {w[0, 1]:.3f}]], "context": [[{context[0, 0]:.3f}, {context[0, 1] + offset:.3f}]]}}'
        )
        return check(problem, None, read_figures(str(tmp_path / "mine.json")), identify=False).steps[1].cause_text

    assert cause_of(0.0) == cause_of(0.003) == "follows from your weights"
    assert cause_of(0.1) == "wrong by itself, even from your weights"


def test_q_k_and_v_are_not_computed_from_each_other():
    case = Case(0)
    q, k, v = (x + 0.1 for x in case.qkv())

    causes = {step.step: step.cause_text for step in case.verdict({"q": q, "k": k, "v": v}, identify=False).steps}

    assert causes == {"q": "first", "k": "", "v": ""}


@pytest.mark.slow
def test_a_likeness_is_no_cause():
    """Peaked weights are near those that are rounded, and are no such weights."""
    r = np.random.default_rng(4)
    x = r.standard_normal((6, 8)) * 2
    s = x @ x.T / np.sqrt(8)
    w = softmax(np.where(triangle(6), 2.5 * s + 0.2 * np.sin(9 * s), -np.inf))  # no factor of the scores gives them

    said = check(attncli.Problem(embeddings=x), attncli.Variant(mask="causal"), figures_from_arrays({"weights": w}))

    assert said.identified == ()
    assert not any("rounded" in name or "cut" in name for d in said.nearest_candidates for name in d.names)
    assert all(" like the reference" in d.sentence for d in said.nearest_candidates)


@pytest.mark.slow
def test_rows_that_are_not_written_are_no_rounding():
    case = Case(3, tokens=9, mask="causal")
    s, v = case.scores()
    context = merge(softmax(np.where(triangle(9), s, -np.inf)) @ v)
    context[-2:] = 0

    said = case.verdict({"context": context})

    assert (said.verdict, said.nearest_candidates) == ("wrong", ())
    assert [d.names[0] for d in said.identified] == ["last queries not written"]


@pytest.mark.parametrize(
    ("zeros", "name"),
    [
        (lambda w: w < 0.05, "small weights set to 0"),
        (lambda w: np.random.default_rng(1).random(w.shape) < 0.3, "dropout left on"),
        pytest.param(
            lambda w: np.broadcast_to(np.arange(w.shape[-1]) == 2, w.shape),
            None,
            marks=pytest.mark.full,
            id="a key is lost",
        ),
        pytest.param(
            lambda w: np.broadcast_to(np.arange(w.shape[-2])[:, None] > 4, w.shape),
            None,
            marks=pytest.mark.full,
            id="rows are not written",
        ),
    ],
)
@pytest.mark.slow
def test_zeros_are_dropout_only_if_chance_may_have_put_them_there(zeros, name):
    case = Case(0)
    w = softmax(case.scores()[0])

    names = [n for d in case.verdict({"weights": np.where(zeros(w), 0, w)}).identified for n in d.names]

    assert (name in names) if name else not any("dropout" in n or "small" in n for n in names)
