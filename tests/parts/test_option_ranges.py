"""The numbers that each option of each part may be: a part with a range that is not here fails."""

from __future__ import annotations

import pytest

from attncli.errors import OptionError
from attncli.registry import Range
from attncli.variant import FAMILIES

TORCH_SEED = Range(low=0, below=2**64)
WIDTH = Range(low=1, high=2**31)
ABOVE_0 = Range(above=0)
FROM_0, FROM_1 = Range(low=0), Range(low=1)
DRAWN = {"dim": WIDTH, "v-dim": WIDTH, "seed": TORCH_SEED}

RANGES = {
    **{("projection", name): DRAWN for name in ("rand", "randn", "linear", "xavier", "torch-mha")},
    **{("qk-norm", name): {"eps": ABOVE_0} for name in ("l2", "rms", "layer")},
    ("position", "sinusoidal"): {"theta": Range(above=1)},  # the logarithm of 1 is 0: no wave would differ
    ("position", "rope"): {
        "theta": Range(above=1),
        "dims": Range(low=2),  # a pair of columns
        "fraction": Range(above=0, high=1),
        "original": Range(low=2),  # its logarithm divides
        **dict.fromkeys(("factor", "beta-fast", "beta-slow", "attention-factor", "mscale", "mscale-all-dim"), ABOVE_0),
    },
    ("position", "alibi"): {"max": ABOVE_0},
    ("position", "t5"): {"buckets": Range(low=4), "max-distance": Range(low=2)},
    ("position", "relative"): {"max-distance": FROM_0},
    ("link", "softcap"): {"cap": ABOVE_0},
    ("link", "temperature"): {"t": ABOVE_0},
    ("link", "log-n"): {"base": Range(above=1)},
    ("mask", "window"): {"left": Range(low=-1), "right": Range(low=-1)},  # −1: no bound
    ("mask", "prefix"): {"length": FROM_0},
    ("mask", "chunk"): {"size": FROM_1},
    ("mask", "dilated"): {"rate": FROM_1},
    ("mask", "strided"): {"stride": FROM_1},
    ("mask", "fixed"): {"stride": FROM_1, "summary": FROM_1},
    ("mask", "global"): {"tokens": FROM_0},
    ("mask", "natten"): {"kernel": FROM_1},
    ("mask", "bigbird"): {
        "block": FROM_1,
        "window": FROM_1,
        "global": FROM_0,
        "random": FROM_0,
        "seed": Range(low=0, high=2**32 - 1),  # NumPy's
    },
    ("normalizer", "entmax"): {"alpha": Range(low=1, high=64)},
    ("normalizer", "topk"): {"k": FROM_1},
    ("dropout", "dropout"): {"p": Range(low=0, below=1), "seed": TORCH_SEED},
    ("head-mixing", "differential"): {"depth": FROM_0},  # layers count from 0
}


def test_every_option_has_the_range_that_its_formula_needs():
    declared = {
        (family, member.name): {option.name: option.range for option in member.options if option.range != Range()}
        for family in FAMILIES
        for member in FAMILIES[family]
    }

    assert {name: ranges for name, ranges in declared.items() if ranges} == RANGES


BOUNDS = [
    (family, member, option, bound)
    for (family, member), ranges in RANGES.items()
    for option, bound in ranges.items()
    if option != "tokens"
]


@pytest.mark.parametrize(("family", "member", "name", "bound"), BOUNDS)
def test_a_bound_is_allowed_and_what_is_beyond_it_refused(family, member, name, bound):
    [option] = [o for o in FAMILIES[family].members[member].options if o.name == name]
    allowed = [x for x in (bound.low, bound.high) if abs(x) < float("inf")]
    refused = [x for x in (bound.above, bound.below) if abs(x) < float("inf")]
    refused += [x + step for x, step in ((bound.low, -1), (bound.high, 1)) if abs(x) < float("inf")]

    for x in allowed:
        assert option.parse(option.kind(x), "this") == x
    for x in refused:
        with pytest.raises(OptionError):
            option.parse(option.kind(x), "this")
