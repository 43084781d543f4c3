"""One long problem in other hands: what travels, what comes back, and that the result is the same."""

from __future__ import annotations

import itertools
import pickle
from functools import partial

import numpy as np
import pytest

import attncli
from attncli.core.attention import run_plan
from attncli.core.remote import (
    _MIN_SCORES_PER_TASK,
    ShapeOnly,
    attend_remotely,
    compute_block,
    make_tile_blocks,
    strip_plan,
)
from attncli.core.tiles import iter_tiles
from attncli.errors import CannotError, InputError, Location
from attncli.parts.masks import mask
from attncli.parts.normalizers import normalizer
from attncli.parts.positions import position
from attncli.parts.scores import score
from attncli.plan import make_plan
from attncli.plan.schedule import MAX_DENSE_SCORES, MAX_TILE_SCORES
from attncli.variant import FAMILIES, Variant
from tests.helpers import draw_normal
from tests.laws.problems import spellings

pytestmark = pytest.mark.slow


class Others:
    """A crew in this process: everything goes through bytes, and comes back in another order."""

    worker_count = 2

    def __init__(self) -> None:
        self.done: list[slice] = []

    def compute_tasks(self, common, tasks):
        common = pickle.loads(pickle.dumps(common))
        pieces = []
        for task in tasks:
            task = pickle.loads(pickle.dumps(task))
            self.done.append(task.block.combined_tile.rows)
            pieces.append(pickle.loads(pickle.dumps((task.block, compute_block(common, task)))))
        yield from pieces[::-1]


def both(problem: attncli.Problem, keep, top=None, **choices):
    """(here, in other hands, those hands)"""
    made, others = make_plan(problem, Variant(**choices), keep, top=top), Others()
    return run_plan(made), run_plan(made, tile_executor=partial(attend_remotely, others)), others


def assert_same(here: attncli.Attention, there: attncli.Attention) -> None:
    assert (here.variant, here.warnings, here.dtype) == (there.variant, there.warnings, there.dtype)
    assert [(s.name, s.formula, s.axes) for s in here] == [(s.name, s.formula, s.axes) for s in there]
    for step in here:
        other = there[step.name].values
        assert other.dtype == step.values.dtype
        np.testing.assert_allclose(other, step.values, rtol=1e-12, atol=1e-13, err_msg=step.name)


@pytest.fixture
def small_tasks(monkeypatch):
    """A sixteenth of the scores make a tile, a task, and a run that is not computed whole."""
    monkeypatch.setattr("attncli.plan.schedule.MAX_DENSE_SCORES", MAX_DENSE_SCORES // 16)
    monkeypatch.setattr("attncli.plan.schedule.MAX_TILE_SCORES", MAX_TILE_SCORES // 16)
    monkeypatch.setattr("attncli.core.remote._MIN_SCORES_PER_TASK", _MIN_SCORES_PER_TASK // 16)


ROWS = ["context", "log_sum_exp", "entropy", "max_score", "visible_keys", "top_keys", "top_weights", "weights", "mask"]
KINDS = [
    ("mask", member) for member in mask if member.name not in ("given", "document")
] + [(name, member) for name, family in (("position", position), ("score", score), ("normalizer", normalizer)) for member in family]  # fmt: skip


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize(("choice", "member"), KINDS, ids=[f"{c}-{m.name}" for c, m in KINDS])
def test_every_part_travels(choice, member):
    arrays = {"bias_table": draw_normal(4, 32 if member.name == "t5" else 9, 2), "score_w_q": draw_normal(5, 6, 6) / 3}
    declared = {p.name for p in member.parameters}
    problem = attncli.Problem(
        embeddings=draw_normal(1, 300, 12), parameters={n: x for n, x in arrays.items() if n in declared}
    )
    choices = {choice: spellings(member)[0], "heads": 2, "schedule": "tiled"}
    if member.name == "relative":
        choices["position"] = "relative:max-distance=4"
    kept = [name for name in ROWS if name not in ("weights", "mask")]

    here, there, others = both(problem, kept, 3, **choices)

    assert len(others.done) > 1
    assert_same(here, there)


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize(
    ("arrays", "choices"),
    [
        ({}, {}),
        ({}, {"mask": "causal"}),
        ({}, {"mask": "not causal", "empty_rows": "zero"}),
        ({}, {"mask": "not causal", "empty_rows": "uniform", "schedule": "tiled"}),
        ({}, {"mask": "causal", "position": "rope:dims=2", "qk_norm": "rms", "softcap": 20}),
        ({}, {"projection": "linear:dim=12,out=yes", "dropout": "0.3", "seed": 7, "mask": "causal"}),
        ({}, {"dropout": "dropout:p=0.2,seed=5", "sink": "zero", "schedule": "tiled"}),
        ({"sinks": draw_normal(7, 4)}, {"sink": "given", "mask": "window:left=9,right=3"}),
        ({"talking_pre": draw_normal(8, 4, 4), "talking_post": draw_normal(9, 4, 4)}, {"head_mixing": "talking-heads"}),
        ({"sub_norm": draw_normal(6, 6)}, {"head_mixing": "differential:depth=2", "mask": "causal"}),
    ],
    ids=lambda x: "+".join(x) if any(isinstance(v, np.ndarray) for v in x.values()) else str(x),
)  # fmt: skip
def test_whole_variants_travel(arrays, choices):
    problem = attncli.Problem(embeddings=draw_normal(2, 400, 12), parameters=arrays)
    keep = ["context", "log_sum_exp"] if set(choices) - {"mask"} else ["context"]
    if "linear" in str(choices):
        keep.append("output")

    here, there, others = both(problem, keep, heads=4, **choices)

    assert len(others.done) > 1
    assert_same(here, there)


def test_matrices_batches_and_shared_heads_travel():
    q, k, v = draw_normal(1, 2, 6, 700, 4), draw_normal(2, 2, 3, 650, 4), draw_normal(3, 2, 3, 650, 5)
    k[0, 1, 600, 2], v[1, 2, 17, 0] = np.nan, np.inf
    bias, lengths = draw_normal(5, 1, 6, 700, 1), [650, 333]
    past = {"k": draw_normal(6, 2, 3, 20, 4), "v": draw_normal(7, 2, 3, 20, 5)}
    problem = attncli.Problem(
        q=q, k=k, v=v, past=past, bias=bias, lengths=lengths, parameters={"w_o": draw_normal(8, 30, 7)}
    )

    for kv_map in ("interleave", "tile"):
        here, there, others = both(
            problem, ["scores", "masked_scores", "weights", "mask", "present_k", "output"], kv_map=kv_map
        )
        assert len(others.done) == 6  # of two batch items, two heads at a time
        np.testing.assert_array_equal(np.isnan(here["output"].values), np.isnan(there["output"].values))
        assert_same(here, there)


def test_queries_that_alone_are_computed_travel_alone():
    from attncli.plan import finish_plan, outline_plan

    wanted = tuple(range(900, 100, -1))
    made = finish_plan(
        outline_plan(
            attncli.Problem(embeddings=draw_normal(3, 3000, 6)), Variant(mask="causal"), ["weights", "context"]
        ),
        {"query": wanted},
    )
    others = Others()

    here, there = run_plan(made), run_plan(made, tile_executor=partial(attend_remotely, others))

    assert here["weights"].values.shape == (800, 3000)
    assert len(others.done) > 1
    assert_same(here, there)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_half_precision_travels(dtype):
    here, there, _ = both(attncli.Problem(embeddings=draw_normal(3, 1400, 6)), ["context", "max_score"], dtype=dtype)

    for step in here:
        np.testing.assert_array_equal(step.values, there[step.name].values)


def test_a_kernel_that_cannot_do_it_leaves_it_to_the_algebra():
    """A value is too large for the kernel's sums, which is found out on the way."""
    x = draw_normal(3, 2500, 8)
    x[2200, 0] = 1e200
    here, there, _ = both(attncli.Problem(q=x, k=x, v=x), ["context"], mask="causal")

    assert here.variant["schedule"] == there.variant["schedule"] == "tiled"
    assert_same(here, there)
    with pytest.raises(CannotError, match="it needs finite values"):
        both(attncli.Problem(q=x, k=x, v=x), ["context"], mask="causal", schedule="fused")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_what_a_kernel_would_let_through_gives_the_same_file(dtype):
    """One NaN in a key that nobody sees, or in one query: all goes the long way, as on one machine."""
    q, k, v = (draw_normal(i, 2500, 8) for i in (1, 2, 3))
    for x, row in ((k, 2400), (q, 100)):
        x[row, 1] = np.nan
        mask = "causal and prefix:length=2000"
        here, there, _ = both(attncli.Problem(q=q, k=k, v=v), ["context"], mask=mask, schedule=None, dtype=dtype)
        x[row, 1] = 0
        assert here.variant["schedule"] == there.variant["schedule"] == "tiled"
        np.testing.assert_array_equal(there["context"].values, here["context"].values)


def test_a_worker_draws_the_grid_once_however_many_tasks_it_has(monkeypatch):
    from attncli.core.dropout import DropoutStream

    drawn: list[int] = []
    rows = DropoutStream._draw_rows
    monkeypatch.setattr(DropoutStream, "_draw_rows", lambda self, count: (drawn.append(count), rows(self, count))[1])
    here, there, others = both(
        attncli.Problem(embeddings=draw_normal(2, 4000, 6)), ["context"], dropout="dropout:p=0.3,seed=4"
    )

    assert len(others.done) > 10
    assert sum(drawn) == 2 * 4000  # here, and there
    np.testing.assert_array_equal(there["context"].values, here["context"].values)


def test_one_tile_stays_at_home():
    made = make_plan(attncli.Problem(embeddings=draw_normal(1, 9, 4)), Variant())

    def nobody(*_):
        raise AssertionError("it was sent away")

    assert run_plan(made, tile_executor=nobody)["context"].values.shape == (9, 4)


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize(
    "choices", [{}, {"mask": "causal"}, {"mask": "causal", "softcap": 9}, {"mask": "window:left=70,right=0"}]
)
def test_blocks_are_the_tiles_in_order_and_enough_to_go_round(choices, workers):
    problem = attncli.Problem(embeddings=draw_normal(1, 2, 5000, 4))
    made = make_plan(problem, Variant(heads=2, **choices), ["context"])

    found = list(make_tile_blocks(made, workers))

    inside = [tile for block in found for tile in block.tiles]
    if made.schedule == "tiled":
        assert inside == list(iter_tiles(made))
    cells = [[(b, h, i) for tile in block.tiles for b in range(2)[tile.batch] for h in range(2)[tile.heads]
              for i in range(5000)[tile.rows]] for block in found]  # fmt: skip
    assert list(itertools.chain(*cells)) == list(itertools.product(range(2), range(2), range(5000)))
    assert len(found) >= min(workers * 8, 4) or "window" in str(choices)
    for block in found:
        assert {(str(t.batch), str(t.heads)) for t in block.tiles} == {
            (str(block.combined_tile.batch), str(block.combined_tile.heads))
        }


def test_what_travels_is_small():
    problem = attncli.Problem(
        tokens=[f"token {i}" for i in range(4000)], embeddings=draw_normal(1, 4000, 50), about="x" * 10_000,
        parameters={"w_q": draw_normal(2, 50, 30), "w_k": draw_normal(3, 50, 30), "w_v": draw_normal(4, 50, 30), "sinks": draw_normal(5, 3)},
    )  # fmt: skip

    sent = strip_plan(make_plan(problem, Variant(heads=3, sink="given", mask="causal"), ["context"]))

    assert sent.problem.embeddings == ShapeOnly((4000, 50))
    assert [*sent.problem.parameters] == ["sinks"]
    assert len(pickle.dumps(sent)) < 2 * 4000 * 8 + 20_000  # the positions of queries and keys, and the choices


def test_members_and_errors_travel():
    for family in FAMILIES.values():
        for member in family:
            assert pickle.loads(pickle.dumps(member)) is member
    error = InputError("bad", "it is bad", location=Location("a.csv", 3), help="mend it").add_location(path="$.q")
    there = pickle.loads(pickle.dumps(error))
    assert (type(there), there.to_record(), str(there)) == (InputError, error.to_record(), str(error))
