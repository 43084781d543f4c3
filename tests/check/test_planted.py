"""Of the wrong kernels of `planted`, a seeded sample is named first, and noise is given no cause."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.check import check
from attncli.check.figures import figures_from_arrays
from tests.check.planted import PLANTED, draw
from tests.check.planted_runs import WAYS, outcome

pytestmark = pytest.mark.slow
_KINDS = ("past", "cache", "rope", "rotat", "sink", "bias", "mask", "drop", "head", "item", "length")
SAMPLE = sorted(
    {
        *np.random.default_rng(20).choice(sorted(PLANTED), 5, replace=False).tolist(),
        *(name for kind in _KINDS for name in [name for name in sorted(PLANTED) if kind in name][::11]),
        *(
            "weights for scores",
            "v for context",
            "heads for tokens",
            "padded queries masked",
            "distance the other way round",
        ),
    }
)
NARROW_WAYS = ("4 decimals", "stored as float32", "computed in float16", "stored as bfloat16")


@pytest.mark.parametrize("name", SAMPLE)
def test_a_wrong_kernel_is_named_first(name):
    result, said = outcome(PLANTED[name], seed=3)

    assert result == "first", said


@pytest.mark.parametrize(("name", "way"), [*zip(SAMPLE[::7], NARROW_WAYS, strict=False)])
def test_a_wrong_kernel_is_named_first_in_fewer_digits(name, way):
    result, said = outcome(PLANTED[name], seed=3, way=WAYS[way])

    assert result == "first", said


@pytest.mark.parametrize("way", ["stored as float16", "stored as bfloat16"])
def test_a_number_that_half_precision_cannot_tell_is_no_other_one(way):
    """Another theta gives figures that the rule allows, too, but is not as near."""
    result, said = outcome(PLANTED["theta 123456"], seed=1, way=WAYS[way])

    assert result in ("first", "missed"), said


@pytest.mark.full  # `test_right_sets` tries noise as well
@pytest.mark.parametrize("seed", [0])
def test_noise_has_no_cause(seed):
    r = np.random.default_rng(seed)
    q, k, v = draw(r, b=2, n=20)
    noise = r.standard_normal((2, 20, 16)).round(4)

    verdict = check(
        attncli.Problem(q=q, k=k, v=v), attncli.Variant(mask="causal"), figures_from_arrays({"context": noise})
    )

    assert verdict.verdict == "wrong"
    assert not verdict.identified
