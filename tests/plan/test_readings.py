"""Layouts, alignment and positions that can be misread: what they mean is said, asked for, or can be chosen."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attncli
from tests.helpers import draw_normal

T, M, H, D = 5, 6, 3, 4  # queries, keys, heads, width


def run(problem, keep=("weights", "context"), **choices):
    return attncli.attend(problem, attncli.Variant(**choices), keep)


def codes(result):
    return [warning.partition(":")[0] for warning in result.warnings]


# ── layouts ──────────────────────────────────────────────────────────────────────────────────────
def test_thd_is_htd_with_tokens_first():
    q, k, v = draw_normal(1, H, T, D), draw_normal(2, H, M, D), draw_normal(3, H, M, D)

    htd = run(attncli.Problem(q=q, k=k, v=v, layout="htd"))
    thd = run(attncli.Problem(**{name: x.swapaxes(0, 1) for name, x in {"q": q, "k": k, "v": v}.items()}, layout="thd"))

    assert thd["weights"].axes == ("head", "query", "key")
    np.testing.assert_array_equal(thd["weights"].values, htd["weights"].values)
    np.testing.assert_array_equal(thd["context"].values, htd["context"].values)
    reference = torch.nn.functional.scaled_dot_product_attention(*map(torch.tensor, (q, k, v)))  # (H, T, D)
    np.testing.assert_allclose(thd["context"].values.reshape(T, H, D).swapaxes(0, 1), reference, rtol=1e-12)


@pytest.mark.parametrize("layout", ["htd", "thd"])
def test_a_layout_without_batch_is_of_three_axes(layout):
    x = draw_normal(1, 2, H, T, D)

    with pytest.raises(attncli.AttnError, match=f"layout {layout} is for 3 axes"):
        run(attncli.Problem(q=x, k=x, v=x, layout=layout))


@pytest.mark.parametrize(
    ("heads", "tokens", "layout", "is_warned"),
    [(3, 3, None, True), (3, 3, "bhtd", False), (3, 3, "bthd", False), (3, 4, None, False), (1, 1, None, False)],
)
def test_as_many_heads_as_tokens_are_said_to_come_first(heads, tokens, layout, is_warned):
    x = draw_normal(1, 2, heads, tokens, D)
    result = run(attncli.Problem(q=x, k=x, v=x, layout=layout))
    assert codes(result) == (["read-as-heads-first"] if is_warned else [])


def test_three_axes_without_a_layout_are_a_batch_and_it_is_said():
    x = draw_normal(1, T, H, D)

    unsaid = run(attncli.Problem(q=x, k=x, v=x))
    confirmed = run(attncli.Problem(q=x, k=x, v=x), heads=1)

    assert unsaid["weights"].axes == ("batch", "query", "key")
    assert codes(unsaid) == ["read-as-batch"]
    assert '"layout": "thd" for (T, H, d), or "htd"' in unsaid.warnings[0]
    assert codes(confirmed) == []
    np.testing.assert_array_equal(unsaid["weights"].values, confirmed["weights"].values[:, 0])


@pytest.mark.parametrize(
    "more",
    [{"lengths": [3, 4, 2, 1, 4]}, {"positions": np.tile(np.arange(3), (5, 1))}, {"tokens": [[*"abc"]] * 5}],
    ids=lambda more: next(iter(more)),
)
def test_what_the_file_holds_for_each_item_confirms_that_there_is_a_batch(more):
    x, k = draw_normal(1, 5, 3, D), draw_normal(2, 5, 4, D)

    result = run(attncli.Problem(q=x, k=k, v=k, **more), ("weights",))

    assert result["weights"].axes == ("batch", "query", "key")
    assert codes(result) == ([] if "positions" not in more else ["unused-field"])


# ── alignment ────────────────────────────────────────────────────────────────────────────────────
def test_bottom_right_counts_the_keys_of_each_item():
    """As ONNX and kernels with caches: the last query stands beside the last key that is filled."""
    lengths = [M, 4]
    q, k = draw_normal(1, 2, 2, D), draw_normal(2, 2, M, D)

    result = run(attncli.Problem(q=q, k=k, v=k, lengths=lengths), mask="causal", align="bottom-right", heads=1)

    seen = result["weights"].values[:, 0] > 0
    for b, length in enumerate(lengths):
        for i in range(2):
            assert seen[b, i].tolist() == [j <= length - 2 + i for j in range(M)], (b, i)


PADDING = np.arange(M) < np.array([[M], [4]])  # (B, Tk)
TOO_LITTLE = np.where(PADDING, 0, -np.inf)


@pytest.mark.parametrize(
    ("more", "choices"),
    [
        ({"mask": PADDING[:, None, None]}, {"mask": "causal"}),
        ({"mask": np.repeat(PADDING[:, None, None], 2, 2)}, {"mask": "window:left=2"}),
        ({"bias": TOO_LITTLE[:, None, None]}, {"mask": "causal"}),
        ({"bias": np.where(PADDING, 0, -1e4)[:, None, None]}, {"mask": "causal"}),  # as libraries hide
        ({"mask": PADDING[:, None, None]}, {"position": "rope"}),
        ({"mask": PADDING[:, None, None]}, {"mask": "causal", "mask_by": "index"}),
    ],
    ids=str,
)
def test_padding_that_bottom_right_counts_is_warned_of_and_lengths_count_without_it(more, choices):
    q, k = draw_normal(1, 2, 2, D), draw_normal(2, 2, M, D)

    result = run(attncli.Problem(q=q, k=k, v=k, **more), ("weights",), align="bottom-right", heads=1, **choices)
    [lengths] = re.findall(r'"lengths": (\[.*?\])', result.warnings[0])
    followed = run(
        attncli.Problem(q=q, k=k, v=k, lengths=json.loads(lengths), **more),
        ("weights",),
        align="bottom-right",
        heads=1,
        **choices,
    )
    without = run(
        attncli.Problem(q=q, k=k, v=k, lengths=[M, 4]), ("weights",), align="bottom-right", heads=1, **choices
    )

    assert codes(result) == ["uncounted-padding"]
    assert "hides the last keys of item 1 from every query" in result.warnings[0]
    assert codes(followed) == []
    np.testing.assert_array_equal(followed["weights"].values, without["weights"].values)


@pytest.mark.parametrize(
    ("more", "choices"),
    [
        ({"mask": PADDING[:, None, None, ::-1]}, {"mask": "causal", "align": "bottom-right"}),  # at the front
        ({"mask": PADDING[:, None, None]}, {"mask": "causal", "align": "top-left"}),
        ({"mask": PADDING[:, None, None]}, {"align": "bottom-right"}),  # nothing reads positions
        ({"mask": PADDING[:, None, None], "positions": [4, 5]}, {"mask": "causal"}),
        ({"mask": PADDING[:, None, None], "lengths": [M, 4]}, {"mask": "causal", "align": "bottom-right"}),
        ({"mask": np.tri(2, M, M - 2, dtype=bool)[None, None]}, {"mask": "causal", "align": "bottom-right"}),
        ({"bias": np.where(PADDING, 0, -9999.5)[:, None, None]}, {"mask": "causal", "align": "bottom-right"}),
    ],
    ids=str,
)
def test_no_warning_where_alignment_counts_no_padding(more, choices):
    q, k = draw_normal(1, 2, 2, D), draw_normal(2, 2, M, D)
    result = run(attncli.Problem(q=q, k=k, v=k, **more), ("weights",), heads=1, **choices)
    assert "uncounted-padding" not in codes(result)


def test_more_queries_than_filled_keys_see_nothing_at_first():
    q, k = draw_normal(1, 2, 3, D), draw_normal(2, 2, M, D)

    result = run(attncli.Problem(q=q, k=k, v=k, lengths=[1, 3]), mask="causal", align="bottom-right", heads=1)

    assert (result["weights"].values[:, 0] > 0).sum(-1).tolist() == [[0, 0, 1], [1, 2, 3]]
    assert codes(result) == ["empty-rows"]


# ── positions ────────────────────────────────────────────────────────────────────────────────────
RESTARTED = [0, 1, 2, 0, 1]


def test_positions_that_repeat_under_a_causal_mask_are_warned_of():
    x = draw_normal(1, T, D)

    result = run(attncli.Problem(embeddings=x, positions=RESTARTED), mask="causal")

    assert codes(result) == ["repeated-positions"]
    assert "lets query 0 see key 3, which comes later; --mask-by index" in result.warnings[0]


@pytest.mark.parametrize("mask", ["window:left=1,right=0", "window:right=0", "causal and window:left=2"])
def test_a_window_that_ends_at_the_query_is_as_a_causal_mask(mask):
    result = run(attncli.Problem(embeddings=draw_normal(1, T, D), positions=RESTARTED), mask=mask)
    assert "lets query 0 see key 3, which comes later" in result.warnings[0]


@pytest.mark.parametrize("mask", ["window:left=1", "window:left=1,right=1", "chunk:size=2", "dilated:rate=2"])
def test_any_mask_that_positions_open_is_warned_of(mask):
    """Positions [0, 1, 2, 0, 1]: tokens far apart are near by position."""
    x = attncli.Problem(embeddings=draw_normal(1, T, D), positions=RESTARTED)

    by_position = run(x, ("weights",), mask=mask)
    by_index = run(x, ("weights",), mask=mask, mask_by="index")

    [warning] = by_position.warnings
    i, j = map(int, re.search(r"lets query (\d) see key (\d), which its place in the sequence hides", warning).groups())
    assert by_position["weights"].values[i, j] > 0 == by_index["weights"].values[i, j]
    assert "repeated-positions" not in codes(by_index)


def test_a_cache_of_as_many_tokens_as_heads_is_said_to_be_heads_first():
    fields = {name: draw_normal(i, 1, 3, 2, D) for i, name in enumerate("qkv")}
    caches = {tokens: {name: draw_normal(9, 1, 2, tokens, D) for name in "kv"} for tokens in (1, 2, 4)}

    warned = run(attncli.Problem(**fields, layout="bthd", past=caches[2]))
    others = [run(attncli.Problem(**fields, layout="bthd", past=caches[n])) for n in (1, 4)]
    others += [run(attncli.Problem(**{n: x.swapaxes(1, 2) for n, x in fields.items()}, past=caches[2]))]

    assert codes(warned) == ["past-layout"]
    assert [codes(other) for other in others] == [[], [], []]
    np.testing.assert_array_equal(warned["weights"].values, others[2]["weights"].values)


def test_positions_that_go_back_are_warned_of():
    result = run(attncli.Problem(embeddings=draw_normal(1, 4, D), positions=[5, 6, 0, 1]), mask="causal")
    assert result.warnings[0].startswith("repeated-positions: positions go back, so the mask lets query 0 see key 2")


@pytest.mark.parametrize(
    ("shape", "heads", "is_warned"),
    [((5, 2, 4), 2, True), ((2, 5, 4), 2, True), ((5, 3, 4), 2, False), ((5, 2, 4), 4, False), ((2, 2, 4), 1, False)],
)
def test_heads_that_another_axis_may_hold_are_said(shape, heads, is_warned):
    x = draw_normal(1, *shape)
    result = run(attncli.Problem(q=x, k=x, v=x), heads=heads)
    assert codes(result) == (["read-as-batch"] if is_warned else [])


@pytest.mark.parametrize(
    ("more", "choices"),
    [
        ({"positions": [0, 1, 2, 3, 4]}, {"mask": "causal"}),
        ({"positions": [0, 2, 4, 6, 9]}, {"mask": "window:left=1"}),
        ({"positions": RESTARTED, "segments": [0, 0, 0, 1, 1]}, {"mask": "window:left=1,right=1 and document"}),
        ({"positions": [3, 3, 3, 3, 3]}, {"position": "rope"}),
        ({"positions": RESTARTED, "segments": [0, 0, 0, 1, 1]}, {"mask": "causal and document"}),
        ({"positions": RESTARTED}, {"mask": "causal", "mask_by": "index"}),
    ],
    ids=str,
)
def test_no_warning_where_no_later_key_is_seen(more, choices):
    result = run(attncli.Problem(embeddings=draw_normal(1, T, D), **more), **choices)

    assert "repeated-positions" not in codes(result)


def test_the_item_that_sees_a_later_key_is_named():
    positions = [[0, 1, 2, 3, 4], [0, 1, 1, 2, 3]]

    result = run(attncli.Problem(embeddings=draw_normal(1, 2, T, D), positions=positions), mask="causal", heads=1)

    assert "lets query 1 of item 1 see key 2" in result.warnings[0]


@pytest.mark.parametrize("mask", ["causal", "window:left=1,right=0", "causal and not prefix:length=1", "chunk:size=2"])
@pytest.mark.parametrize("position", ["rope", "alibi"])
def test_masks_by_index_are_those_of_positions_that_count_up(mask, position):
    """Positions turn and bias as before; what is hidden is what would be without them."""
    x = draw_normal(1, T, D)
    shown = run(attncli.Problem(embeddings=x), ("mask",), mask=mask)["mask"].values

    by_index = run(
        attncli.Problem(embeddings=x, positions=RESTARTED),
        ("scores", "mask", "weights"),
        mask=mask,
        position=position,
        mask_by="index",
        heads=1,
    )
    given = run(
        attncli.Problem(embeddings=x, positions=RESTARTED, mask=shown[None, None]),
        ("scores", "weights"),
        mask="given",
        position=position,
        heads=1,
    )

    np.testing.assert_array_equal(np.broadcast_to(by_index["mask"].values, (T, T)), shown)
    np.testing.assert_array_equal(by_index["weights"].values, given["weights"].values)
    assert by_index.variant["mask_by"] == "index"


def test_masks_by_index_need_an_alignment_of_their_own():
    problem = attncli.Problem(
        q=draw_normal(1, 2, D), k=draw_normal(2, M, D), positions=[7, 7], k_positions=list(range(M))
    )

    with pytest.raises(attncli.AttnError) as raised:
        run(problem, ("weights",), mask="causal", mask_by="index")
    aligned = run(problem, ("weights",), mask="causal", mask_by="index", align="bottom-right")

    assert raised.value.code == "align-needed"
    assert (aligned["weights"].values > 0).tolist() == [[True] * (M - 1) + [False], [True] * M]


# ── projection ───────────────────────────────────────────────────────────────────────────────────
def test_a_projection_that_is_asked_for_is_done_or_refused():
    q, w = draw_normal(1, T, D), draw_normal(2, D, D)
    with_matrices = attncli.Problem(q=q, k=q, v=q, parameters={"w_q": w, "w_k": w, "w_v": w})

    with pytest.raises(attncli.AttnError) as raised:
        run(with_matrices, projection="given")
    unasked = run(with_matrices)
    followed = run(attncli.Problem(embeddings=q, parameters=with_matrices.parameters), projection="given")
    output_only = run(attncli.Problem(q=q, k=q, v=q, parameters={"w_o": w}), ("context", "output"), projection="given")

    assert raised.value.code == "already-projected"
    assert codes(unasked) == ["unused-field"] * 3
    np.testing.assert_allclose(followed["weights"].values.sum(-1), 1)
    assert not np.allclose(followed["weights"].values, unasked["weights"].values)
    np.testing.assert_allclose(output_only["output"].values, output_only["context"].values @ w)


@pytest.mark.parametrize(
    "names",
    [("q_proj.weight", "k_proj.weight", "v_proj.weight"), ("in_proj_weight",), ("c_attn.weight",), ("qkv_proj.bias",)],
    ids=str,
)
def test_arrays_by_their_names_in_frameworks_are_not_left_out_under_a_projection_that_is_asked_for(names):
    q, w = draw_normal(1, T, D), draw_normal(2, *((D, D) if len(names) == 3 else (3 * D, D)))
    arrays = {name: w[:, 0] if name.endswith("bias") else w for name in names}
    problem = attncli.Problem(q=q, k=q, v=q, parameters=arrays)

    with pytest.raises(attncli.AttnError) as raised:
        run(problem, projection="given", heads=1)

    assert raised.value.code == "already-projected"
    assert codes(run(problem, heads=1)) == ["unused-field"] * len(names)


# ── empty rows ───────────────────────────────────────────────────────────────────────────────────
def test_a_query_that_sees_nothing_is_named_by_its_token():
    x, mask = draw_normal(1, 3, D), np.array([[False] * 3, [True] * 3, [False] * 3])

    labelled = run(attncli.Problem(embeddings=x, tokens=["the", "cat", "sat"], mask=mask))
    unlabelled = run(attncli.Problem(embeddings=x, mask=mask))
    of_items = run(
        attncli.Problem(
            embeddings=np.stack([x, x]),
            tokens=[["the", "cat", "sat"], ["a", "dog", "ran"]],
            mask=np.stack([mask, ~mask]),
        )
    )

    assert labelled.warnings == ("empty-rows: queries 0 (the) and 2 (sat) see no key: weights and context are 0",)
    assert unlabelled.warnings == ("empty-rows: queries 0 and 2 see no key: weights and context are 0",)
    assert "batch 0 query 0 (the), batch 0 query 2 (sat) and batch 1 query 1 (dog) see no key" in of_items.warnings[0]


# ── tokens that masks name ───────────────────────────────────────────────────────────────────────
def test_a_mask_that_names_an_absent_token_is_warned_of():
    x = attncli.Problem(embeddings=draw_normal(1, 3, D))

    absent = run(x, mask="causal or global:tokens=0+7+9")
    present = run(x, mask="causal or global:tokens=0+2")

    assert absent.warnings == ("absent-token: mask global names tokens 7 and 9, but there are 3 keys, counted from 0",)
    assert codes(present) == []


def test_two_coordinates_a_token_are_no_positions():
    with pytest.raises(attncli.AttnError) as raised:
        run(
            attncli.Problem(embeddings=draw_normal(1, 4, D), positions=[[0, 0], [0, 1], [1, 0], [1, 1]]),
            position="rope",
        )

    assert raised.value.message == "positions must hold one number for each of the queries, but here there are 2"
    assert "M-RoPE" in raised.value.help


# ── what a review found ──────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("more", [{}, {"past": True}], ids=["as many keys", "a past"])
def test_bottom_right_counts_lengths_where_queries_and_new_keys_are_as_many(more):
    past, n = (2, 3) if more else (0, 3)
    k = draw_normal(2, 2, n, D)
    fields = {"q": k, "k": k, "v": k, "lengths": [2 + past, n + past]}
    if more:
        cached = draw_normal(3, 2, 1, past, D)
        fields["past"] = {"k": cached, "v": cached}

    counts = run(attncli.Problem(**fields), ("visible_keys",), mask="causal", align="bottom-right", heads=1)

    assert counts["visible_keys"].values[:, 0].tolist() == [
        [max(0, length - n + i + 1) for i in range(n)] for length in fields["lengths"]
    ]


def test_positions_of_keys_alone_repeat_as_well():
    x = draw_normal(1, 4, D)

    result = run(attncli.Problem(q=x, k=x, v=x, k_positions=[0, 1, 0, 1]), mask="causal")

    assert "lets query 0 see key 2" in result.warnings[0]


def test_positions_that_repeat_at_the_end_of_a_long_sequence_are_found():
    positions = [*range(4400), *range(4300, 4400)]
    x = np.zeros((4500, 1), np.float32)

    result = run(attncli.Problem(embeddings=x, positions=positions), ("visible_keys",), mask="causal")

    assert "lets query 4300 see key 4400" in result.warnings[0]


@pytest.mark.parametrize("normalizer", ["softmax", "sigmoid", "hardmax", "entmax15"])
def test_scores_that_overflow_below_are_warned_of(normalizer):
    problem = attncli.Problem(q=[[-300.0, 0.0]], k=[[300.0, 0.0], [260.0, 0.0]], v=[[1.0], [2.0]])

    narrow = run(problem, dtype="float16", normalizer=normalizer)
    wide = run(problem, dtype="float32", normalizer=normalizer)

    assert codes(narrow) == ["not-finite"]
    assert codes(wide) == []


# ── a decoder's two attentions ───────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("name", "cross_attention"),
    [("t5-decoder", "--variant cross --scale none"), ("vaswani-decoder", "--variant cross")],
)
def test_a_memory_under_a_decoders_self_attention_is_told_of(name, cross_attention):
    x, parameters = draw_normal(1, T, D), {"bias_table": draw_normal(2, 32, 2)} if name == "t5-decoder" else {}
    problems = [
        attncli.Problem(embeddings=x, memory={"embeddings": draw_normal(3, keys, D)}, parameters=parameters)
        for keys in (T, M)
    ]

    alone = run(attncli.Problem(embeddings=x, parameters=parameters), name=name, heads=2)
    as_many = run(problems[0], name=name, heads=2)
    with pytest.raises(attncli.AttnError) as caught:
        run(problems[1], name=name, heads=2)

    assert "decoder-memory" not in codes(alone)
    [warning] = [warning for warning in as_many.warnings if warning.startswith("decoder-memory: ")]
    assert warning.endswith(f"to a memory is {cross_attention}")
    assert caught.value.code == "align-needed"
    assert caught.value.help.startswith(
        f"the attention of {name}'s layers to a memory is {cross_attention}; else --align"
    )


# ── ways out of layouts and alignment ────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("layout", "wrong", "sizes"),
    [
        ("thd", None, (5, 7, 2, 2)),
        ("thd", "htd", (5, 7, 2, 2)),
        ("thd", None, (5, 7, 4, 2)),
        ("htd", None, (5, 7, 4, 2)),
        ("bthd", None, (5, 7, 2, 2)),
        ("bthd", "bhtd", (5, 7, 4, 2)),
        ("bhtd", "bthd", (5, 7, 2, 2)),
        ("bhtd", "bthd", (5, 5, 2, 2)),
        ("bthd", None, (5, 5, 2, 2)),
    ],
)
@pytest.mark.parametrize("is_said", [False, True], ids=["heads unsaid", "heads said"])
def test_a_layout_that_does_not_fit_offers_the_one_that_does(layout, wrong, sizes, is_said):
    n, m, heads, kv_heads = sizes

    def draw(seed, t, h):
        lengths = {"b": 2, "h": h, "t": t, "d": D}
        return draw_normal(seed, *(lengths[axis] for axis in layout))

    fields = {"q": draw(1, n, heads), "k": draw(2, m, kv_heads), "v": draw(3, m, kv_heads)}
    choices = {"heads": heads} if is_said else {}
    expected = run(attncli.Problem(**fields, layout=layout))
    if n == m and not is_said:  # as many tokens everywhere: nothing can speak against it
        return

    with pytest.raises(attncli.AttnError) as raised:
        run(attncli.Problem(**fields, layout=wrong), **choices)
    offered = re.findall('"layout": "([a-z]+)"', raised.value.help)
    followed = run(attncli.Problem(**fields, layout=offered[0]), **choices)

    assert layout in offered
    if offered == [layout]:
        np.testing.assert_array_equal(followed["weights"].values, expected["weights"].values)


def test_masks_by_index_do_not_ask_for_positions_which_they_do_not_read():
    fields = {"q": draw_normal(1, 2, D), "k": draw_normal(2, M, D), "k_positions": list(range(M))}

    with pytest.raises(attncli.AttnError) as by_position:
        run(attncli.Problem(**fields), ("weights",), mask="causal")
    with pytest.raises(attncli.AttnError) as by_index:
        run(attncli.Problem(**fields), ("weights",), mask="causal", mask_by="index")

    assert (by_position.value.code, by_index.value.code) == ("missing-positions", "align-needed")
    assert by_index.value.help.endswith("as FlashAttention does")


# ── a law ────────────────────────────────────────────────────────────────────────────────────────
LENGTH = st.integers(1, 5)


@pytest.mark.slow
@settings(max_examples=200)
@given(st.integers(3, 4), st.data())
def test_arrays_without_a_layout_are_read_with_a_warning_where_another_layout_fits(rank, data):
    """What is computed is the rank-4 spelling; what is refused offers only layouts that compute."""
    q_shape = [data.draw(LENGTH) for _ in range(rank - 1)]
    k_shape = [data.draw(st.sampled_from([n, data.draw(LENGTH)])) for n in q_shape]
    arrays = {"q": draw_normal(1, *q_shape, D), "k": draw_normal(2, *k_shape, D), "v": draw_normal(3, *k_shape, D)}

    try:
        result = run(attncli.Problem(**arrays), ("weights",))
    except attncli.AttnError as error:
        for layout in re.findall('"layout": "([a-z]+)"', error.help):
            run(attncli.Problem(**arrays, layout=layout), ("weights",))
        return
    whole = {name: x if rank == 4 else x[:, None] for name, x in arrays.items()}
    right = run(attncli.Problem(**whole, layout="bhtd"), ("weights",))["weights"].values
    is_square = rank == 4 and q_shape[1] == q_shape[2] > 1 and k_shape == q_shape

    np.testing.assert_array_equal(result["weights"].values, right if rank == 4 else right[:, 0])
    assert ("read-as-batch" in codes(result)) == (rank == 3)
    assert ("read-as-heads-first" in codes(result)) == is_square
