"""A tile boundary never shows: dense = tiled = fused, for every part, whatever the size of a tile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attncli
from attncli.core.attention import follow
from attncli.core.tiles import tiles
from attncli.errors import CannotError, InputError
from attncli.plan import outline, plan, schedule, settled
from attncli.variant import Variant
from tests.test_laws import ONE_CHOICE, _mask_texts, draws, link, normalizer, parameters_for, parts, problem_for, sink

LONG = 13  # queries and keys; prime, so that no tile but of one row divides them
ROW_STEPS = ["max_score", "log_sum_exp", "entropy", "visible_keys", "top_keys", "top_weights", "context"]


def same(dense, other, largest=1.0, rtol=1e-12, atol=1e-14):
    """Every step of one result is that of the other, warnings too."""
    assert other.warnings == dense.warnings
    for a, b in zip(dense, other, strict=True):
        assert (a.name, a.axes, a.values.dtype) == (b.name, b.axes, b.values.dtype)
        np.testing.assert_allclose(b.values, a.values, rtol=rtol, atol=atol * largest * 10, err_msg=a.name)


@pytest.fixture(scope="module", autouse=True)
def small_stretches():
    """Keys that nobody reaches are left out here even where that does not pay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attncli.core.tiles._NEAR", 1)
        patch.setattr("attncli.core.tiles._SMALL", 1)
        yield


def in_tiles(problem, variant, keep=None, top=4, *, rows=1, at=None):
    """A run in tiles of so many rows of every head."""
    made = settled(outline(problem, variant.but(schedule="tiled"), keep, top=top), at)
    return follow(replace(made, tile=rows * made.size.keys))


def steps_by_row(variant):
    return [*ROW_STEPS, "sink_weights"] if variant["sink"].name != "none" else ROW_STEPS


MASKS = [
    "full",
    "causal and not prefix:length=1",
    "window:left=2,right=1 and not prefix:length=1",
    "causal and (window:left=1 or prefix:length=1) and not (prefix:length=4 and not prefix:length=2)",
]


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=str)
@pytest.mark.parametrize("mask", MASKS)
def test_every_part_is_the_same_in_tiles(choices, mask, one_thread):
    variant = Variant(**{"heads": 3, "mask": mask} | choices)
    problem = problem_for(str(choices.get("mask")), variant=variant)
    for keep in (None, steps_by_row(variant)):
        dense = attncli.attend(problem, variant, keep, top=4)
        for rows in (1, 2, 3, 5):
            same(dense, in_tiles(problem, variant, keep, rows=rows), 4)


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=str)
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [("float64", 1e-12, 1e-14), ("float32", 1e-5, 1e-5)])
def test_the_context_is_the_same_to_the_last_digits(choices, dtype, rtol, atol, one_thread):
    variant = Variant(**{"heads": 3, "mask": MASKS[2]} | choices | {"dtype": dtype})
    problem = problem_for(str(choices.get("mask")), variant=variant)
    dense = attncli.attend(problem, variant, ["v", "context"])
    largest = np.abs(dense["v"].values).max()

    tiled = in_tiles(problem, variant, ["context"], rows=3, top=None)

    np.testing.assert_allclose(tiled["context"].values, dense["context"].values, rtol=rtol, atol=atol * largest)


@given(
    heads=st.sampled_from([None, 1, 2]),
    text=_mask_texts(),
    softcap=st.sampled_from(["none", 0.5]),
    scale=st.sampled_from(["auto", -1.5]),
    chain=st.permutations(list(link.members)),
    log_n=st.sampled_from(["none", 4]),
    normalize=st.sampled_from(parts(normalizer)),
    sinks=st.sampled_from(parts(sink)),
    position=st.sampled_from(["none", "alibi", "rope", "sinusoidal"]),
    dropout=st.sampled_from(["none", "dropout:p=0.4,seed=3"]),
    empty_rows=st.sampled_from(["zero", "nan", "uniform"]),
    mixed=st.sampled_from(["none", "differential"]),
    batch=st.sampled_from([None, 2]),
    shuffled=st.booleans(),
    padded=st.booleans(),
    rows=st.sampled_from([1, 2, 3, 5, 100]),
    seed=st.integers(0, 99),
)
@settings(max_examples=150)
def test_random_products_are_the_same_in_tiles(
    heads, text, softcap, scale, chain, log_n, normalize, sinks, position, dropout, empty_rows, mixed, batch, shuffled,
    padded, rows, seed,
):  # fmt: skip
    lead = () if batch is None else (batch,)
    fields = {"embeddings": draws(seed, *lead, LONG, 8)}
    if shuffled:
        fields["positions"] = np.random.default_rng(seed).permutation(LONG * 2)[:LONG] - 5
    if padded:
        fields["lengths"] = [4, 9][: batch or 1]
    if normalize != "softmax":
        sinks = "none"
    variant = Variant(
        heads=heads, mask=text, softcap=softcap, scale=scale, chain=chain, log_n=log_n, normalizer=normalize, sink=sinks,
        position=position, dropout=dropout, empty_rows=empty_rows, head_mixing=mixed if heads == 2 else "none",
    )  # fmt: skip
    problem = attncli.Problem(**fields, parameters=parameters_for(variant, 8))
    for keep in (None, steps_by_row(variant)):
        dense = attncli.attend(problem, variant, keep, top=4)
        size = max(np.abs(s.values[np.isfinite(s.values)]).max(initial=1) for s in dense if s.values.dtype.kind == "f")
        same(dense, in_tiles(problem, variant, keep, rows=rows), size)


@pytest.mark.parametrize("text", ["window:left=2,right=1", "causal", "chunk:size=3", "natten:kernel=3", "document"])
def test_what_is_out_of_reach_is_not_computed(text):
    """Not sorted either: a NaN score out of a tile's reach would otherwise be noticed."""
    problem = problem_for(text)
    made = replace(plan(problem, Variant(mask=text, schedule="tiled"), ["context"]), tile=7)

    cells = sum((t.rows.stop - t.rows.start) * t.width for t in tiles(made))

    assert cells < 7 * 7 * 3 / 4
    assert [t.rows.start for t in tiles(made)] == [0, *(t.rows.stop for t in tiles(made))][:-1]


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("causal", [([0, 0, 0, 0], [1, 2, 3, 4])]),
        ("window:left=1", [([0, 0, 1, 2], [4, 4, 4, 4])]),
        ("causal and window:left=1", [([0, 0, 1, 2], [1, 2, 3, 4])]),
        ("chunk:size=2 or prefix:length=1", [([0, 0, 2, 2], [2, 2, 4, 4]), ([0, 0, 0, 0], [1, 1, 1, 1])]),
        ("causal and prefix:length=2", [([0, 0, 0, 0], [1, 2, 2, 2])]),
        ("causal and (window:left=1 or prefix:length=1)", [([0, 0, 1, 2], [1, 2, 3, 4]), ([0, 0, 0, 0], [1, 1, 1, 1])]),
        ("global:tokens=1+3+2+9", [([1, 0, 0, 0], [4, 4, 4, 4])]),
        ("global:tokens=0+2", [([0, 0, 0, 0], [4, 1, 4, 1]), ([0, 2, 0, 2], [4, 3, 4, 3])]),
        ("causal and global:tokens=2", [([2, 2, 0, 2], [1, 2, 3, 3])]),
    ],
)
def test_bounds_pass_through_and_and_or(text, spans):
    made = plan(attncli.Problem(embeddings=draws(1, 4, 2)), Variant(mask=text), ["context"])

    assert [tuple(x[0].tolist() for x in span) for span in made.spans()] == spans


def test_many_spans_are_brought_to_one():
    problem = attncli.Problem(embeddings=draws(1, 11, 2))
    made = plan(problem, Variant(mask="global:tokens=0+2+4+6+8"), ["context"])

    [(first, last)] = made.spans()

    assert (first[0].tolist(), last[0].tolist()) == ([0] * 11, [11, 9] * 4 + [11, 9, 9])


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("causal and (window:left=20 or prefix:length=4)", 2.5 * 2000 * 25),
        ("window:left=20,right=20 or global:tokens=0+1+2", 3 * 2000 * 44 + 3 * 2000),
        ("window:left=20,right=20 or global:tokens=0+1000", 3 * 2000 * 43 + 2 * 2000),
    ],
)
def test_a_union_costs_what_its_parts_cost(text, most):
    """StreamingLLM and Longformer grow with the number of tokens, and not with its square."""
    problem = attncli.Problem(embeddings=draws(1, 2000, 4))
    made = plan(problem, Variant(mask=text, schedule="tiled"), ["context", "top_keys", "top_weights"], top=30)

    cells = sum((t.rows.stop - t.rows.start) * t.width for t in tiles(made))

    assert cells < max(most, 2000 * 256)
    assert max(len(t.keys) for t in tiles(made)) > 1
    dense = attncli.attend(
        problem, Variant(mask=text, schedule="dense"), ["context", "top_keys", "top_weights"], top=30
    )
    found = follow(made)
    np.testing.assert_array_equal(found["top_keys"].values, dense["top_keys"].values)
    np.testing.assert_allclose(found["context"].values, dense["context"].values, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("text", ["not causal", "causal or dilated:rate=2", "bigbird:block=2", "given", "full"])
def test_what_says_nothing_reaches_every_key(text):
    problem = attncli.Problem(embeddings=draws(1, 4, 2), mask=np.eye(4, dtype=bool) if text == "given" else None)

    assert plan(problem, Variant(mask=text), ["context"]).spans() is None


def test_unsorted_positions_are_bounded_by_their_outermost():
    problem = attncli.Problem(embeddings=draws(1, 5, 2), positions=[3, 0, 2, 1, 9])

    [(first, last)] = plan(problem, Variant(mask="window:left=1,right=0"), ["context"]).spans()

    assert first[0].tolist() == [0, 0, 0, 0, 4]  # the first key at or above 2, −1, 1, 0, 8
    assert last[0].tolist() == [4, 2, 4, 4, 5]  # one past the last key at or below 3, 0, 2, 1, 9


# ── one kernel ───────────────────────────────────────────────────────────────────────────────────
FUSED = [
    {},
    {"mask": "causal"},
    {"scale": 0.3},
    {"heads": 2},
    {"heads": 4, "kv_heads": 2},
    {"mask": "window:left=2 and not prefix:length=2"},
    {"mask": "causal and not prefix:length=1", "empty_rows": "nan", "heads": 2},
    {"position": "rope"},
]


@pytest.mark.parametrize("choices", FUSED, ids=str)
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-12), ("float32", 1e-5)])
def test_the_kernel_says_the_same(choices, dtype, rtol, one_thread):
    kv = 8 * choices.get("kv_heads", 1) // choices.get("heads", 1) if "kv_heads" in choices else 8
    x = draws(2, LONG, 8)
    problem = attncli.Problem(
        embeddings=x, parameters={"w_k": draws(3, 8, kv), "w_v": draws(4, 8, kv), "w_o": draws(5, 8, 6)}
    )
    variant = Variant(dtype=dtype, **choices)

    dense = attncli.attend(problem, variant, ["context", "output"])
    fused = attncli.attend(problem, Variant(dtype=dtype, schedule="fused", **choices), ["context", "output"])

    assert (dense.variant["schedule"], fused.variant["schedule"]) == ("dense", "fused")
    largest = np.abs(dense["output"].values[np.isfinite(dense["output"].values)]).max()
    same(dense, fused, largest, rtol, rtol / 100 if dtype == "float64" else rtol / 10)


@pytest.mark.parametrize(
    ("choices", "keep", "why"),
    [
        ({"softcap": 2}, "context", "the link softcap is not in it"),
        ({"normalizer": "sparsemax"}, "context", "sparsemax is not in it"),
        ({"sink": "zero"}, "context", "sink zero is not in it"),
        ({}, "weights", "it does not tell weights"),
        ({"mask": "causal", "empty_rows": "uniform", "lengths": [3]}, "context", "it has no uniform weights"),
    ],
)
def test_a_kernel_that_cannot_is_refused_with_the_reason(choices, keep, why):
    fields = {"lengths": choices.pop("lengths")} if "lengths" in choices else {}

    with pytest.raises(InputError, match=f"no fused kernel says this: {why}"):
        plan(attncli.Problem(embeddings=draws(1, 5, 2), **fields), Variant(schedule="fused", **choices), [keep])


def test_values_that_a_kernel_would_let_through_go_the_long_way(monkeypatch):
    monkeypatch.setattr(schedule, "DENSE", 0)
    q, k, v = (draws(i, 5, 3) for i in range(3))
    v[4] = np.nan
    problem = attncli.Problem(q=q, k=k, v=v)

    result = attncli.attend(problem, Variant(mask="causal"), ["context"])

    assert result.variant["schedule"] == "tiled"
    assert np.isfinite(result["context"].values[:4]).all()
    assert np.isnan(result["context"].values[4]).all()
    with pytest.raises(CannotError, match="finite values"):
        attncli.attend(problem, Variant(mask="causal", schedule="fused"), ["context"])


# ── what is chosen, kept and refused ─────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("choices", "keep", "ran"),
    [
        ({}, ["context"], "fused"),
        ({"mask": "causal"}, ["output", "context"], "fused"),
        ({"mask": "window:left=2"}, ["context"], "tiled"),
        ({"mask": "not causal"}, ["context"], "fused"),
        ({"softcap": 5}, ["context"], "tiled"),
        ({}, ["context", "log_sum_exp"], "tiled"),
    ],
)
def test_the_schedule_is_found_and_said(choices, keep, ran, monkeypatch):
    problem = attncli.Problem(embeddings=draws(1, LONG, 4), parameters={"w_o": np.eye(4)})
    dense = attncli.attend(problem, Variant(**choices), keep)
    monkeypatch.setattr(schedule, "DENSE", 0)

    result = attncli.attend(problem, Variant(**choices), keep)

    assert (dense.variant["schedule"], result.variant["schedule"]) == ("dense", ran)
    same(dense, result, 5)


@pytest.mark.parametrize("dropout", ["none", "dropout:p=0.5,seed=5"])
@pytest.mark.parametrize("rows", [(4,), (11, 2, 3, 12), tuple(range(LONG))])
def test_chosen_rows_alone_are_computed_and_are_the_whole_runs(rows, dropout, monkeypatch):
    variant = Variant(heads=2, mask="causal and not prefix:length=3", position="alibi", dropout=dropout)
    problem = attncli.Problem(embeddings=draws(1, LONG, 4))
    whole = attncli.attend(problem, variant, top=3)
    monkeypatch.setattr(schedule, "DENSE", 0)

    result = in_tiles(problem, variant, None, 3, rows=2, at={"query": rows})

    assert result["context"].values.shape == (len(rows), 4)
    for step in whole:
        cut = step.values[tuple(list(rows) if axis == "query" else slice(None) for axis in step.axes)]
        np.testing.assert_allclose(result[step.name].values, cut, rtol=1e-12, atol=1e-14, err_msg=step.name)
    blind = [r for r in rows if r < 3]
    assert [w.partition(" see")[0] for w in result.warnings] == (
        []
        if not blind
        else [f"empty-rows: query {blind[0]}"]
        if len(blind) == 1
        else ["empty-rows: queries 0, 1 and 2"]
    )


def test_a_first_look_at_a_long_run_leaves_matrices_out_and_says_so(monkeypatch):
    monkeypatch.setattr(schedule, "LOOK", 10)
    problem = attncli.Problem(embeddings=draws(1, 4, 2))

    result = attncli.attend(problem, keep="shown")

    assert [step.name for step in result] == ["context"]
    assert result.warnings[0].startswith("left-out: scores, scaled_scores and weights of 4 × 4")
    assert "weights" in attncli.attend(problem, keep=["shown", "weights"])
    with pytest.raises(InputError, match="there is no v"):
        plan(attncli.Problem(q=draws(1, 4, 2), k=draws(2, 4, 2)), keep="shown")


def test_what_cannot_fit_is_refused_with_sizes_and_the_way_out(monkeypatch):
    monkeypatch.setattr(schedule, "available", lambda: 2**20)
    x = np.zeros((3000, 2), np.float32)

    with pytest.raises(
        CannotError, match=r"3,000 × 3,000 scores in 1 head need about 0\.1 GiB, and 0\.0 are to be had"
    ) as e:
        plan(attncli.Problem(embeddings=x), Variant(schedule="dense"), ["context"])
    assert "tiled" in e.value.help
    with pytest.raises(CannotError, match="weights kept") as e:
        plan(attncli.Problem(embeddings=x), Variant(), ["weights"])
    assert "--top 8" in e.value.help
    assert settled(outline(attncli.Problem(embeddings=x), Variant(schedule="fused"), ["context"])).schedule == "fused"


def test_a_tensor_that_requires_grad_keeps_its_graph_in_a_dense_run(monkeypatch):
    import torch

    monkeypatch.setattr(schedule, "DENSE", 0)
    x = torch.tensor(draws(1, 5, 3), requires_grad=True)

    result = attncli.attend(attncli.Problem(embeddings=x), Variant(mask="causal"), ["context"])
    result["context"].values.sum().backward()

    assert result.variant["schedule"] == "dense"
    assert x.grad is not None
    with pytest.raises(InputError, match="requires grad"):
        plan(attncli.Problem(embeddings=x), Variant(schedule="tiled"))


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("ran", ["dense", "tiled", "fused"])
def test_other_devices_say_the_same(device, ran):
    import torch

    there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
    if not there:
        pytest.skip(f"no {device} device on this machine")
    problem = attncli.Problem(embeddings=draws(1, 300, 8).astype(np.float32))
    choices = {"mask": "causal", "heads": 2, "dtype": "float32"}

    here = attncli.attend(problem, Variant(**choices), ["context"])
    other = attncli.attend(problem, Variant(**choices, device=device, schedule=ran), ["context"])

    np.testing.assert_allclose(other["context"].values, here["context"].values, rtol=1e-4, atol=1e-5)
