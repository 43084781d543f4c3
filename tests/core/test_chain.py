"""The chain from scores to weights, link by link."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.helpers import assert_close, compute, step_values
from tests.oracles.tensors import floats, stream

pytestmark = pytest.mark.usefixtures("own_stream")
INF = math.inf
B, H, G, N, M, D, C, P = 2, 6, 3, 4, 5, 7, 9, 8  # batch, heads, kv heads, queries, keys, width of q and k, of v, past
SCALE, CAP, HEAT = -0.75, 1.5, 2.5  # a negative scale turns −∞ into +∞, if anyone lets it


SEEN = np.array(
    [[[1, 0, 1, 1, 0], [0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]], bool
)  # the third query sees nothing


ADDED = floats(stream(900), 1, N, M).numpy()


ADDED[0, 3, 2] = -INF


VISIBLE = SEEN & (ADDED > -INF)  # mask allows and bias > −∞


def hide(s: np.ndarray, seen: np.ndarray = VISIBLE) -> np.ndarray:
    return np.where(seen, s, -INF)


def cap(s: np.ndarray) -> np.ndarray:
    return CAP * np.tanh(s / CAP)


# chain → (fields, choices, each step from the raw scores s)
CHAINS: dict[str, tuple[tuple[str, ...], dict[str, float], Callable[[np.ndarray], list[tuple[str, np.ndarray]]]]] = {
    "mask,scale": (
        ("mask",),
        {},
        lambda s: [("masked_scores", hide(s, SEEN)), ("scaled_scores", hide(s * SCALE, SEEN))],
    ),
    "scale,mask": (("mask",), {}, lambda s: [("scaled_scores", s * SCALE), ("masked_scores", hide(s * SCALE, SEEN))]),
    "scale,bias,softcap,mask": (
        ("mask", "bias"),
        {"softcap": CAP},
        lambda s: [
            ("scaled_scores", s * SCALE),
            ("biased_scores", s * SCALE + ADDED),
            ("softcapped_scores", cap(s * SCALE + ADDED)),
            ("masked_scores", hide(cap(s * SCALE + ADDED))),
        ],
    ),
    "scale,softcap,mask,bias": (
        ("mask", "bias"),
        {"softcap": CAP},
        lambda s: [
            ("scaled_scores", s * SCALE),
            ("softcapped_scores", cap(s * SCALE)),
            ("masked_scores", hide(cap(s * SCALE))),
            ("biased_scores", hide(cap(s * SCALE) + ADDED)),
        ],
    ),
    "bias,scale,mask": (
        ("mask", "bias"),
        {},
        lambda s: [
            ("biased_scores", s + ADDED),
            ("scaled_scores", (s + ADDED) * SCALE),
            ("masked_scores", hide((s + ADDED) * SCALE)),
        ],
    ),
    "mask,softcap,scale": (
        ("mask",),
        {"softcap": CAP},
        lambda s: [
            ("masked_scores", hide(s, SEEN)),
            ("softcapped_scores", hide(cap(s), SEEN)),
            ("scaled_scores", hide(cap(s) * SCALE, SEEN)),
        ],
    ),
    "scale,softcap,scale": (
        (),
        {"softcap": CAP},
        lambda s: [
            ("scaled_scores", s * SCALE),
            ("softcapped_scores", cap(s * SCALE)),
            ("scaled_scores_2", cap(s * SCALE) * SCALE),
        ],
    ),
    "scale,softcap,scale,scale": (
        (),
        {"softcap": CAP},
        lambda s: [
            ("scaled_scores", s * SCALE),
            ("softcapped_scores", cap(s * SCALE)),
            ("scaled_scores_2", cap(s * SCALE) * SCALE),
            ("scaled_scores_3", cap(s * SCALE) * SCALE * SCALE),
        ],
    ),
    "bias,scale,bias,mask": (
        ("mask", "bias"),
        {},
        lambda s: [
            ("biased_scores", s + ADDED),
            ("scaled_scores", (s + ADDED) * SCALE),
            ("biased_scores_2", biased_again((s + ADDED) * SCALE)),
            ("masked_scores", hide(biased_again((s + ADDED) * SCALE))),
        ],
    ),
    "temperature,scale": (
        (),
        {"temperature": HEAT},
        lambda s: [("tempered_scores", s / HEAT), ("scaled_scores", s / HEAT * SCALE)],
    ),
    "temperature,softcap,scale": (
        (),
        {"temperature": HEAT, "softcap": CAP},
        lambda s: [
            ("tempered_scores", s / HEAT),
            ("softcapped_scores", cap(s / HEAT)),
            ("scaled_scores", cap(s / HEAT) * SCALE),
        ],
    ),
    "": (  # as it stands without being said
        ("mask", "bias"),
        {"temperature": HEAT, "softcap": CAP},
        lambda s: [
            ("scaled_scores", s * SCALE),
            ("softcapped_scores", cap(s * SCALE)),
            ("tempered_scores", cap(s * SCALE) / HEAT),
            ("biased_scores", cap(s * SCALE) / HEAT + ADDED),
            ("masked_scores", hide(cap(s * SCALE) / HEAT + ADDED)),
        ],
    ),
}


def biased_again(s: np.ndarray) -> np.ndarray:
    """+∞ (−∞ times a negative scale) plus −∞ is NaN, until the mask takes the cell away."""
    with np.errstate(invalid="ignore"):
        return s + ADDED


@pytest.mark.parametrize("chain", CHAINS)
def test_every_link_of_a_chain_in_its_place(chain: str) -> None:
    used, choices, follow = CHAINS[chain]
    g = stream(901)
    q, k, v = floats(g, B, H, N, D).numpy(), floats(g, B, H, M, D).numpy(), floats(g, B, H, M, C).numpy()
    fields = {"mask": SEEN, "bias": ADDED}
    result = compute(
        {"q": q, "k": k, "v": v, **{name: fields[name] for name in used}},
        scale=SCALE,
        **choices,
        **({"chain": chain} if chain else {}),
    )
    raw = np.einsum("bhnd,bhmd->bhnm", q, k)
    steps = follow(raw)
    assert_close(step_values(result, "scores"), raw, atol=1e-14)
    assert [step.name for step in result if step.name.endswith("_scores") or "_scores_" in step.name] == [
        name for name, _ in steps
    ]
    for name, figures in steps:
        assert_close(step_values(result, name), figures, atol=1e-14)
    last = steps[-1][1]
    total = np.exp(last).sum(-1, keepdims=True)
    weights = np.exp(last) / np.where(total == 0, 1, total)
    assert_close(step_values(result, "weights"), weights, atol=1e-15)
    assert_close(step_values(result, "head_context"), weights @ v, atol=1e-14 * np.abs(v).max())
    assert_close(step_values(result, "max_score"), last.max(-1), atol=1e-14)
    with np.errstate(divide="ignore"):
        assert_close(step_values(result, "log_sum_exp"), np.log(total)[..., 0], atol=1e-14)
    seen = {(): np.ones((N, M), bool), ("mask",): SEEN, ("mask", "bias"): VISIBLE}[used]
    np.testing.assert_array_equal(step_values(result, "visible_keys"), np.broadcast_to(seen.sum(-1), (B, H, N)))


def test_orders_that_differ_give_other_weights() -> None:
    """The published example (x-transformers against Gemma): scores 3 1 2, bias 0 −1 −2, cap 5."""
    fields = {"q": [[1.0]], "k": [[3.0], [1.0], [2.0]], "bias": [0.0, -1.0, -2.0]}
    cap_first, bias_first = (
        step_values(compute(fields, softcap=5, chain=chain), "weights")[0]
        for chain in ("scale,softcap,bias", "scale,bias,softcap")
    )
    assert cap_first.round(4).tolist() == [0.8857, 0.0596, 0.0546]
    assert bias_first.round(4).tolist() == [0.88, 0.06, 0.06]


@pytest.mark.parametrize(
    "choices", [{}, {"scale": "none"}, {"scale": 1}, {"temperature": 1}, {"temperature": "none", "softcap": "none"}]
)
def test_a_link_that_does_nothing_leaves_no_step(choices: dict[str, Any]) -> None:
    """With width 1, 1/√d_k is 1: nothing to see there either."""
    result = compute({"q": [[1.0], [-2.0]], "k": [[3.0], [1.0], [2.0]]}, **choices)
    assert [step.name for step in result if "scores" in step.name] == ["scores"]
    e = np.exp([[3.0, 1.0, 2.0], [-6.0, -2.0, -4.0]])
    assert_close(step_values(result, "weights"), e / e.sum(-1, keepdims=True))
