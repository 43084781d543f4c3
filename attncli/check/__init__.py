"""Check figures: `attncli.check(problem, {"weights": mine}, mask="causal")` compares them with the reference, step by step, and
searches for what wrong ones are instead. It returns a `Report`: `right`, `causes`, `assert_right()`.

The package is the function of that name, too (`attncli.check.call.check_figures`, whose docstring has the arguments). Within:

    prepare   problem × variant × figures → task: everything that can be refused is refused, without torch
    check_prepared    task → verdict: `judge` compares, `search_changes` looks for what the figures are instead
    check     both at once

Without figures `attncli.judge_tolerance` says which wrong answers a tolerance would pass: `tolerances`, `wrong_answers`.

The reference is the problem computed in float64 from its inputs as stored. Faults are small edits of the problem, the
variant or the plan; the algebra knows nothing of them.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from attncli.check.figures import Figures
from attncli.check.task import OVERRULED_CHOICES, CheckTask, prepare
from attncli.verdict import Verdict

if TYPE_CHECKING:
    from attncli.check.verdicts import check, check_prepared, judge, search_changes

__all__ = [
    "OVERRULED_CHOICES",
    "CheckTask",
    "Figures",
    "Verdict",
    "check",
    "check_prepared",
    "judge",
    "prepare",
    "search_changes",
]


def __getattr__(name: str) -> object:
    """Import what compares and searches only when it is used, so that bad input is refused sooner."""
    if name in ("check", "judge", "search_changes", "check_prepared"):
        from attncli.check import verdicts

        return getattr(verdicts, name)
    raise AttributeError(f"module 'attncli.check' has no attribute {name!r}")


class _CallablePackage(ModuleType):
    """The package, which is also the function `attncli.check`."""

    def __call__(self, *args: object, **options: object) -> object:
        from attncli.check.call import check_figures

        return check_figures(*args, **options)  # type: ignore[arg-type]  # type checkers see `check_figures` itself

    @property
    def __signature__(self) -> object:
        """The signature of the function, for prompts that show it."""
        import inspect

        from attncli.check.call import check_figures

        return inspect.signature(check_figures)


sys.modules[__name__].__class__ = _CallablePackage
