"""What a problem or a variant cannot have is refused by name; nothing but our own errors comes out."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

import attncli
from attncli.errors import AttnError, InputError, OptionError
from tests.helpers import compute, draw_normal, step_values

pytestmark = pytest.mark.usefixtures("own_stream")
B, H, G, N, M, D, E, C = 2, 6, 3, 4, 5, 8, 7, 9  # batch, heads, kv heads, queries, keys, width of q, of another k, of v
EVEN, ODD = (
    {"q": draw_normal(131, N, D), "k": draw_normal(132, N, D)},
    {"q": draw_normal(133, N, E), "k": draw_normal(134, N, E)},
)


HEADED = {n: draw_normal(135, B, 3, N, D) for n in "qkv"}


ROPE2 = {"q": draw_normal(136, N, 2), "k": draw_normal(137, N, 2)}


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "rope on an odd width": (ODD, {"position": "rope"}, "odd-width", "7 of 7"),
    "rope on odd dims": (EVEN, {"position": "rope:dims=3"}, "odd-width", "3 of 8"),
    "rope on more than there is": (
        EVEN,
        {"position": "rope:dims=10"},
        "odd-width",
        "turns 10 columns, but there are only 8",
    ),
    "rope on a fraction of nothing": (EVEN, {"position": "rope:fraction=0.1"}, "odd-width", "0 of 8"),
    "proportional on an odd width": (
        ODD,
        {"position": "rope:scaling=proportional,fraction=0.5"},
        "odd-width",
        "7 of 7",
    ),
    "sinusoids on q and k": (EVEN, {"position": "sinusoidal"}, "already-projected", "sinusoidal"),
    "sinusoids on an odd width": ({"embeddings": ODD["q"]}, {"position": "sinusoidal"}, "odd-width", "7"),
    "t5 without a table": (EVEN, {"position": "t5"}, "missing-parameters", "bias_table"),
    "relative without a table": (EVEN, {"position": "relative:max-distance=2"}, "missing-parameters", "bias_table"),
    "a table of other buckets": (
        EVEN | {"parameters": {"bias_table": np.zeros((31, 1))}},
        {"position": "t5"},
        "shape-mismatch",
        "(31, 1)",
    ),
    "a table of 2m rows": (
        EVEN | {"parameters": {"bias_table": np.zeros((6, 1))}},
        {"position": "relative:max-distance=3"},
        "shape-mismatch",
        "(7, 1)",
    ),
    "a table of other heads": (
        HEADED | {"parameters": {"bias_table": np.zeros((7, 2))}},
        {"position": "relative:max-distance=3"},
        "shape-mismatch",
        "(7, 3)",
    ),
    "longrope without factors": (
        EVEN,
        {"position": "rope:scaling=longrope,original=8"},
        "missing-parameters",
        "rope_short",
    ),
    "longrope of too few factors": (
        EVEN | {"parameters": {"rope_short": np.ones(3), "rope_long": np.ones(3)}},
        {"position": "rope:scaling=longrope,original=8"},
        "shape-mismatch",
        "(4)",
    ),
    "general without a matrix": (EVEN, {"score": "general"}, "missing-parameters", "score_w_q"),
    "general with another matrix": (
        EVEN | {"parameters": {"score_w_q": np.ones((D, E))}},
        {"score": "general"},
        "shape-mismatch",
        "(8, 8)",
    ),
    "a sink without sinks": (EVEN, {"sink": "given"}, "missing-parameters", "sinks"),
    "sinks of other heads": (
        HEADED | {"parameters": {"sinks": np.ones(2)}},
        {"sink": "given"},
        "shape-mismatch",
        "(3)",
    ),
    "odd heads in pairs": (HEADED, {"head_mixing": "differential"}, "heads-mismatch", "3 heads"),
    "talking heads without a word": (HEADED, {"head_mixing": "talking-heads"}, "missing-parameters", "talking_pre"),
    "half of the vectors of λ": (
        {n: draw_normal(138, B, h, N, w) for n, h, w in (("q", 2, D), ("k", 2, D), ("v", 1, 2 * D))}
        | {"parameters": {"lambda_q1": np.ones(D), "lambda_k1": np.ones(D)}},
        {"head_mixing": "differential"},
        "missing-parameters",
        "lambda_k2 and lambda_q2",
    ),
    "a gain of another width": (
        EVEN | {"parameters": {"q_norm": np.ones(E)}},
        {"qk_norm": "rms"},
        "shape-mismatch",
        "(8)",
    ),
    "a head's gain for all heads": (
        HEADED | {"parameters": {"q_norm": np.ones(D)}},
        {"qk_norm": "rms:scope=full"},
        "shape-mismatch",
        "(24)",
    ),
    "cosine of two widths": ({"q": EVEN["q"], "k": ODD["k"]}, {"score": "cosine"}, "shape-mismatch", "cosine"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_problem_cannot_have_is_refused(name: str) -> None:
    fields, choices, code, says = REFUSED[name]
    with pytest.raises(InputError) as caught:
        compute(fields, **choices)

    assert caught.value.code == code
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        *(
            ({"sink": "zero", "normalizer": n}, n)
            for n in ("sigmoid", "sparsemax", "entmax15", "topk:k=2", "hardmax", "sum", "none")
        ),
        ({"sink": "given", "normalizer": "relu"}, "relu"),
        ({"position": "rope:scaling=linear"}, "factor"),
        ({"position": "rope:scaling=yarn,factor=2"}, "original"),
        ({"position": "rope:factor=2"}, "factor"),
        ({"position": "rope:dims=2,fraction=0.5"}, "fraction"),
        ({"position": "rope:scaling=llama3,factor=2,original=8,low=4,high=4"}, "high"),
        ({"position": "rope:layout=quarter"}, "quarter"),
        ({"position": "rope:fraction=1.5"}, "1.5"),
        ({"position": "alibi:max=0"}, "0"),
        ({"position": "relative"}, "max-distance"),
        ({"normalizer": "entmax:alpha=0.5"}, "0.5"),
        ({"normalizer": "topk"}, "k"),
        ({"normalizer": "topk:k=0"}, "0"),
        ({"qk_norm": "rms:eps=-1"}, "-1"),
        ({"score": "kernel:phi=gelu"}, "gelu"),
        ({"head_mixing": "differential:depth=-1"}, "-1"),
        ({"log_n": 1}, "1"),
        ({"mask": "natten:kernel=0"}, "0"),
        ({"mask": "fixed:summary=1"}, "stride"),
        ({"mask": "fixed:stride=3,summary=4"}, "summary"),
        ({"mask": "bigbird:window=2"}, "odd"),
    ],
)
def test_what_a_variant_cannot_be_is_refused(choices: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError) as caught:
        attncli.Variant(**choices)

    assert says in str(caught.value) + (caught.value.help or "")


# Each of these must be refused by attncli itself (an AttnError), or computed: never a bare error of torch or Python.
UNREFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ntk on two columns": (ROPE2, {"position": "rope:scaling=ntk,factor=2"}),
    "dynamic on two columns": (ROPE2, {"position": "rope:scaling=dynamic,factor=2,original=2"}),
    "yarn with theta 1": (EVEN, {"position": "rope:theta=1,scaling=yarn,factor=2,original=4"}),
    "t5 whose distances are all exact": (
        {"q": np.zeros((20, 2)), "k": np.zeros((20, 2)), "parameters": {"bias_table": np.zeros((32, 1))}},
        {"position": "t5:buckets=32,max-distance=8"},
    ),
    "a gain of (H, H·d) for all heads": (
        HEADED | {"parameters": {"q_norm": np.ones((3, 3 * D))}},
        {"qk_norm": "rms:scope=full"},
    ),
    "rope on keys of another width": (
        {"q": EVEN["q"], "k": ODD["k"], "parameters": {"score_w_q": np.ones((D, E))}},
        {"position": "rope", "score": "general"},
    ),
    "rope on keys narrower than dims": (
        {"q": EVEN["q"], "k": EVEN["k"][:, :4], "parameters": {"score_w_q": np.ones((D, 4))}},
        {"position": "rope:dims=6", "score": "general"},
    ),
    "sinusoids on a memory of odd width": (
        {"embeddings": EVEN["q"], "memory": {"embeddings": ODD["k"]}, "parameters": {"w_k": np.ones((E, D))}},
        {"position": "sinusoidal", "align": "top-left"},
    ),
    "additive of two widths": ({"q": EVEN["q"], "k": ODD["k"]}, {"score": "additive"}),
    "additive with half its matrices": (EVEN | {"parameters": {"score_w_q": np.ones((D, 5))}}, {"score": "additive"}),
    "concat with weights of another width": (EVEN | {"parameters": {"score_v": np.ones(5)}}, {"score": "concat"}),
}


@pytest.mark.parametrize("name", UNREFUSED)
def test_nothing_but_our_own_errors_comes_out(name: str) -> None:
    fields, choices = UNREFUSED[name]
    with contextlib.suppress(AttnError):
        assert np.isfinite(step_values(compute(fields, **choices), "weights")).all()


@pytest.mark.parametrize(
    ("shape", "way_out"),
    [
        ((1, 2, 3, 5, 5), "remove the first axis"),
        ((1, 1, 2, 3, 5, 5), "remove the first 2 axes"),
        ((2, 2, 3, 5, 5), "it has 1 axis too many: write one problem for each part"),
        ((1, 2, 2, 3, 5, 5), "it has 2 axes too many: write one problem for each part"),
    ],
)
def test_a_mask_of_too_many_axes_is_told_how_it_has_fewer(shape, way_out):
    with pytest.raises(InputError, match="mask has shape") as caught:
        compute({"embeddings": np.zeros((5, 2)), "mask": np.ones(shape, bool)})

    assert caught.value.help == way_out


def test_lengths_that_are_a_mask_are_told_to_count():
    with pytest.raises(InputError, match="lengths has shape") as caught:
        compute({"embeddings": np.zeros((2, 3, 2)), "lengths": [[1, 1, 0], [1, 0, 0]]})

    assert "one number for each item" in caught.value.help


@pytest.mark.parametrize(
    ("width", "position", "way_out"),
    [
        (7, "rope", "give it an even width or an even dims= of at most 6, such as dims=6"),
        (7, "rope:dims=8", "an even dims= of at most 6, such as dims=6"),
        (1, "rope", "give it an even width"),
        (8, "rope:fraction=0.1", "use a larger fraction, so that at least two columns are turned"),
    ],
)
def test_columns_that_form_no_pairs_are_told_how_they_do(width, position, way_out):
    q = np.ones((3, width))
    with pytest.raises(InputError) as caught:
        compute({"q": q, "k": q, "v": q}, position=position)

    assert (caught.value.code, caught.value.help) == ("odd-width", way_out)
