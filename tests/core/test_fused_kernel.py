"""PyTorch's fused kernel gives what the algebra gives, or is refused with the reason."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.errors import CannotError, InputError
from attncli.plan import make_plan, schedule
from attncli.variant import Variant
from tests.core.tiles import assert_same_steps
from tests.helpers import draw_normal

pytestmark = pytest.mark.usefixtures("small_stretches")
LONG = 13  # queries and keys; prime, so that no tile but of one row divides them


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
def test_the_kernel_says_the_same(choices, dtype, rtol):
    kv = 8 * choices.get("kv_heads", 1) // choices.get("heads", 1) if "kv_heads" in choices else 8
    x = draw_normal(2, LONG, 8)
    problem = attncli.Problem(
        embeddings=x,
        parameters={"w_k": draw_normal(3, 8, kv), "w_v": draw_normal(4, 8, kv), "w_o": draw_normal(5, 8, 6)},
    )
    variant = Variant(dtype=dtype, **choices)

    keep = ["log_sum_exp", "context", "output"]

    dense = attncli.attend(problem, variant, keep)
    fused = attncli.attend(problem, Variant(dtype=dtype, schedule="fused", **choices), keep)

    assert (dense.variant["schedule"], fused.variant["schedule"]) == ("dense", "fused")
    largest = np.abs(dense["output"].values[np.isfinite(dense["output"].values)]).max()
    assert_same_steps(dense, fused, largest, rtol, rtol / 100 if dtype == "float64" else rtol / 10)


@pytest.mark.parametrize(
    ("choices", "keep", "why"),
    [
        ({"softcap": 2}, "context", "it does not have the link softcap"),
        ({"normalizer": "sparsemax"}, "context", "it does not have sparsemax"),
        ({"sink": "zero"}, "context", "it does not have sink zero"),
        ({}, "weights", "it does not return weights"),
        ({"mask": "causal", "empty_rows": "uniform", "lengths": [3]}, "context", "it has no uniform weights"),
    ],
)
def test_a_kernel_that_cannot_is_refused_with_the_reason(choices, keep, why):
    fields = {"lengths": choices.pop("lengths")} if "lengths" in choices else {}

    with pytest.raises(InputError, match=f"no fused kernel computes this: {why}"):
        make_plan(
            attncli.Problem(embeddings=draw_normal(1, 5, 2), **fields), Variant(schedule="fused", **choices), [keep]
        )


def test_values_that_a_kernel_would_let_through_go_the_long_way(monkeypatch):
    monkeypatch.setattr(schedule, "MAX_DENSE_SCORES", 0)
    q, k, v = (draw_normal(i, 5, 3) for i in range(3))
    v[4] = np.nan
    problem = attncli.Problem(q=q, k=k, v=v)

    result = attncli.attend(problem, Variant(mask="causal"), ["context"])

    assert result.variant["schedule"] == "tiled"
    assert np.isfinite(result["context"].values[:4]).all()
    assert np.isnan(result["context"].values[4]).all()
    with pytest.raises(CannotError, match="finite values"):
        attncli.attend(problem, Variant(mask="causal", schedule="fused"), ["context"])


# ── the log-sum-exp ──────────────────────────────────────────────────────────────────────────────
def test_the_kernel_that_returns_log_sum_exp_is_called_as_it_declares():
    """It is none of torch's public functions: another version may change it, or not have it."""
    import torch

    schema = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default._schema
    q, k, v = (torch.as_tensor(draw_normal(i, 1, 2, 5, 4)) for i in range(3))

    z, log_sum_exp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, False, scale=0.3)

    assert [(x.name, str(x.type), x.kwarg_only) for x in schema.arguments] == [
        ("query", "Tensor", False), ("key", "Tensor", False), ("value", "Tensor", False), ("dropout_p", "float", False),
        ("is_causal", "bool", False), ("attn_mask", "Optional[Tensor]", True), ("scale", "Optional[float]", True),
    ]  # fmt: skip
    torch.testing.assert_close(log_sum_exp, (0.3 * q @ k.mT).logsumexp(-1))
    torch.testing.assert_close(z, (0.3 * q @ k.mT).softmax(-1) @ v)


def test_without_that_kernel_tiles_make_the_log_sum_exp(monkeypatch):
    monkeypatch.setattr(schedule, "MAX_DENSE_SCORES", 0)
    monkeypatch.setattr("attncli.core.sdpa.has_log_sum_exp", lambda device: False)
    x = draw_normal(1, 7, 4)
    problem = attncli.Problem(embeddings=x)

    result = attncli.attend(problem, None, ["context", "log_sum_exp"])

    assert result.variant["schedule"] == "tiled"
    s = x @ x.T / 2
    np.testing.assert_allclose(result["log_sum_exp"].values, np.log(np.exp(s).sum(-1)), rtol=1e-12)
    with pytest.raises(CannotError, match="does not return log_sum_exp"):
        attncli.attend(problem, Variant(schedule="fused"), ["context", "log_sum_exp"])
