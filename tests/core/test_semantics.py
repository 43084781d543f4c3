"""Where libraries disagree: what attn decides, one test for each such point, named by the point.

Section numbers are those of the survey behind the design: 2.1 empty rows … 2.14 other, 7 acceptance values.
"""

from __future__ import annotations

import numpy as np
import pytest

from attncli import Problem, Variant, attend
from attncli.errors import InputError, OptionError
from attncli.plan import make_plan

RNG = np.random.default_rng(0)
Q, K, V = RNG.normal(size=(3, 4)), RNG.normal(size=(5, 4)), RNG.normal(size=(5, 2))
HIDING = [[True] * 5, [False] * 5, [True, False, True, False, True]]


def weights(problem=None, **choices):
    return attend(problem or Problem(q=Q, k=K, v=V), Variant(**choices))["weights"].values


# ── 2.1 fully masked rows ────────────────────────────────────────────────────────────────────────
def test_2_1_a_row_that_sees_nothing_is_zero_and_named():
    result = attend(Problem(q=Q, k=K, v=V, mask=HIDING))

    np.testing.assert_array_equal(result["weights"].values[1], np.zeros(5))
    np.testing.assert_array_equal(result["context"].values[1], np.zeros(2))
    assert result.warnings == ("empty-rows: query 1 sees no key: weights and context are 0",)
    assert result["log_sum_exp"].values[1] == -np.inf
    assert result["visible_keys"].values.tolist() == [5, 0, 3]
    assert result["entropy"].values[1] == 0


@pytest.mark.parametrize(("how", "row"), [("zero", [0] * 5), ("nan", [np.nan] * 5), ("uniform", [0.2] * 5)])
def test_2_1_empty_rows_are_a_choice(how, row):
    problem = Problem(q=Q, k=K, v=V, mask=HIDING)

    result = attend(problem, Variant(empty_rows=how))

    np.testing.assert_array_equal(result["weights"].values[1], row)
    np.testing.assert_allclose(result["context"].values[1], np.array(row) @ V)
    np.testing.assert_array_equal(result["weights"].values[[0, 2]], weights(problem)[[0, 2]])
    assert result.warnings[0].startswith("empty-rows: query 1 sees no key")


def test_2_1_empty_rows_can_be_refused_before_anything_is_computed():
    with pytest.raises(InputError, match=r"query 1 sees no key, and empty_rows is error"):
        make_plan(Problem(q=Q, k=K, v=V, mask=HIDING), Variant(empty_rows="error"))


def test_2_1_rows_are_named_by_batch_and_head():
    mask = np.ones((2, 3, 2, 2), bool)
    mask[1, 2, 0] = mask[0, 0, 1] = False
    x = RNG.normal(size=(2, 2, 6))

    [warning] = attend(Problem(embeddings=x, mask=mask), Variant(heads=3)).warnings

    assert (
        warning == "empty-rows: batch 0 head 0 query 1 and batch 1 head 2 query 0 see no key: weights and context are 0"
    )


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_2_1_nothing_of_a_hidden_key_reaches_a_query(poison):
    k, v = K.copy(), V.copy()
    k[3], v[3] = poison, poison
    hidden = Problem(q=Q, k=k, v=v, mask=[[True, True, True, False, True]])
    kept = [0, 1, 2, 4]

    poisoned = attend(hidden)
    without = attend(Problem(q=Q, k=K[kept], v=V[kept]))

    np.testing.assert_allclose(poisoned["context"].values, without["context"].values, rtol=1e-14)
    np.testing.assert_allclose(poisoned["weights"].values[:, kept], without["weights"].values, rtol=1e-14)
    assert (poisoned["weights"].values[:, 3] == 0).all()


def test_2_1_what_is_visible_does_reach_a_query():
    v = V.copy()
    v[3, 0] = np.nan

    context = attend(Problem(q=Q, k=K, v=v, mask=[[True] * 5, [True, True, True, False, True], [True] * 5]))[
        "context"
    ].values

    np.testing.assert_array_equal(np.isnan(context), [[True, False], [False, False], [True, False]])


def test_2_1_a_bias_of_minus_infinity_hides_and_a_large_one_does_not():
    hidden = attend(Problem(q=Q, k=K, v=V, bias=[["-Infinity"] * 5] * 3))
    large = attend(Problem(q=Q, k=K, v=V, bias=[[-1e9] * 5] * 3))

    assert (hidden["weights"].values == 0).all()
    assert not hidden["mask"].values.any()
    np.testing.assert_allclose(large["weights"].values.sum(-1), 1)
    assert "mask" not in large


# ── 2.2 alignment ────────────────────────────────────────────────────────────────────────────────
ZERO = {"q": [[0.0]] * 2, "k": [[0.0]] * 4, "v": np.eye(4)}


@pytest.mark.parametrize(
    ("problem", "align", "rows"),
    [
        (ZERO, "top-left", [[1, 0, 0, 0], [0.5, 0.5, 0, 0]]),
        (ZERO, "bottom-right", [[1 / 3, 1 / 3, 1 / 3, 0], [0.25] * 4]),
        ({"q": [[0.0]] * 4, "k": [[0.0]] * 2, "v": np.eye(2)}, "bottom-right", [[0, 0], [0, 0], [1, 0], [0.5, 0.5]]),
    ],
)
def test_2_2_and_7_alignment(problem, align, rows):
    np.testing.assert_allclose(attend(Problem(**problem), Variant(mask="causal", align=align))["context"].values, rows)


def test_2_2_alignment_is_never_guessed():
    with pytest.raises(
        InputError, match="2 queries meet 4 keys, and causal needs to know which query is next to which key"
    ):
        make_plan(Problem(**ZERO), Variant(mask="causal"))
    make_plan(Problem(**ZERO), Variant(mask="not prefix:length=1"))  # a mask of the keys alone needs no alignment


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ({"positions": [1, 3]}, ["xx..", "xxxx"]),
        ({"positions": [-1, 0]}, ["....", "x..."]),
        ({"positions": [0, 9], "k_positions": [9, 0, 10, -5]}, [".x.x", "xx.x"]),
    ],
)
def test_2_2_causal_is_about_positions(fields, seen):
    mask = attend(Problem(**ZERO, **fields), Variant(mask="causal"))["mask"].values

    assert ["".join("x" if cell else "." for cell in row) for row in mask] == seen


def test_2_2_new_tokens_continue_the_past_and_keys_follow_positions():
    past = {"k": np.zeros((1, 1, 2, 1)), "v": np.zeros((1, 1, 2, 1))}
    decoded = make_plan(Problem(embeddings=[[1.0], [2.0]], past=past), Variant(mask="causal"))
    padded = make_plan(
        Problem(embeddings=np.ones((2, 3, 1)), positions=[[0, 1, 2], [-1, 0, 1]]), Variant(mask="causal")
    )

    assert (decoded.q_pos.tolist(), decoded.k_pos.tolist()) == ([2, 3], [0, 1, 2, 3])
    assert padded.k_pos.tolist() == [[0, 1, 2], [-1, 0, 1]]


def test_2_2_masks_intersect_and_the_files_mask_joins_them():
    lower = np.tri(3, dtype=bool)
    x = RNG.normal(size=(3, 2))

    joined = attend(Problem(embeddings=x, mask=lower), Variant(mask=["window:left=1", "prefix:length=2"]))
    named = attend(Problem(embeddings=x, mask=lower), Variant(mask="given or prefix:length=3"))

    assert joined.variant["mask"] == "window:left=1 and prefix:length=2 and given"
    np.testing.assert_array_equal(joined["mask"].values, [[1, 0, 0], [1, 1, 0], [0, 1, 0]])
    assert named["mask"].values.all()


# ── 2.3 scale ────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("scale", "factor"), [("auto", 0.5), ("none", 1), (0.25, 0.25), (-2, -2), ("1e-3", 0.001), (0, 0)]
)
def test_2_3_scale(scale, factor):
    result = attend(Problem(q=Q, k=K), Variant(scale=scale))

    last = result["scaled_scores" if factor != 1 else "scores"].values
    np.testing.assert_allclose(last, Q @ K.T * factor, rtol=1e-14)
    assert ("scaled_scores" in result) == (factor != 1)


def test_2_3_the_scale_is_of_one_head_and_says_why():
    result = attend(Problem(embeddings=RNG.normal(size=(3, 18))), Variant(heads=2))

    assert result["scaled_scores"].formula == "s × 0.333333 = s / √d_k, d_k = 9"
    assert "scale 0.333333 = 1/√9" in result.summary


# ── 2.4 order ────────────────────────────────────────────────────────────────────────────────────
def test_2_4_softcap_before_or_after_the_bias():
    problem = Problem(q=[[1.0]], k=[[3.0], [1.0], [2.0]], bias=[[0, -1, -2]])

    np.testing.assert_allclose(weights(problem, softcap=5), [[0.8857, 0.0596, 0.0546]], atol=5e-5)
    np.testing.assert_allclose(
        weights(problem, softcap=5, chain="scale,bias,softcap,mask"), [[0.8800, 0.0600, 0.0600]], atol=5e-5
    )


@pytest.mark.parametrize("chain", ["mask,scale,softcap", "scale,mask,softcap,temperature", "softcap,mask,scale"])
@pytest.mark.parametrize("scale", [0.5, -0.5])
def test_2_4_what_is_masked_stays_masked_wherever_the_mask_stands(chain, scale):
    result = attend(
        Problem(embeddings=RNG.normal(size=(4, 3))), Variant(mask="causal", chain=chain, softcap=5, scale=scale)
    )
    hidden = ~np.tri(4, dtype=bool)

    assert (result["weights"].values[hidden] == 0).all()
    for step in list(result)[[s.name for s in result].index("masked_scores") :]:
        if step.name.endswith("_scores"):
            assert (step.values[hidden] == -np.inf).all(), step.name


def test_2_4_a_link_in_use_cannot_be_left_out():
    with pytest.raises(OptionError, match="softcap is 5, but the chain scale,mask leaves softcap out"):
        Variant(softcap=5, chain="scale,mask")
    with pytest.raises(InputError, match="leaves out mask"):
        make_plan(Problem(q=Q, k=K, lengths=[2]), Variant(chain="scale"))
    with pytest.raises(InputError, match="leaves out scale"):
        make_plan(Problem(q=Q, k=K), Variant(chain="mask"))
    make_plan(Problem(q=Q, k=K), Variant(chain="none", scale="none"))


def test_2_4_a_link_used_twice_leaves_two_steps():
    result = attend(Problem(q=Q, k=K), Variant(chain="scale,softcap,scale", softcap=2))

    np.testing.assert_allclose(result["scaled_scores_2"].values, 2 * np.tanh(Q @ K.T * 0.5 / 2) * 0.5, rtol=1e-14)
    assert [s.name for s in result if "scores" in s.name] == [
        "scores",
        "scaled_scores",
        "softcapped_scores",
        "scaled_scores_2",
    ]


# ── 2.5 windows ──────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("window", "keys"),
    [
        ((2, 0), [3, 4, 5]),
        ((3, 0), [2, 3, 4, 5]),
        ((2, 2), [3, 4, 5, 6, 7]),
        ((3, 3), [2, 3, 4, 5, 6, 7]),
        ((0, 0), [5]),
        ((-1, 0), [0, 1, 2, 3, 4, 5]),
        ((0, -1), [5, 6, 7]),
    ],
)
def test_2_5_and_7_windows_count_neighbours(window, keys):
    mask = f"window:left={window[0]},right={window[1]}"
    seen = attend(Problem(embeddings=np.ones((8, 1))), Variant(mask=mask))["mask"].values[5]

    assert np.flatnonzero(seen).tolist() == keys


# ── 2.6 polarity and padding ─────────────────────────────────────────────────────────────────────
def test_2_6_true_may_attend_and_numbers_are_no_mask():
    np.testing.assert_array_equal(
        weights(Problem(q=Q, k=K, mask=[[False, True, False, False, False]]))[0], [0, 1, 0, 0, 0]
    )
    with pytest.raises(InputError, match="a mask must hold booleans"):
        make_plan(Problem(q=Q, k=K, mask=np.ones((3, 5))))
    with pytest.raises(InputError) as caught:
        make_plan(Problem(q=Q, k=K, bias=[[0, 0, "NaN", 0, 0]] * 3))
    assert "triu(ones) * -inf" in caught.value.help


def test_2_6_lengths_always_hide_padding():
    x = RNG.normal(size=(2, 4, 3))
    result = attend(Problem(embeddings=x, lengths=[4, 2]))

    assert result["mask"].axes == ("batch", "query", "key")
    assert (result["weights"].values[1, :, 2:] == 0).all()
    np.testing.assert_allclose(
        result["context"].values[1, :2], attend(Problem(embeddings=x[1, :2]))["context"].values, rtol=1e-13
    )


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((5,), ("query", "key")),
        ((3, 5), ("query", "key")),
        ((2, 1, 5), ("head", "query", "key")),
        ((4, 1, 1, 5), ("batch", "head", "query", "key")),
        ((1, 2, 3, 5), ("head", "query", "key")),
        ((), ("query", "key")),
    ],
)
def test_2_6_masks_broadcast_and_show_the_axes_they_need(shape, axes):
    q, k = RNG.normal(size=(4, 2, 3, 6)), RNG.normal(size=(4, 2, 5, 6))
    mask = RNG.random(shape) < 0.7
    result = attend(Problem(q=q, k=k, mask=mask.tolist() if shape else bool(mask)))

    assert result["mask"].axes == axes
    np.testing.assert_array_equal(
        np.broadcast_to(result["mask"].values, (4, 2, 3, 5)), np.broadcast_to(mask, (4, 2, 3, 5))
    )


def test_2_6_packing_needs_document_and_an_unread_field_is_a_warning():
    x = RNG.normal(size=(4, 2))
    unread = attend(Problem(embeddings=x, segments=[0, 0, 1, 1]))
    read = attend(Problem(embeddings=x, segments=[0, 0, 1, 1]), Variant(mask="document"))

    assert unread.warnings == ("unused-field: segments is not used by this variant",)
    assert read.warnings == ()
    np.testing.assert_allclose(
        read["context"].values[2:], attend(Problem(embeddings=x[2:]))["context"].values, rtol=1e-13
    )


# ── 2.7 dropout ──────────────────────────────────────────────────────────────────────────────────
def test_2_7_dropout_is_inverted_and_weights_are_kept_beside_it():
    import torch

    result = attend(Problem(q=Q, k=K, v=V), Variant(dropout=0.4, seed=5))
    kept = torch.rand((1, 1, 3, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(5)).numpy()[0, 0] < 0.6

    assert 0 < kept.sum() < 15
    np.testing.assert_allclose(
        result["dropout_weights"].values, np.where(kept, result["weights"].values / 0.6, 0), rtol=1e-15
    )
    np.testing.assert_allclose(result["context"].values, result["dropout_weights"].values @ V, rtol=1e-13)
    np.testing.assert_allclose(result["weights"].values.sum(-1), 1)


def test_2_7_a_parts_own_seed_wins_and_the_files_mask_wins_over_both():
    problem = Problem(q=Q, k=K)
    own = attend(problem, Variant(dropout="dropout:p=0.5,seed=7", seed=1))["dropout_weights"].values
    said = attend(problem, Variant(dropout=0.5, seed=7))["dropout_weights"].values
    given = attend(Problem(q=Q, k=K, dropout_mask=[[True, False, True, True, False]]), Variant(dropout=0.5))

    np.testing.assert_array_equal(own, said)
    assert (given["dropout_weights"].values[:, [1, 4]] == 0).all()
    assert "seed" not in given.variant


# ── 2.8 kv heads ─────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("how", "reads"), [("interleave", [0, 0, 1, 1]), ("tile", [0, 1, 0, 1])])
def test_2_8_and_7_which_kv_head_a_query_head_reads(how, reads):
    v = np.arange(2.0)[:, None, None] * np.ones((2, 1, 1))
    result = attend(Problem(q=np.zeros((4, 1, 3)), k=np.zeros((2, 1, 3)), v=v, layout="htd"), Variant(kv_map=how))

    assert result["context"].values[0].tolist() == reads


def test_2_8_fewer_kv_heads_need_projections_of_that_width():
    with pytest.raises(InputError, match="per head, queries have 2 columns and keys 6") as caught:
        make_plan(Problem(embeddings=np.ones((2, 6))), Variant(heads=3, kv_heads=1))
    assert caught.value.help == "fewer kv heads need w_k and w_v of 2 columns"


# ── 2.9 layers and their draws: see test_oracles; 2.14 names, bases and layouts ──────────────────
def test_2_9_w_layout_says_which_way_matrices_lie():
    w = RNG.normal(size=(4, 6))
    x = RNG.normal(size=(3, 4))

    straight = attend(Problem(embeddings=x, parameters={"w_q": w, "w_k": w, "w_v": w}))
    turned = attend(Problem(embeddings=x, parameters={"w_q": w.T, "w_k": w.T, "w_v": w.T}, w_layout="out-in"))

    np.testing.assert_array_equal(straight["context"].values, turned["context"].values)


def test_2_14_log_sum_exp_is_natural_and_entropy_in_bits():
    result = attend(Problem(q=[[0.0]], k=[[0.0]] * 4))

    np.testing.assert_allclose(result["log_sum_exp"].values, [np.log(4)])
    np.testing.assert_allclose(result["entropy"].values, [2.0])


def test_2_14_negative_weights_have_no_entropy_and_that_is_said():
    result = attend(Problem(q=[[1.0]], k=[[3.0], [-1.0]]), Variant(normalizer="none"))

    assert np.isnan(result["entropy"].values).all()
    assert result.warnings == ("no-entropy: some weights are negative, and the entropy there is NaN",)


def test_2_14_layouts():
    q, k, v = (RNG.normal(size=(2, 3, t, 5)) for t in (4, 6, 6))
    base = attend(Problem(q=q, k=k, v=v))

    turned = attend(Problem(q=q.swapaxes(1, 2), k=k.swapaxes(1, 2), v=v.swapaxes(1, 2), layout="bthd"))
    merged = attend(
        Problem(
            q=q.swapaxes(1, 2).reshape(2, 4, 15),
            k=k.swapaxes(1, 2).reshape(2, 6, 15),
            v=v.swapaxes(1, 2).reshape(2, 6, 15),
        ),
        Variant(heads=3),
    )
    one = attend(Problem(q=q[0], k=k[0], v=v[0], layout="htd"))

    assert turned.layout == "bthd"
    assert one.layout == "htd"
    for name in ("scores", "weights", "context", "head_context"):
        np.testing.assert_allclose(turned[name].values, base[name].values, rtol=1e-13)
        np.testing.assert_allclose(merged[name].values, base[name].values, rtol=1e-13)
        np.testing.assert_allclose(one[name].values, base[name].values[0], rtol=1e-13)
    assert one["context"].axes == ("query", "dim")


def test_2_14_npz_has_no_bfloat16_and_says_so_and_safetensors_keeps_it(attn, tmp_path):
    from attncli.readers.results import read_result
    from attncli.readers.safetensors import read_tensors
    from tests.helpers import SAMPLES

    wide = attn("compute", SAMPLES / "cat_sat.json", "--dtype", "bfloat16", "-o", "r.npz")
    kept = attn("compute", SAMPLES / "cat_sat.json", "--dtype", "bfloat16", "-o", "r.safetensors")

    says = "npz cannot hold bfloat16, so the steps are written as float32 with the same values"
    assert (wide.err, kept.err) == (f"warning[widened]: {says}\n", "")
    assert read_result(tmp_path / "r.npz").warnings == (f"widened: {says}",)
    assert "BF16" in read_tensors((tmp_path / "r.safetensors").read_bytes())[2].values()
    np.testing.assert_array_equal(
        read_result(tmp_path / "r.npz")["weights"].values, read_result(tmp_path / "r.safetensors")["weights"].values
    )


def test_heads_have_an_axis_once_they_are_named():
    x = RNG.normal(size=(3, 4))

    assert attend(Problem(embeddings=x))["weights"].axes == ("query", "key")
    assert attend(Problem(embeddings=x), Variant(heads=1))["weights"].axes == ("head", "query", "key")
    assert attend(Problem(embeddings=x[None]))["weights"].axes == ("batch", "query", "key")
    assert attend(Problem(q=x[None, None], k=x[None, None]))["k"].axes == ("batch", "kv_head", "key", "dim")


def test_a_past_shows_what_it_became():
    past = {"k": RNG.normal(size=(1, 2, 3, 2)), "v": RNG.normal(size=(1, 2, 3, 2)), "tokens": ["a", "b", "c"]}
    result = attend(
        Problem(embeddings=RNG.normal(size=(2, 4)), tokens=["d", "e"], past=past), Variant(heads=2, mask="causal")
    )

    assert result["k"].axes == ("kv_head", "new_key", "dim")
    assert result["present_k"].axes == ("batch", "kv_head", "key", "dim")
    assert result["present_k"].values.shape == (1, 2, 5, 2)
    np.testing.assert_array_equal(result["present_k"].values[:, :, :3], past["k"])
    assert result.k_tokens == ("a", "b", "c", "d", "e")
    assert result["visible_keys"].values.tolist() == [[4, 5], [4, 5]]


def test_a_result_is_the_callers_to_change():
    import torch

    q, k = torch.ones(2, 3), np.ones((2, 3))
    attend(Problem(q=q, k=q))["q"].values.zero_()
    attend(Problem(embeddings=k))["v"].values[:] = 0

    assert q.min() == 1
    assert k.min() == 1
