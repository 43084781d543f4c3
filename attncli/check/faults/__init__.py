"""The classic faults, each a small edit of the problem, the variant or the plan around the algebra. No family knows them.

A fault is a function (Trials) → hypotheses under the decorator `@fault`. A hypothesis has a name, a description that
completes “your weights are the reference …”, and a way to compute it. What a problem cannot show (heads where there are
none) is not yielded, or gives no plan. Each module here is a group of faults; it is imported because it is here.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from attncli.check.faults.base import Hypothesis, fault_hypotheses

_GROUP_ORDER = (  # of faults that are as plausible and match as well, the first is named first; other groups follow these
    "scale",
    "normalizers",
    "masks",
    "positions",
    "links",
    "heads",
    "layouts",
    "projections",
    "weights",
    "sinks",
    "dropout",
    "caches",
    "rope_and_qk_norm",
    "slices",
    "tiles",
    "constants",
    "backward",
    "rounding",
)


def _group_position(group: str) -> int:
    return _GROUP_ORDER.index(group) if group in _GROUP_ORDER else len(_GROUP_ORDER)


for _group in sorted((module.name for module in iter_modules(__path__)), key=_group_position):
    import_module(f"{__name__}.{_group}")

__all__ = ["Hypothesis", "fault_hypotheses"]
