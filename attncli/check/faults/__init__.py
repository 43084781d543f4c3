"""The classic faults, each a small rewrite of the problem, the variant or the plan around the algebra. No family knows them.

A fault is `@fault` over a function (Trials) → hypotheses: a name, a sentence that finishes “your weights are the reference …”,
and how to compute it. What a problem cannot show (heads where there are none) is not yielded, or gives no plan. Each file is a
group of them, and is found by being here.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from attncli.check.faults.base import FAULTS, Hypothesis
from attncli.check.trials import Trials

_GROUP_ORDER = (  # of faults that are as far-fetched and fit as well, the first is named first; other groups come after these
    "scale",
    "normalizers",
    "masks",
    "positions",
    "links",
    "heads",
    "projections",
    "weights",
    "dropout",
    "rounding",
)


def _group_position(group: str) -> int:
    return _GROUP_ORDER.index(group) if group in _GROUP_ORDER else len(_GROUP_ORDER)


for _group in sorted((module.name for module in iter_modules(__path__)), key=_group_position):
    import_module(f"{__name__}.{_group}")


def fault_hypotheses(trials: Trials) -> Iterator[Hypothesis]:
    """Every fault that this problem could show."""
    for one in FAULTS:
        yield from one(trials)


__all__ = ["Hypothesis", "fault_hypotheses"]
